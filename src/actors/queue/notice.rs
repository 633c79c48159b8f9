//! Tells the server what went because the queue was full: one LogEvent, not one a message.

use crate::model::{MessageKind, unix_ms};
use crate::wire::{Payload, v1};
use std::time::Duration;
use tokio::time::Instant;

/// Between two such LogEvents: a queue that stays full is told once a minute.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

/// What went and was not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evicted {
    logs: u64,
    health_results: u64,
}

impl Evicted {
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// Counts, and knows when to tell.
#[derive(Debug, Default)]
pub(super) struct Notice {
    untold: Evicted,
    told_at: Option<Instant>,
    /// Since the start.
    pub(super) total: u64,
}

impl Notice {
    pub(super) fn count(&mut self, kind: MessageKind) {
        self.total += 1;
        match kind {
            MessageKind::Log => self.untold.logs += 1,
            MessageKind::HealthResult => self.untold.health_results += 1,
            MessageKind::Run => {}
        }
    }

    /// How long to wait until it may be told; None where there is nothing to tell.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        if self.untold.is_nothing() {
            return None;
        }
        Some(self.told_at.map_or(Duration::ZERO, |told| (told + INTERVAL).saturating_duration_since(now)))
    }

    /// What is told now, and how.
    pub(super) fn take(&mut self, now: Instant) -> (Evicted, Payload) {
        self.told_at = Some(now);
        let evicted = std::mem::take(&mut self.untold);
        let message = format!(
            "the agent's queue was full: {} log events and {} health check results were dropped, the oldest first; no result of a run was",
            evicted.logs, evicted.health_results
        );
        let fields = [
            ("dropped_log_events".to_owned(), evicted.logs.to_string()),
            ("dropped_health_results".to_owned(), evicted.health_results.to_string()),
        ];
        let event = v1::LogEvent {
            ts_ms: unix_ms(),
            level: v1::LogLevel::Warn.into(),
            message,
            fields: fields.into(),
            ..v1::LogEvent::default()
        };
        (evicted, Payload::Log(event))
    }

    /// It could not be told after all.
    pub(super) fn put_back(&mut self, evicted: Evicted) {
        self.untold.logs += evicted.logs;
        self.untold.health_results += evicted.health_results;
    }
}
