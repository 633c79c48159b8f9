//! How sure a message must arrive. Which message is of which class stands in `wire::class_of`.

use super::RunId;
use serde::{Deserialize, Serialize};

/// What the agent promises about a message that it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryClass {
    /// On disk before the caller hears yes; leaves the disk only when the server has it.
    Durable(MessageKind),
    /// One slot per key, the newest wins; sent when the link is up.
    Latest(Slot),
    /// Sent now or never.
    Ephemeral,
}

/// The slots of messages of which only the newest counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The containers of this host.
    Discovery,
    /// Progress of one run.
    Progress(RunId),
}

/// What a durable message is, as far as the queue must know: results of runs are never evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum MessageKind {
    /// BackupCompleted, QUEUED and terminal JobUpdate, Ack of a durable command.
    Run = 1,
    /// HealthCheckResult.
    HealthResult = 2,
    /// LogEvent: the first to go when the queue is full.
    Log = 3,
}

impl MessageKind {
    /// Every kind, the first to be evicted first.
    pub const ALL: [Self; 3] = [Self::Log, Self::HealthResult, Self::Run];

    /// The kind of a number that was written with `as u8`.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}
