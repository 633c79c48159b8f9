//! How the checks are: who fails, since when, and what of it is worth a line in the log.

use crate::model::{CheckId, CheckOutcome, FailingCheck, HealthCheck, HealthStatus};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Failures that `status` shows.
const SHOWN: usize = 10;

/// Lost results are told in the log at most so often: a full disk must not be filled with the news.
const TELL_LOST: Duration = Duration::from_secs(60);

/// What the checks said last.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    failing: HashMap<CheckId, FailingCheck>,
    lost: u64,
    lost_untold: u64,
    lost_told: Option<Instant>,
}

impl Ledger {
    /// Notes what a turn saw. A change for the worse or the better is told, the rest is not news.
    pub(super) fn note(&mut self, check: &HealthCheck, ts_ms: u64, outcome: &CheckOutcome) {
        let HealthCheck { id, name, .. } = check;
        match &outcome.error {
            Some(error) => match self.failing.get_mut(id) {
                Some(known) => known.error.clone_from(error),
                None => {
                    tracing::warn!(check_id = %id, name, error, "health check fails");
                    let failing = FailingCheck {
                        check_id: id.clone(),
                        name: name.clone(),
                        since_ms: ts_ms,
                        error: error.clone(),
                    };
                    self.failing.insert(id.clone(), failing);
                }
            },
            None => {
                if self.failing.remove(id).is_some() {
                    tracing::info!(check_id = %id, name, "health check is well again");
                }
            }
        }
    }

    /// Forgets what is not there any more, or is not what it was.
    pub(super) fn keep(&mut self, is_there: impl Fn(&CheckId) -> bool) {
        self.failing.retain(|id, _| is_there(id));
    }

    /// A result could not be made durable.
    pub(super) fn lost(&mut self, why: &str) {
        self.lost += 1;
        self.lost_untold += 1;
        super::metrics::lost();
        let now = Instant::now();
        if self.lost_told.is_none_or(|told| now.duration_since(told) >= TELL_LOST) {
            tracing::warn!(
                results = self.lost_untold,
                reason = why,
                "results of health checks could not be stored and are lost"
            );
            self.lost_untold = 0;
            self.lost_told = Some(now);
        }
    }

    pub(super) fn failing(&self) -> usize {
        self.failing.len()
    }

    pub(super) fn status(&self, checks: usize) -> HealthStatus {
        let mut failures: Vec<FailingCheck> = self.failing.values().cloned().collect();
        failures.sort_by(|a, b| b.since_ms.cmp(&a.since_ms).then_with(|| a.check_id.cmp(&b.check_id)));
        failures.truncate(SHOWN);
        HealthStatus { checks, failing: self.failing.len(), lost: self.lost, failures }
    }
}
