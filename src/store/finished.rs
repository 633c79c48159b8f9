//! Which finished runs are kept: the newest, a bounded number.

use crate::model::{RunId, RunPhase, RunRecord};
use std::collections::BTreeSet;

/// Which finished runs are kept. Works on a copy that counts only when the transaction does.
pub(super) struct FinishedRuns {
    pub(super) kept: BTreeSet<(u64, RunId)>,
    pub(super) max: usize,
}

impl FinishedRuns {
    /// Takes the record in and answers the runs that are now too many.
    pub(super) fn note(&mut self, record: &RunRecord) -> Vec<RunId> {
        let run_id = &record.order.run_id;
        self.forget(run_id);
        match &record.phase {
            RunPhase::Finished { at_ms, .. } => {
                self.kept.insert((*at_ms, run_id.clone()));
            }
            RunPhase::Accepted | RunPhase::Started { .. } => {}
        }
        let mut forgotten = Vec::new();
        while self.kept.len() > self.max
            && let Some((_, run_id)) = self.kept.pop_first()
        {
            forgotten.push(run_id);
        }
        forgotten
    }

    pub(super) fn forget(&mut self, run_id: &RunId) {
        self.kept.retain(|(_, kept)| kept != run_id);
    }
}
