//! What the control plane knows of agents, runs and messages.

use super::agent_config::AgentConfig;
use super::seen::Seen;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// An agent, named before it connects for the first time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Agent {
    /// Never changes.
    pub id: String,
    /// Order of creation.
    pub no: u64,
    /// For people; unique.
    pub name: String,
    /// SHA-256 of the agent key, hex: the key itself is not kept.
    pub key_sha256: String,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Grows with every change; 0 before the first.
    pub config_version: u64,
    /// What it is to do.
    pub config: AgentConfig,
    /// Of the configuration that the file named last: a restart with the same file changes nothing.
    pub file_config_sha256: Option<String>,
    /// Its last Register.
    pub register: Option<Register>,
    /// Its last Heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// Its last DiscoveryReport.
    pub discovered: Option<Value>,
    /// Seqs that were taken.
    pub seen: Seen,
    /// How many messages were taken, by kind.
    pub received: BTreeMap<String, u64>,
    /// How many messages came again.
    pub duplicates: u64,
    /// The newest messages of each kind.
    pub messages: BTreeMap<String, VecDeque<Message>>,
    /// The newest results of each health check of the configuration.
    #[serde(default)]
    pub check_results: BTreeMap<String, VecDeque<Message>>,
    /// Order of arrival of the next message.
    pub next_message_no: u64,
}

/// What an agent said of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// Its build.
    pub agent_version: String,
    /// Its host.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub arch: String,
    /// Empty where there is none.
    pub docker_version: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Applied before it connected.
    pub last_known_config_version: u64,
}

/// The last sign of life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it came, unix milliseconds.
    pub at_ms: u64,
    /// The configuration that is applied.
    pub config_version: u64,
    /// Jobs that run or wait.
    pub active_job_ids: Vec<String>,
    /// The host.
    pub metrics: Option<Value>,
}

/// A message as it came, for people and tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Order of arrival at this control plane.
    #[serde(default)]
    pub no: u64,
    /// `heartbeat`, `job_update`, ...
    pub kind: String,
    /// Of the envelope.
    pub seq: u64,
    /// Of the envelope: the agent's clock.
    pub ts_ms: u64,
    /// The control plane's clock.
    pub received_at_ms: u64,
    /// Of the envelope.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    /// The message's fields; keys and passwords left out.
    pub body: Value,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Not started on the agent.
    #[default]
    Queued,
    /// Dumping, uploading, or being verified here.
    Running,
    /// The stored object is what the agent says.
    Success,
    /// `error_message` says why.
    Failed,
    /// By CancelJob.
    Cancelled,
}

impl RunStatus {
    /// Whether nothing changes any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Success | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// A run from its order to its verified end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What everybody knows it by.
    pub id: String,
    /// Order of creation.
    pub no: u64,
    /// Who runs it.
    pub agent_id: String,
    /// What is run.
    pub job_id: String,
    /// A person started it.
    pub manual: bool,
    /// Where it stands.
    pub status: RunStatus,
    /// 0 to 100, as the agent says.
    pub progress_percent: u32,
    /// What the agent is doing; `verifying` also while the object is held against the report here.
    pub current_step: String,
    /// Why it failed.
    pub error_message: String,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// The first sign that the agent works on it.
    pub started_at_ms: Option<u64>,
    /// When the end was known here.
    pub finished_at_ms: Option<u64>,
    /// The agent has it on its disk: it is not sent again.
    pub acked: bool,
    /// How often it was sent.
    pub sent: u32,
    /// Name of the object in the store.
    pub s3_key: String,
    /// Its upload in parts, where one was offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// What the agent reported; verified when the status is SUCCESS.
    pub result: Option<RunResult>,
    /// Given by the caller, so that a repeated request starts no second run.
    pub idempotency_key: Option<String>,
    /// The data key, sealed under the master key. Never shown.
    pub sealed_dek: String,
}

/// An upload in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The store's name of it, lower-case hex.
    pub id: String,
    /// Of the URLs that were signed last, unix milliseconds.
    pub expires_at_ms: u64,
}

/// BackupCompleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// Of the object.
    pub size_bytes: u64,
    /// Of the object, lower-case hex.
    pub sha256: String,
    /// On the agent.
    pub duration_ms: u64,
    /// `zstd`, `gzip` or `none`.
    pub compression: String,
    /// For example `SQLite 3.54.0`.
    pub db_engine_version: String,
}
