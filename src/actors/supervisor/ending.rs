//! The ordered end: nothing new in, goodbye, runs, then what must be on the disk.

use super::factory::ConnectionDoor;
use crate::actors::messages::{ChildName, Hangup, Quit};
use actix::prelude::*;
use std::time::Duration;
use tokio::time::timeout;

/// The whole end. systemd and container runtimes are told to give 10 s or more; the rest is for the
/// process itself.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_millis(9_500);

/// Everybody who must still do something, and in which order.
pub(super) struct LastOrders {
    pub(super) connection: Option<ConnectionDoor>,
    pub(super) quit: Vec<(ChildName, Recipient<Quit>)>,
}

impl LastOrders {
    /// Carries them out. What does not answer is left behind: the state file is safe at any moment.
    pub(super) async fn carry_out(mut self) {
        // The Dispatcher first: no command is taken in any more. Health next: no new results.
        self.quit(ChildName::Dispatcher).await;
        self.quit(ChildName::Health).await;
        if let Some(connection) = self.connection.take() {
            let hangup = timeout(limit(ChildName::Connection), connection.hangup.send(Hangup)).await;
            if hangup.is_err() {
                tracing::warn!("the connection did not close in time");
            }
        }
        for child in [ChildName::Runner, ChildName::Heartbeat, ChildName::Queue, ChildName::StateStore] {
            self.quit(child).await;
        }
    }

    async fn quit(&mut self, child: ChildName) {
        let Some(index) = self.quit.iter().position(|(name, _)| *name == child) else { return };
        let (_, recipient) = self.quit.swap_remove(index);
        match timeout(limit(child), recipient.send(Quit)).await {
            // Gone already is as good as ended.
            Ok(Ok(()) | Err(_)) => {}
            Err(_) => tracing::warn!(actor = child.name(), "did not end in time and is left behind"),
        }
    }
}

/// The shares of [`SHUTDOWN_LIMIT`]: the Runner ends tools and removes spools, the StateStore writes.
fn limit(child: ChildName) -> Duration {
    Duration::from_millis(match child {
        ChildName::Dispatcher | ChildName::Health | ChildName::Heartbeat => 500,
        ChildName::Connection => 2_000,
        ChildName::Runner => 3_000,
        ChildName::Queue => 1_000,
        ChildName::StateStore => 2_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_into_the_whole() {
        let sum: Duration = ChildName::ALL.into_iter().map(limit).sum();
        assert!(sum <= SHUTDOWN_LIMIT, "{sum:?}");
        assert!(SHUTDOWN_LIMIT < Duration::from_secs(10));
    }
}
