//! What goes in and out of the store.

use crate::model::{MessageKind, RunId, RunRecord};
use bytes::Bytes;

/// One change; a transaction makes several or none.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A durable message goes into the outbox.
    Append(OutboxRecord),
    /// These left the outbox: the server has them, or they were evicted.
    Remove(Vec<u64>),
    /// These left the outbox for the quarantine: the server refuses them for good.
    SetAside(Vec<u64>),
    /// What was evicted and is not told to the server yet, all of it.
    PutDropped(Dropped),
    /// A run is as this record says.
    PutRun(Box<RunRecord>),
    /// A run's record is no longer kept.
    ForgetRun(RunId),
    /// The applied configuration, encoded as `AgentConfig`.
    PutConfig {
        /// `AgentConfig.version`.
        version: u64,
        /// The message.
        config: Bytes,
    },
    /// The session that the server named.
    PutSession(String),
    /// No life of the agent has used or will use a seq from here on without reserving it first.
    ReserveSeq(u64),
}

/// Messages that went because the queue was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// LogEvents.
    pub logs: u64,
    /// HealthCheckResults.
    pub health_results: u64,
}

impl Change {
    /// Whether it leaves room in the file.
    pub fn removes(&self) -> bool {
        match self {
            Self::Remove(_) | Self::SetAside(_) | Self::ForgetRun(_) => true,
            Self::Append(_)
            | Self::PutDropped(_)
            | Self::PutRun(_)
            | Self::PutConfig { .. }
            | Self::PutSession(_)
            | Self::ReserveSeq(_) => false,
        }
    }
}

/// A durable message that waits for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRecord {
    /// Its place, and its name for the server (protocol section 4, rule 6).
    pub seq: u64,
    /// What the queue must know of it.
    pub kind: MessageKind,
    /// The whole encoded `Envelope`, as it will go out however often.
    pub envelope: Bytes,
}

/// Some of the outbox, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxPage {
    /// What can be sent.
    pub records: Vec<OutboxRecord>,
    /// What was met on the way and did not open or decode, and is in the outbox no more.
    pub set_aside: Vec<SetAside>,
}

/// A record of the outbox that was moved to the quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its seq.
    pub seq: u64,
    /// Its kind.
    pub kind: MessageKind,
    /// Bytes of its envelope.
    pub bytes: u64,
}

/// The outbox in numbers, one entry a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxTotals {
    /// Kind, messages, bytes of envelopes.
    pub by_kind: Vec<(MessageKind, u64, u64)>,
    /// The oldest waiting seq.
    pub first_seq: Option<u64>,
    /// The newest waiting seq.
    pub last_seq: Option<u64>,
}

impl OutboxTotals {
    /// Messages that wait.
    pub fn depth(&self) -> u64 {
        self.by_kind.iter().map(|(_, count, _)| count).sum()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.by_kind.iter().map(|(_, _, bytes)| bytes).sum()
    }
}

/// What an actor needs of an earlier life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// The first seq that no life has used.
    pub next_seq: u64,
    /// The applied configuration: version and encoded `AgentConfig`.
    pub config: Option<(u64, Bytes)>,
    /// The last session's name.
    pub session_id: Option<String>,
    /// Every kept run, oldest first.
    pub runs: Vec<RunRecord>,
    /// The outbox in numbers.
    pub outbox: OutboxTotals,
    /// What an earlier life evicted and did not tell.
    pub dropped: Dropped,
}
