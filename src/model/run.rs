//! A run from its order to its end.

use super::{Compression, JobId, Manifest, RunId, Secret};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a data encryption key, as the server sent them. Never shown, wiped when dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Dek(Vec<u8>);

impl Dek {
    /// A key that can be used as it is has this many bytes (protocol section 4, rule 8).
    pub const LEN: usize = 32;

    /// The bytes as they came, for `BackupCompleted.encrypted_dek`.
    pub fn as_received(&self) -> &[u8] {
        &self.0
    }

    /// The key itself; None where the bytes are wrapped and need a key provider.
    pub fn plain(&self) -> Option<&[u8; Self::LEN]> {
        self.0.as_slice().try_into().ok()
    }
}

impl From<Vec<u8>> for Dek {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dek({} bytes)", self.0.len())
    }
}

/// What `RunBackup` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// What runs are known by.
    pub run_id: RunId,
    /// The job to run.
    pub job_id: JobId,
    /// A person started it: the maintenance window does not hold it.
    pub manual: bool,
    /// Where the object goes, with its authorisation.
    pub put_url: Secret,
    /// Unix milliseconds; 0 where the server gave none.
    pub expires_at_ms: u64,
    /// The way in parts, where the server offers it.
    #[serde(default)]
    pub multipart: Option<Multipart>,
    /// The object's name, reported back.
    pub s3_key: String,
    /// The object's key.
    pub dek: Dek,
}

impl RunOrder {
    /// Whether its object has a place to go to.
    pub fn has_upload_url(&self) -> bool {
        !self.put_url.is_empty() || self.multipart.is_some()
    }

    /// Drops every URL: their authorisation is of no use any more, and what is not kept cannot leak.
    pub fn forget_urls(&mut self) {
        self.put_url = Secret::default();
        self.multipart = None;
    }
}

/// An upload in parts that the server has begun at the store (protocol section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multipart {
    /// Bytes of each part but the last; 0 leaves it to the agent.
    pub part_size_bytes: u64,
    /// Of the parts from `first_part` on.
    pub part_urls: Vec<Secret>,
    /// Number of the first of them, at least 1.
    pub first_part: u32,
    /// Takes the list of parts.
    pub complete_url: Secret,
    /// Gives the upload up; empty where the server gave none.
    pub abort_url: Secret,
    /// The store's name of the upload; may be empty.
    pub upload_id: String,
    /// Asks for the finished object's size; empty where the server gave none.
    #[serde(default)]
    pub head_url: Secret,
}

/// A run as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// What was asked.
    pub order: RunOrder,
    /// When it was accepted, unix milliseconds.
    pub accepted_at_ms: u64,
    /// Where it stands.
    pub phase: RunPhase,
}

/// How far a run is, as far as a restart must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// Accepted, not started.
    Accepted,
    /// Started: after a crash it is started again while its URL lives, else reported FAILED.
    Started {
        /// When it began for the first time, unix milliseconds.
        at_ms: u64,
        /// How it ended, where only its post-hooks are left. An agent that does not know this begins it again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<RunOutcome>,
    },
    /// Over; kept (bounded) so that a repeated order gets its result again.
    Finished {
        /// Unix milliseconds.
        at_ms: u64,
        /// How it ended.
        outcome: RunOutcome,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The object is stored and was verified.
    Completed(Completed),
    /// What happened, to what, why, and what to do: free of secrets.
    Failed {
        /// For people.
        error: String,
    },
    /// By CancelJob.
    Cancelled,
}

/// What is known of a stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// Of the uploaded object, framing included.
    pub size_bytes: u64,
    /// Lower-case hex, over the exact bytes uploaded.
    pub sha256: String,
    /// From the start of the run to its verified end.
    pub duration_ms: u64,
    /// How the stream was made smaller.
    pub compression: Compression,
    /// For example `SQLite 3.54.0`.
    pub engine_version: String,
    /// What the dump had as it went by; None where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
}

/// What a run is doing, as `JobUpdate.current_step` names it (behaviour section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Hooks before the dump.
    PreHooks,
    /// Reading, compressing, sealing, spooling.
    Dumping,
    /// Sending the object.
    Uploading,
    /// Holding the stored object against the spool.
    Verifying,
    /// Hooks after the run.
    PostHooks,
}

impl Step {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreHooks => "pre_hooks",
            Self::Dumping => "dumping",
            Self::Uploading => "uploading",
            Self::Verifying => "verifying",
            Self::PostHooks => "post_hooks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_run_reads_as_agents_wrote_it_that_kept_no_end_before_the_result() {
        let started = RunPhase::Started { at_ms: 3, outcome: None };
        let text = r#"{"started":{"at_ms":3}}"#;
        assert_eq!(serde_json::from_str::<RunPhase>(text).unwrap(), started);
        assert_eq!(serde_json::to_string(&started).unwrap(), text);
    }
}
