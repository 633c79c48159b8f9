//! Which agents are connected, and the way to them.

use crate::wire::Payload;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// What waits for a slow agent. Past it the link is cut: everything that matters is sent again when the
/// agent comes back, and memory stays bounded.
pub const OUTBOX: usize = 256;

/// A message on its way to an agent.
#[derive(Debug)]
pub struct Outbound {
    /// Empty where no Ack is wanted.
    pub correlation_id: String,
    /// What is said.
    pub payload: Payload,
}

/// Why a link is closed from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// A newer connection of the same agent took over.
    Superseded,
    /// The agent has a new key.
    KeyChanged,
    /// It reads too slowly.
    TooSlow,
    /// This control plane ends.
    ShuttingDown,
}

/// One agent's connection.
#[derive(Debug)]
pub struct Link {
    /// Told to the agent.
    pub session_id: String,
    /// Unix milliseconds.
    pub connected_at_ms: u64,
    /// The address by which the agent came, as the base of its upload URLs.
    pub base_url: String,
    /// Bounded by [`OUTBOX`].
    pub outbox: mpsc::Sender<Outbound>,
    /// Used once; None when it was.
    pub goodbye: Option<oneshot::Sender<Goodbye>>,
}

impl Link {
    fn say_goodbye(&mut self, why: Goodbye) {
        if let Some(goodbye) = self.goodbye.take() {
            // The link may have ended by itself.
            let _ = goodbye.send(why);
        }
    }
}

/// The agent cannot be reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReached;

/// All links, one an agent.
#[derive(Debug, Default)]
pub struct Hub {
    links: Mutex<HashMap<String, Link>>,
}

impl Hub {
    /// Takes a link in; an older one of the same agent is closed.
    pub fn connect(&self, agent_id: &str, link: Link) {
        if let Some(mut older) = self.lock().insert(agent_id.to_owned(), link) {
            tracing::info!(agent_id, session_id = older.session_id, "superseded by another connection");
            older.say_goodbye(Goodbye::Superseded);
        }
    }

    /// Forgets a link, unless a newer one has taken its place.
    pub fn disconnect(&self, agent_id: &str, session_id: &str) {
        let mut links = self.lock();
        if links.get(agent_id).is_some_and(|link| link.session_id == session_id) {
            links.remove(agent_id);
        }
    }

    /// Puts a message on the way; whether it arrives, only an Ack tells.
    ///
    /// # Errors
    /// Where the agent is not connected, or reads too slowly: it is cut off then.
    pub fn send(&self, agent_id: &str, correlation_id: &str, payload: Payload) -> Result<(), NotReached> {
        let mut links = self.lock();
        let link = links.get_mut(agent_id).ok_or(NotReached)?;
        let message = Outbound { correlation_id: correlation_id.to_owned(), payload };
        match link.outbox.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotReached),
            Err(mpsc::error::TrySendError::Full(_)) => {
                link.say_goodbye(Goodbye::TooSlow);
                Err(NotReached)
            }
        }
    }

    /// Closes an agent's link, if there is one.
    pub fn dismiss(&self, agent_id: &str, why: Goodbye) {
        if let Some(link) = self.lock().get_mut(agent_id) {
            link.say_goodbye(why);
        }
    }

    /// Closes all links.
    pub fn dismiss_all(&self, why: Goodbye) {
        self.lock().values_mut().for_each(|link| link.say_goodbye(why));
    }

    /// What `look` sees of an agent's link.
    pub fn look<R>(&self, agent_id: &str, look: impl FnOnce(&Link) -> R) -> Option<R> {
        self.lock().get(agent_id).map(look)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        // No step inside leaves a link half changed.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn link(session_id: &str) -> (Link, mpsc::Receiver<Outbound>, oneshot::Receiver<Goodbye>) {
        let (outbox, outbound) = mpsc::channel(OUTBOX);
        let (goodbye, dismissed) = oneshot::channel();
        let link = Link {
            session_id: session_id.into(),
            connected_at_ms: 1,
            base_url: String::new(),
            outbox,
            goodbye: Some(goodbye),
        };
        (link, outbound, dismissed)
    }

    fn ping() -> Payload {
        Payload::Ping(v1::Ping::default())
    }

    #[test]
    fn the_newer_connection_wins_and_the_older_ones_end_changes_nothing() {
        let hub = Hub::default();
        let (older, _outbound, mut dismissed) = link("1");
        hub.connect("a", older);
        let (newer, mut outbound, _keep) = link("2");
        hub.connect("a", newer);
        assert_eq!(dismissed.try_recv(), Ok(Goodbye::Superseded));
        hub.disconnect("a", "1");
        hub.send("a", "c", ping()).unwrap();
        assert_eq!(outbound.try_recv().unwrap().correlation_id, "c");
        hub.disconnect("a", "2");
        assert_eq!(hub.send("a", "c", ping()), Err(NotReached));
    }

    #[test]
    fn an_agent_that_does_not_read_is_cut_off() {
        let hub = Hub::default();
        let (slow, _outbound, mut dismissed) = link("1");
        hub.connect("a", slow);
        (0..OUTBOX).for_each(|_| hub.send("a", "", ping()).unwrap());
        assert!(dismissed.try_recv().is_err());
        assert_eq!(hub.send("a", "", ping()), Err(NotReached));
        assert_eq!(dismissed.try_recv(), Ok(Goodbye::TooSlow));
    }
}
