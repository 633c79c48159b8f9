//! Looking after the children: every one is asked, silence is a freeze.

use crate::actors::messages::{AreYouThere, ChildName, Generation};
use actix::prelude::*;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::timeout;

/// How often every child is asked, where the init system's watchdog does not want it more often: a round wakes
/// up both threads of an idle agent, and is most of what it does.
pub const SUPERINTEND_INTERVAL: Duration = Duration::from_secs(20);

/// A child has so long to answer, or a round's interval where that is shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Rounds that fit into the watchdog's time: one may find a frozen child and replace it, the next one
/// feeds, and one is left for a busy host.
const ROUNDS_PER_WATCHDOG: u32 = 3;

/// How often to ask, given the watchdog's time.
pub(super) fn interval(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(SUPERINTEND_INTERVAL, |time| SUPERINTEND_INTERVAL.min(time / ROUNDS_PER_WATCHDOG))
}

/// How long a child has to answer.
pub(super) fn answer_limit(interval: Duration) -> Duration {
    interval.min(ANSWER_LIMIT)
}

/// What a child said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    There,
    Silent,
    Gone,
}

/// A child, its life, its answer.
pub(super) type Answered = (ChildName, Generation, Answer);

/// Asks all of them at once.
pub(super) async fn round(
    asked: Vec<(ChildName, Generation, Recipient<AreYouThere>)>,
    limit: Duration,
) -> Vec<Answered> {
    join_all(asked.into_iter().map(|(child, generation, recipient)| async move {
        let answer = match timeout(limit, recipient.send(AreYouThere)).await {
            Ok(Ok(())) => Answer::There,
            Ok(Err(_)) => Answer::Gone,
            Err(_) => Answer::Silent,
        };
        (child, generation, answer)
    }))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_makes_the_rounds_shorter_and_never_longer() {
        assert_eq!(interval(None), Duration::from_secs(20));
        assert_eq!(interval(Some(Duration::from_secs(6))), Duration::from_secs(2));
        assert_eq!(interval(Some(Duration::from_secs(300))), Duration::from_secs(20));
    }
}
