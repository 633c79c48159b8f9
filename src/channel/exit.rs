//! Why a connection ended or could not be made. Closed enums: the Supervisor's choice of the next
//! delay matches them without a wildcard.

use super::frame::close_code::{NORMAL, POLICY};
use std::time::Duration;

/// The end of one connection's life.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinkDown {
    /// The agent closed it, with 1000.
    #[error("closed by this agent")]
    Hangup,
    /// It was never there.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No RegisterAck within 15 s.
    #[error("no RegisterAck within {} s of Register", .0.as_secs())]
    RegisterTimeout(Duration),
    /// The first payload was something else; closed with 1008.
    #[error("the first answer must be RegisterAck, and was {0}")]
    NotRegisterAck(String),
    /// A binary frame that is no Envelope; closed with 1007.
    #[error("a binary message does not decode as an Envelope: {0}")]
    Undecodable(String),
    /// More than 4 MiB; closed with 1009.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// As far as is known from the header or the fragments so far.
        bytes: u64,
        /// In bytes.
        limit: u64,
    },
    /// Before RegisterAck, a message that would take too much memory once decoded; closed with 1009.
    #[error("a message would take about {decoded} bytes of memory, over the limit of {limit}")]
    TooHeavy {
        /// About what it would take.
        decoded: usize,
        /// In bytes.
        limit: usize,
    },
    /// The peer broke the WebSocket protocol; closed with 1002.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// No frame at all for 90 s.
    #[error("nothing received for {} s", .0.as_secs())]
    Idle(Duration),
    /// The pong of a delivery barrier did not come.
    #[error("no pong for the delivery barrier within {} s", .0.as_secs())]
    BarrierTimeout(Duration),
    /// The end-to-end ack of a durable message did not come.
    #[error("no ack for a durable message within {} s", .0.as_secs())]
    AckTimeout(Duration),
    /// One write took more than 10 s.
    #[error("a write took more than {} s", .0.as_secs())]
    WriteTimeout(Duration),
    /// The peer closed.
    #[error("closed by the control plane: {}{}", code.map_or("no code".into(), |c| c.to_string()), reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    ClosedByPeer {
        /// RFC 6455 section 7.4; None where the close frame carried none.
        code: Option<u16>,
        /// As the peer wrote it.
        reason: Option<String>,
    },
    /// The socket ended without a close frame.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The Queue or the Dispatcher was not there to work with.
    #[error("the agent's {0} is restarting")]
    NeighbourGone(&'static str),
}

/// What a control plane writes into the close frame of a session whose place another one took.
const SUPERSEDED_WORDS: [&str; 16] = [
    "superseded",
    "supersedes",
    "replaced",
    "taken over",
    "takes over",
    "elsewhere",
    "duplicate",
    "already connected",
    "same key",
    "same agent",
    "another connection",
    "another session",
    "another agent",
    "another instance",
    "newer connection",
    "newer session",
];

impl LinkDown {
    /// Whether the control plane gave this session's place to another connection of the same agent.
    /// This agent has one connection at a time, so the other is most likely a copy of its host. The
    /// code must be one that is about this session (normal, policy, or the application's own): a server
    /// that goes away because a newer one replaced it says something else.
    pub fn is_superseded(&self) -> bool {
        let Self::ClosedByPeer { code: Some(NORMAL | POLICY | 3000..=4999), reason: Some(reason) } = self
        else {
            return false;
        };
        let reason = reason.to_lowercase().replace(['_', '-'], " ");
        // A key that was replaced is no twin.
        let about_the_key = ["key replaced", "key was replaced", "key has been replaced"];
        SUPERSEDED_WORDS.iter().any(|words| reason.contains(words))
            && !about_the_key.iter().any(|words| reason.contains(words))
    }
}

/// Why no connection could be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DialError {
    /// DNS, TCP, TLS and upgrade together took more than 15 s.
    #[error("{host}: no connection within {} s", limit.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The name has no address.
    #[error("{host}: the name does not resolve: {cause}")]
    Resolve {
        /// Host and port.
        host: String,
        /// What the resolver said.
        cause: String,
    },
    /// No address answered.
    #[error("{host}: cannot connect: {cause}")]
    Connect {
        /// Host and port.
        host: String,
        /// What the kernel said.
        cause: String,
    },
    /// The proxy does not let us through, and will not the next time: only its owner or `server.proxy` can change that.
    #[error("{host}: {cause}")]
    Proxy {
        /// Host and port of where to.
        host: String,
        /// Which proxy, and what to do.
        cause: String,
    },
    /// TLS failed; `cause` says whether it is the name, the issuer, the time, a pin or the version.
    #[error("{host}: TLS failed: {cause}")]
    Tls {
        /// Host and port.
        host: String,
        /// What and what to do.
        cause: String,
    },
    /// 401 or 403: the agent key is wrong or revoked.
    #[error("{host}: the control plane refused the agent key ({status})")]
    Unauthorized {
        /// Host and port.
        host: String,
        /// 401 or 403.
        status: u16,
    },
    /// Any other answer than 101.
    #[error("{host}: the upgrade was answered with {status}")]
    Status {
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Of 429 and 503, capped at 10 min.
        retry_after: Option<Duration>,
    },
    /// The answer was no WebSocket handshake.
    #[error("{host}: not a WebSocket server: {cause}")]
    Handshake {
        /// Host and port.
        host: String,
        /// What was wrong.
        cause: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_another_one_replaced_is_told_from_other_ends() {
        let closed = |code, reason: &str| {
            LinkDown::ClosedByPeer { code: Some(code), reason: Some(reason.to_owned()) }.is_superseded()
        };
        for (code, reason) in [
            (1008, "superseded by another connection"),
            (4001, "Session replaced"),
            (4409, "agent_already_connected"),
            (1000, "Superseded: a newer connection of this agent"),
            (1008, "duplicate agent"),
            (4000, "replaced by a session with the same key"),
        ] {
            assert!(closed(code, reason), "{code} {reason}");
        }
        for (code, reason) in [
            (1001, "this instance is replaced by another instance"),
            (1012, "replaced"),
            (1011, "duplicate entry in table agents"),
            (1008, "agent key was replaced"),
            (1008, "first message must be Register"),
            (4003, "agent key revoked"),
            (1000, ""),
        ] {
            assert!(!closed(code, reason), "{code} {reason}");
        }
        assert!(!LinkDown::ClosedByPeer { code: Some(4001), reason: None }.is_superseded());
    }
}
