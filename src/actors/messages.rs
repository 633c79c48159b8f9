//! What the actors say to each other: one struct a message. Actors hold `Recipient`s of these,
//! handed out by the Supervisor; none knows another's type.

use crate::channel::LinkDown;
use crate::model::{
    AgentStatus, CheckId, HealthStatus, JobId, LinkState, MessageKind, Plan, RunOrder, RunStatus,
    StoreStatus, SysExit,
};
use crate::store::{Change, Inspection, OutboxPage, Recovered, StoreError};
use actix::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

mod delivery;

pub use delivery::*;

/// Counts the lives of a child: what an earlier life says is ignored.
pub type Generation = u64;

// --- StateStore -------------------------------------------------------------------------------

/// Make these changes in one transaction. Answered after the commit, never before.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Commit(pub Vec<Change>);

/// The oldest waiting records with a seq above `after`, first in first out.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<OutboxPage, StoreError>")]
pub struct ReadOutbox {
    /// Only records of that kind; None for all.
    pub kind: Option<MessageKind>,
    /// Exclusive lower bound.
    pub after: u64,
    /// At most so many.
    pub max_count: usize,
    /// At most so many bytes of envelopes; a single larger one is still given.
    pub max_bytes: usize,
}

/// What an actor needs of an earlier life: asked once when it starts.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Recovered, StoreError>")]
pub struct Recover;

/// What the state file holds, in numbers: asked by an operator.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Inspection, StoreError>")]
pub struct InspectState;

/// What the store looks like now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "StoreStatus")]
pub struct GetStoreStatus;

/// What keeps new work from being taken on has changed, for the Queue: None where nothing does any more.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RoomChanged(pub Option<StoreError>);

// --- Connection -------------------------------------------------------------------------------

/// A server message that asks for something, for the Dispatcher. Answered once it was taken in:
/// until then the Connection reads no further.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ServerCommand {
    /// Empty where the server wants no Ack.
    pub correlation_id: String,
    /// What is asked.
    pub command: Command,
}

pub use super::refusal::Refusal;
pub use crate::channel::Command;

/// The connection climbed or fell, for the Supervisor.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LinkChanged {
    /// Which connection.
    pub generation: Generation,
    /// Where it stands now.
    pub state: LinkState,
    /// Given with `Established`.
    pub session_id: Option<String>,
    /// Given with `Established`.
    pub heartbeat_interval: Option<Duration>,
}

/// The round trip of a WebSocket ping, for the Supervisor's status.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RoundTrip(pub Duration);

/// Say goodbye with close code 1000 and stop. Answered when the link is closed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Hangup;

// --- Heartbeat, Runner, Health, Dispatcher ---------------------------------------------------

/// The applied configuration changed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Configured(pub Arc<Plan>);

/// Take this order on. Answered once it is on disk, or refused with a reason for people. An order
/// whose run is known changes nothing; a finished run's result is sent again.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct StartRun(pub RunOrder);

/// Stop that job's runs, or forget them while they wait. Answered at once, so that what follows keeps its order;
/// what it answers with tells of their ends, once all of them are on disk, or why there is none to tell of.
#[derive(Debug, Clone, Message)]
#[rtype(result = "oneshot::Receiver<Result<(), Refusal>>")]
pub struct CancelRun(pub JobId);

/// The runs that are not over.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<RunStatus>")]
pub struct GetRuns;

/// Run this check now. Answered once its turn is next: the configuration is durable, so that a restart
/// of the agent runs the check again. A turn that is under way serves.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct RunCheck(pub CheckId);

/// How the health checks are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HealthStatus")]
pub struct GetHealth;

/// Version of the applied configuration, for the Supervisor's status; 0 for none.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "u64")]
pub struct GetConfigVersion;

// --- Supervisor -------------------------------------------------------------------------------

/// The actors under the Supervisor, in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChildName {
    /// Owns the state file.
    StateStore,
    /// Order, classes, bounds, windows.
    Queue,
    /// Runs.
    Runner,
    /// Health checks.
    Health,
    /// Commands.
    Dispatcher,
    /// Signs of life.
    Heartbeat,
    /// One connection.
    Connection,
}

impl ChildName {
    /// Every child, in the order in which they start.
    pub const ALL: [Self; 7] = [
        Self::StateStore,
        Self::Queue,
        Self::Runner,
        Self::Health,
        Self::Dispatcher,
        Self::Heartbeat,
        Self::Connection,
    ];

    /// A word for people and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::StateStore => "state_store",
            Self::Queue => "queue",
            Self::Runner => "runner",
            Self::Health => "health",
            Self::Dispatcher => "dispatcher",
            Self::Heartbeat => "heartbeat",
            Self::Connection => "connection",
        }
    }
}

/// A child's life ended, told by the child as the last thing it does (also after a panic).
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChildDown {
    /// Who.
    pub child: ChildName,
    /// Which life.
    pub generation: Generation,
    /// Why.
    pub exit: ChildExit,
}

/// Why a child's life ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ChildExit {
    /// It was asked to.
    Stopped,
    /// It did not reach its own end: a handler panicked.
    Panicked,
    /// It gave up, and says why.
    Failed(String),
    /// It gave up, and a new life cannot help: the process ends with this code.
    Hopeless(SysExit, String),
    /// A connection's end.
    Link(LinkDown),
}

/// Are you there? The Supervisor asks every child; silence is a freeze.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct AreYouThere;

/// Stop in order. The child answers when what must be finished is finished.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Quit;

/// Look after the children now: liveness, watchdog.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Superintend;

/// Everything that can be observed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "AgentStatus")]
pub struct GetStatus;

/// SIGTERM: the ordered end, within 10 s. Answered when all children have stopped.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Shutdown;
