//! What the actors say to each other: one struct a message. Actors hold `Recipient`s of these,
//! handed out by the Supervisor; none knows another's type.

use crate::channel::LinkDown;
use crate::model::{
    AgentStatus, CheckId, HealthStatus, JobId, LinkState, MessageKind, Plan, QueueStatus, RunOrder,
    RunStatus, StoreStatus,
};
use crate::store::{Change, Inspection, OutboxPage, Recovered, StoreError};
use crate::wire::Payload;
use actix::prelude::*;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

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

// --- Queue ------------------------------------------------------------------------------------

/// Send this to the server. The Queue knows the class (`wire::class_of`), gives the seq, and answers
/// once its promise for that class holds.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Submitted, QueueError>")]
pub struct Submit {
    /// The message.
    pub payload: Payload,
    /// Pairs it with a request; empty where it answers none.
    pub correlation_id: String,
    /// Changes that must become durable in the same transaction; only with a durable payload.
    pub with: Vec<Change>,
    /// Now or never, whatever its class: the Ack of a Ping, which looks like any other.
    pub ephemeral: bool,
}

impl Submit {
    /// A message that answers nothing and takes nothing along.
    pub fn new(payload: Payload) -> Self {
        Self { payload, correlation_id: String::new(), with: Vec::new(), ephemeral: false }
    }

    /// A message that is sent now or never, whatever its class: the Ack of a Ping.
    pub fn ephemeral(payload: Payload, correlation_id: impl Into<String>) -> Self {
        Self { correlation_id: correlation_id.into(), ephemeral: true, ..Self::new(payload) }
    }

    /// The same, as the answer to a request.
    #[must_use]
    pub fn answering(self, correlation_id: impl Into<String>) -> Self {
        Self { correlation_id: correlation_id.into(), ..self }
    }

    /// The same, with changes that become durable in the same transaction.
    #[must_use]
    pub fn with(self, with: Vec<Change>) -> Self {
        Self { with, ..self }
    }
}

/// What became of a submitted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// Durable, under this seq.
    OnDisk(u64),
    /// In its slot: sent when the link is up, unless a newer one comes first.
    InSlot,
    /// Handed to the link.
    Sent,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Ephemeral, and no link is up.
    #[error("no connection to the control plane")]
    NotConnected,
    /// Only messages that are never evicted are left, and they fill the queue.
    #[error("the queue is full ({bytes} of {limit} bytes wait) and nothing in it may go to make room")]
    Full {
        /// Bytes that wait.
        bytes: u64,
        /// `state.max_queue_bytes`.
        limit: u64,
    },
    /// Too many messages wait already, for the link or for the disk.
    #[error("the queue does not keep up: {0} messages wait for the link or the disk already")]
    Busy(usize),
    /// No peer would take it.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Of the whole envelope.
        bytes: usize,
        /// In bytes.
        limit: usize,
    },
    /// Changes need a durable message to ride with.
    #[error("changes of the state can only go with a durable message")]
    NotDurable,
    /// Only a server sends that.
    #[error("only a control plane sends such a message")]
    NotOurs,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's actor is being replaced: try again.
    #[error("the state store is restarting")]
    StoreGone,
}

/// Give the next seq, for a message that does not pass through the queue (Register).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<u64, QueueError>")]
pub struct TakeSeq;

/// What the queue looks like now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "QueueStatus")]
pub struct GetQueueStatus;

// --- Connection -------------------------------------------------------------------------------

/// An encoded envelope on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its seq.
    pub seq: u64,
    /// The whole `Envelope`.
    pub envelope: Bytes,
}

/// Write these, in order. Answered when they are flushed to the socket, so a slow peer pushes back.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), LinkGone>")]
pub struct Transmit {
    /// In order.
    pub envelopes: Vec<Outgoing>,
    /// Follow them with the delivery barrier: a WebSocket ping whose pong proves that the server's
    /// reader took them all (protocol section 5). The link then tells the Queue `BarrierPassed`.
    pub barrier: Option<u64>,
}

/// The link ended before the write was done; the messages may or may not have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended")]
pub struct LinkGone;

/// A link is registered: what the Queue and the Heartbeat need of it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LinkUp {
    /// Which connection.
    pub generation: Generation,
    /// Where to write.
    pub link: Recipient<Transmit>,
    /// `RegisterAck.heartbeat_interval_sec`, 30 s where the server gave none.
    pub heartbeat_interval: Duration,
}

/// That link is over.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LinkLost {
    /// Which connection.
    pub generation: Generation,
}

/// The pong of a barrier came back: everything written before it left the wire.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct BarrierPassed {
    /// Which connection.
    pub generation: Generation,
    /// `Transmit::barrier` of the window.
    pub token: u64,
}

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

/// Stop that job's run, or forget it while it waits.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
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
