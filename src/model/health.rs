//! Health checks: what is looked at, and what was seen.

use super::{CheckId, Secret};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// GET of a URL; over TLS where the URL says https.
    Http,
    /// GET of a URL, over TLS only.
    Https,
    /// Connects to host:port and says nothing.
    Tcp,
    /// The server named a kind that this version does not know: the check fails and says so.
    Unknown(i32),
}

/// A check of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its name in the configuration; results bear it.
    pub id: CheckId,
    /// For people.
    pub name: String,
    /// What it does.
    pub kind: CheckKind,
    /// A URL, or host:port. A URL may carry a password or a token, so it is never shown whole.
    pub target: Secret,
    /// From one turn to the next; at least a second.
    pub interval: Duration,
    /// Over everything: resolving, connecting, TLS, the answer's head.
    pub timeout: Duration,
    /// The only status that is well; 0 means any of 200 to 299.
    pub expected_status: u32,
}

impl HealthCheck {
    /// Whether both look at the same thing in the same way: then the turns go on as they are.
    pub fn looks_alike(&self, other: &Self) -> bool {
        let Self { id, name: _, kind, target, interval, timeout, expected_status } = self;
        *id == other.id
            && *kind == other.kind
            && *target == other.target
            && *interval == other.interval
            && *timeout == other.timeout
            && *expected_status == other.expected_status
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOutcome {
    /// For people: why it is not well; None where it is.
    pub error: Option<String>,
    /// From the beginning to the answer's head, or to the end of the trouble.
    pub latency: Duration,
    /// Of the HTTP answer, where one came.
    pub status_code: Option<u16>,
    /// There was no answer in time.
    pub timed_out: bool,
}

/// A check that is not well, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingCheck {
    /// Its name in the configuration.
    pub check_id: CheckId,
    /// For people.
    pub name: String,
    /// Since when, unix milliseconds.
    pub since_ms: u64,
    /// What it said last.
    pub error: String,
}

/// The health checks, as `status` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    /// Checks of the configuration.
    pub checks: usize,
    /// How many of them were not well the last time.
    pub failing: usize,
    /// Results that could not be made durable since the start.
    pub lost: u64,
    /// Those that fail since the shortest time, the newest first; not all of them where they are many.
    pub failures: Vec<FailingCheck>,
}
