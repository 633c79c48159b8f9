//! What can be observed of a running agent: the actors answer with it, `status` prints it.

use super::{HealthStatus, JobId, RunId, Step};
use serde::{Deserialize, Serialize};

/// The ladder of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Waiting before the next dial.
    #[default]
    Waiting,
    /// DNS, TCP, TLS, upgrade.
    Dialing,
    /// Register is out, RegisterAck is not in.
    Registering,
    /// Registered.
    Established,
    /// Saying goodbye.
    Closing,
}

impl LinkState {
    /// Every state, for metrics with one row a state.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Dialing, Self::Registering, Self::Established, Self::Closing];

    /// A word for people and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dialing => "dialing",
            Self::Registering => "registering",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

/// The link to the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Where it stands.
    pub state: LinkState,
    /// Since when, unix milliseconds.
    pub since_ms: u64,
    /// When a link was last known to be established, unix milliseconds: its beginning while it is,
    /// its end once it is over; None before the first.
    #[serde(default)]
    pub last_established_ms: Option<u64>,
    /// What the server calls this session; empty before the first.
    pub session_id: String,
    /// Connections after the first that was established.
    pub reconnects: u64,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// Round trip of the last WebSocket ping, milliseconds.
    pub round_trip_ms: Option<f64>,
    /// When the control plane last gave this agent's place to another connection with the same key,
    /// unix milliseconds: most likely this host, or its state, was copied. None where that never was.
    #[serde(default)]
    pub superseded_ms: Option<u64>,
}

/// The durable messages that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages on disk that the server has not confirmed.
    pub depth: u64,
    /// Their size.
    pub bytes: u64,
    /// Written, not confirmed yet.
    pub in_flight: u64,
    /// The last seq given out.
    pub last_seq: u64,
    /// Messages that went because the queue was full, since the start.
    pub evicted: u64,
    /// Messages that the server refused for good, since the start: the quarantine keeps them.
    #[serde(default)]
    pub refused: u64,
}

/// The state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Size on disk.
    pub file_bytes: u64,
    /// Transactions since the start.
    pub commits: u64,
    /// Changes in those transactions: more than commits where they were grouped.
    pub changes: u64,
    /// Records set aside because they did not open or decode.
    pub quarantined: u64,
    /// Why the last write was refused; None while writing works.
    pub write_error: Option<String>,
    /// Why new work is refused although writing works: the disk is nearly full.
    #[serde(default)]
    pub low_space: Option<String>,
}

/// A run that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run.
    pub run_id: RunId,
    /// Its job.
    pub job_id: JobId,
    /// None while it waits for its turn.
    pub step: Option<Step>,
    /// 0 to 100.
    pub progress_percent: u8,
    /// Since when, unix milliseconds.
    pub since_ms: u64,
}

/// An actor under the Supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// Whether it answered the last time it was asked.
    pub alive: bool,
    /// Restarts after a panic.
    pub panics: u64,
    /// Restarts after it ended with an error.
    pub errors: u64,
    /// Restarts after it did not answer in time.
    pub freezes: u64,
}

/// Everything, as `status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The binary's version.
    pub version: String,
    /// Of the daemon.
    pub pid: u32,
    /// Unix milliseconds.
    pub started_at_ms: u64,
    /// The control plane, without query or userinfo.
    pub server_url: String,
    /// The link.
    pub link: LinkStatus,
    /// Version of the applied configuration; 0 for none.
    pub config_version: u64,
    /// Durable messages.
    pub queue: QueueStatus,
    /// The state file.
    pub store: StoreStatus,
    /// Runs that are not over.
    pub runs: Vec<RunStatus>,
    /// Health checks.
    #[serde(default)]
    pub health: HealthStatus,
    /// The actors.
    pub children: Vec<ChildStatus>,
}
