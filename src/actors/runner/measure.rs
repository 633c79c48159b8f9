//! Runs in numbers. The names are a contract (behaviour section 5).

use crate::model::{JobId, RunOutcome};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use std::time::Duration;

const RUNS: &str = "backupy_agent_runs_total";
const DURATION: &str = "backupy_agent_run_duration_seconds";
const SIZE: &str = "backupy_agent_run_size_bytes";

/// What the numbers mean, for the exporter.
pub fn describe() {
    describe_counter!(RUNS, Unit::Count, "Runs that ended, by job and how: success, failed or cancelled");
    describe_histogram!(DURATION, Unit::Seconds, "From a run's start to its end");
    describe_histogram!(SIZE, Unit::Bytes, "Size of a run's stored object");
}

/// A run ended; `took` is None where it never began.
pub(super) fn ended(job_id: &JobId, outcome: &RunOutcome, took: Option<Duration>) {
    let job = || job_id.to_string();
    counter!(RUNS, "job_id" => job(), "status" => status(outcome)).increment(1);
    if let Some(took) = took {
        histogram!(DURATION, "job_id" => job()).record(took.as_secs_f64());
    }
    if let RunOutcome::Completed(completed) = outcome {
        histogram!(SIZE, "job_id" => job()).record(completed.size_bytes as f64);
    }
}

/// A word for labels and logs.
pub(super) fn status(outcome: &RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Completed(_) => "success",
        RunOutcome::Failed { .. } => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
}
