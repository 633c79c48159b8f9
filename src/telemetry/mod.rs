//! Logs and metrics.
//!
//! Logs go to standard error or to the journal, never wait for a slow reader, and are cleaned of what
//! looks like a secret; that is the last net, the first is that secrets have types which do not show
//! them. Metrics are read by a Prometheus on this host.

mod journal;
mod logs;
mod metrics;
mod redact;
mod writer;

pub use self::logs::{LogControl, LogError, init_logs};
pub use self::metrics::{
    HEALTH_CHECK_DURATION_SECONDS, RUN_DURATION_SECONDS, RUN_SIZE_BYTES, RUNS_TOTAL, start_metrics,
};
pub use self::redact::redact;
