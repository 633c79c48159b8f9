//! Messages out: what the Queue is asked, and what it and a Connection say to each other.

use super::Generation;
use crate::model::QueueStatus;
use crate::store::{Change, StoreError};
use crate::wire::Payload;
use actix::prelude::*;
use bytes::Bytes;
use std::time::Duration;

pub use crate::channel::dial::Confirms;

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
    /// How the Queue will know that the server has them.
    pub proof: Proof,
}

/// How it is known that the server has what was written (protocol section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Not at all, or by the barrier of a later `Transmit`.
    None,
    /// A WebSocket ping follows, whose pong proves that the server's reader took everything before it:
    /// the link then tells the Queue `BarrierPassed`. Nothing happens where it stays away.
    Probe(u64),
    /// The same, and a pong that stays away ends the link: the delivery barrier of durable messages.
    Barrier(u64),
    /// The server acknowledges each of these: the link then tells the Queue `Acked`, and ends where an
    /// ack stays away.
    Acks,
}

impl Proof {
    /// Of the ping that follows, where one does.
    pub fn token(self) -> Option<u64> {
        match self {
            Self::Probe(token) | Self::Barrier(token) => Some(token),
            Self::None | Self::Acks => None,
        }
    }
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
    /// How the server confirms durable messages.
    pub confirms: Confirms,
}

/// That link is over.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LinkLost {
    /// Which connection.
    pub generation: Generation,
}

/// The pong of a barrier or probe came back: everything written before it left the wire.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct BarrierPassed {
    /// Which connection.
    pub generation: Generation,
    /// `Transmit::proof` of the last part before it.
    pub token: u64,
}

/// The server answered a durable message end to end, once a message and connection.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Acked {
    /// Which connection.
    pub generation: Generation,
    /// Of the message.
    pub seq: u64,
    /// Why the server will never take it; None where it has committed it.
    pub refused: Option<String>,
}
