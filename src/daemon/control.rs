//! What is said over the local control socket: one line with a request, one line with an answer,
//! both JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the socket in the state directory.
pub const SOCKET_FILE: &str = "agent.sock";

/// A request is a word and a switch; a longer line is none.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// An answer carries at most what the store keeps of runs, some hundred bytes each, and a
/// configuration that came in a message of at most 4 MiB.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Answered with an `AgentStatus`.
    Status,
    /// Answered with a [`Health`].
    Health,
    /// Answered with what the store keeps.
    DumpState {
        /// In the clear: passwords, keys, presigned URLs.
        #[serde(default)]
        allow_secrets: bool,
    },
    /// Answered with a `StateReport`.
    InspectState,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was asked for.
    Ok(Value),
    /// Why there is none.
    Error(String),
}

/// How the agent is, in a few words for monitoring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Of the daemon.
    pub pid: u32,
    /// Actors that did not answer the last time they were asked.
    pub silent: Vec<String>,
    /// A link stands now.
    pub connected: bool,
    /// How long no link has stood, seconds; since the start where none ever did.
    pub disconnected_s: u64,
    /// Why the state file takes no changes; None while it does.
    pub write_error: Option<String>,
}
