//! What a run is about.

use crate::model::{JobSpec, RunOrder, TargetSpec};

/// A run's whole assignment.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the server ordered.
    pub order: RunOrder,
    /// The job it belongs to.
    pub job: JobSpec,
    /// The database.
    pub target: TargetSpec,
}
