//! Health checks in numbers. No label names a check: their number is the control plane's to choose,
//! and each result goes there anyway.

use crate::model::CheckOutcome;
use crate::telemetry::HEALTH_CHECK_DURATION_SECONDS;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const CHECKS: &str = "backupy_agent_health_checks_total";
const CONFIGURED: &str = "backupy_agent_health_checks_configured";
const FAILING: &str = "backupy_agent_health_checks_failing";
const LOST: &str = "backupy_agent_health_results_lost_total";

/// What the numbers mean, for the exporter.
pub fn describe() {
    describe_counter!(
        CHECKS,
        Unit::Count,
        "Turns of health checks by result: ok, failed, timed_out, or skipped because the one before was not over"
    );
    describe_histogram!(
        HEALTH_CHECK_DURATION_SECONDS,
        Unit::Seconds,
        "From a health check's start to its answer or failure"
    );
    describe_gauge!(CONFIGURED, Unit::Count, "Health checks of the applied configuration");
    describe_gauge!(FAILING, Unit::Count, "Health checks that were not well the last time");
    describe_counter!(LOST, Unit::Count, "Results of health checks that could not be made durable");
}

/// A turn is over.
pub(super) fn ended(outcome: &CheckOutcome) {
    let result = match (&outcome.error, outcome.timed_out) {
        (None, _) => "ok",
        (Some(_), true) => "timed_out",
        (Some(_), false) => "failed",
    };
    counter!(CHECKS, "result" => result).increment(1);
    histogram!(HEALTH_CHECK_DURATION_SECONDS).record(outcome.latency.as_secs_f64());
}

/// Turns that were not begun.
pub(super) fn skipped(turns: u64) {
    counter!(CHECKS, "result" => "skipped").increment(turns);
}

/// A result that nobody will see.
pub(super) fn lost() {
    counter!(LOST).increment(1);
}

/// How things stand.
#[allow(clippy::cast_precision_loss, reason = "counts of checks are small")]
pub(super) fn stand(configured: usize, failing: usize) {
    gauge!(CONFIGURED).set(configured as f64);
    gauge!(FAILING).set(failing as f64);
}
