//! Tells the server what went because the queue was full: one LogEvent, not one a message. What was not
//! told is kept on the disk, so that a crash does not forget it.

use crate::model::{MessageKind, unix_ms};
use crate::store::Dropped;
use crate::wire::{Payload, v1};
use std::time::Duration;
use tokio::time::Instant;

/// Between two such LogEvents: a queue that stays full is told once a minute.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

/// The LogEvent that tells it is on its way to the disk. Given back where it does not get there.
#[derive(Debug)]
#[must_use]
pub(super) struct Told(());

/// Counts, and knows when to tell.
#[derive(Debug, Default)]
pub(super) struct Notice {
    untold: Dropped,
    /// In a LogEvent that is not on disk yet.
    telling: Dropped,
    told_at: Option<Instant>,
    /// Since the start.
    pub(super) total: u64,
}

impl Notice {
    /// What the disk says was not told: by an earlier life, or by this one before its store was replaced.
    pub(super) fn recovered(&mut self, on_disk: Dropped) {
        self.untold = minus(on_disk, self.telling);
    }

    /// What the disk must say once these are gone.
    pub(super) fn with(&self, gone: impl IntoIterator<Item = MessageKind>) -> Dropped {
        gone.into_iter().fold(plus(self.untold, self.telling), plus_one)
    }

    /// One of these went.
    pub(super) fn count(&mut self, kind: MessageKind) {
        self.total += 1;
        self.untold = plus_one(self.untold, kind);
    }

    /// How long to wait until it may be told; None where there is nothing to tell, or it is being told.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        if self.untold == Dropped::default() || self.telling != Dropped::default() {
            return None;
        }
        Some(self.told_at.map_or(Duration::ZERO, |told| (told + INTERVAL).saturating_duration_since(now)))
    }

    /// What is told now, and how.
    pub(super) fn take(&mut self, now: Instant) -> (Told, Payload) {
        self.told_at = Some(now);
        let dropped = std::mem::take(&mut self.untold);
        self.telling = dropped;
        let Dropped { logs, health_results } = dropped;
        let message = format!(
            "the agent's queue was full: {logs} log events and {health_results} health check results were dropped, the oldest first; no result of a run was"
        );
        let fields = [
            ("dropped_log_events".to_owned(), logs.to_string()),
            ("dropped_health_results".to_owned(), health_results.to_string()),
        ];
        let event = v1::LogEvent {
            ts_ms: unix_ms(),
            level: v1::LogLevel::Warn.into(),
            message,
            fields: fields.into(),
            ..v1::LogEvent::default()
        };
        (Told(()), Payload::Log(event))
    }

    /// What is left to tell once it is on disk: to be written with it.
    pub(super) fn left_to_tell(&self) -> Dropped {
        self.untold
    }

    /// It is on disk.
    pub(super) fn told(&mut self, _: Told) {
        self.telling = Dropped::default();
    }

    /// It could not be told after all.
    pub(super) fn put_back(&mut self, _: Told) {
        self.untold = plus(self.untold, std::mem::take(&mut self.telling));
    }
}

fn plus_one(dropped: Dropped, kind: MessageKind) -> Dropped {
    let one = match kind {
        MessageKind::Log => Dropped { logs: 1, health_results: 0 },
        MessageKind::HealthResult => Dropped { logs: 0, health_results: 1 },
        // Never dropped.
        MessageKind::Run => Dropped::default(),
    };
    plus(dropped, one)
}

fn plus(a: Dropped, b: Dropped) -> Dropped {
    Dropped { logs: a.logs + b.logs, health_results: a.health_results + b.health_results }
}

fn minus(a: Dropped, b: Dropped) -> Dropped {
    Dropped {
        logs: a.logs.saturating_sub(b.logs),
        health_results: a.health_results.saturating_sub(b.health_results),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_becomes_of_the_telling_nothing_is_forgotten_nor_told_twice() {
        let now = Instant::now();
        let mut notice = Notice::default();
        assert_eq!(notice.due_in(now), None);
        notice.recovered(Dropped { logs: 2, health_results: 0 });
        notice.count(MessageKind::Log);
        let (told, _) = notice.take(now);
        assert_eq!(notice.due_in(now + 2 * INTERVAL), None, "it is being told");
        let on_disk = notice.with([MessageKind::HealthResult]);
        assert_eq!(on_disk, Dropped { logs: 3, health_results: 1 }, "until the event is on disk");
        notice.count(MessageKind::HealthResult);
        notice.put_back(told);
        let (told, _) = notice.take(now);
        assert_eq!(notice.left_to_tell(), Dropped::default());
        notice.told(told);
        assert_eq!((notice.due_in(now), notice.total), (None, 2), "those of an earlier life are not ours");
        notice.count(MessageKind::Log);
        assert_eq!(notice.due_in(now), Some(INTERVAL));
    }
}
