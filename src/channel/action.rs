//! What a session tells its owner to do.

use super::{Command, LinkDown};
use crate::wire::v1;
use bytes::Bytes;
use std::time::Duration;

/// Time since a moment that the owner fixed.
pub type Moment = Duration;

/// What the owner must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The upgrade is done: Register goes out before anything else.
    SendRegister,
    /// An own ping.
    SendPing(Mark),
    /// The answer to the peer's ping.
    SendPong(Bytes),
    /// A close frame. No frame follows it.
    Close {
        /// None repeats a peer's close without a code.
        code: Option<u16>,
        /// For the peer's log.
        reason: String,
    },
    /// RegisterAck came. Once in a session.
    Established {
        /// As the server calls it.
        session_id: String,
        /// Of heartbeats.
        heartbeat_interval: Duration,
        /// To be taken like a ConfigUpdate, where there is one.
        config: Option<v1::AgentConfig>,
    },
    /// A command; nobody waits for an Ack where the id is empty.
    Deliver {
        /// Of the envelope.
        correlation_id: String,
        /// What is asked.
        command: Command,
    },
    /// A `Ping` message wants its Ack.
    AckPing {
        /// Of the envelope.
        correlation_id: String,
    },
    /// What cannot be done at all wants an Ack that says so.
    Refuse {
        /// Of the envelope.
        correlation_id: String,
        /// For people.
        reason: &'static str,
    },
    /// The server answered a durable message end to end (protocol section 5).
    Acked {
        /// Of the agent's message.
        seq: u64,
        /// Why the server will never take it; None where it has committed it.
        refused: Option<String>,
    },
    /// An Ack that nothing waits for: it came twice, or acks were not agreed on.
    StrayAck {
        /// As it came.
        correlation_id: String,
    },
    /// Something that changes nothing, for the log.
    Ignored(&'static str),
    /// Everything before this barrier, or this probe, was read by the server.
    BarrierPassed(u64),
    /// An own ping came back.
    RoundTrip(Duration),
    /// It is over: the last action of a session.
    Down(LinkDown),
}

/// Tells own pings apart in their pongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Keeps the link alive and measures it.
    Own(u64),
    /// Ends a window of durable messages: the delivery barrier.
    Barrier(u64),
    /// Follows messages of which only the newest counts: its pong proves them read, its absence nothing.
    Probe(u64),
}

impl Mark {
    /// The ping's payload.
    pub fn payload(self) -> Bytes {
        let (tag, number) = match self {
            Self::Own(number) => (b'p', number),
            Self::Barrier(token) => (b'b', token),
            Self::Probe(token) => (b's', token),
        };
        let mut payload = vec![tag];
        payload.extend_from_slice(&number.to_be_bytes());
        payload.into()
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (tag, number) = payload.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match tag {
            b'p' => Some(Self::Own(number)),
            b'b' => Some(Self::Barrier(number)),
            b's' => Some(Self::Probe(number)),
            _ => None,
        }
    }
}
