//! WebSocket frames as the session sees them, and what can be wrong with one.

use super::LinkDown;
use super::limits::MAX_CONTROL_PAYLOAD_BYTES;
use bytes::{BufMut, Bytes, BytesMut};

/// Close codes of RFC 6455 section 7.4.1 and the registry, as far as they are used here.
pub mod close_code {
    /// The work is done.
    pub const NORMAL: u16 = 1000;
    /// This side goes away.
    pub const AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The message's content is not what it should be.
    pub const INVALID: u16 = 1007;
    /// The conversation's rules were broken.
    pub const POLICY: u16 = 1008;
    /// The message is too big.
    pub const TOO_BIG: u16 = 1009;
    /// This side has a fault.
    pub const INTERNAL: u16 = 1011;
    /// The server restarts.
    pub const RESTART: u16 = 1012;
    /// The server asks to come back later.
    pub const TRY_LATER: u16 = 1013;
}

/// The opcodes of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A further fragment.
    Continuation,
    /// Text.
    Text,
    /// An envelope.
    Binary,
    /// Goodbye.
    Close,
    /// To be answered with a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl FrameKind {
    /// Close, ping and pong: never fragmented, allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// The last (or only) fragment of its message.
    pub fin: bool,
    /// Its content.
    pub payload: Bytes,
}

impl Frame {
    /// A whole binary message.
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self { kind: FrameKind::Binary, fin: true, payload: payload.into() }
    }

    /// A ping; its payload comes back in the pong. At most 125 bytes.
    pub fn ping(payload: impl Into<Bytes>) -> Self {
        Self { kind: FrameKind::Ping, fin: true, payload: payload.into() }
    }

    /// The answer to a ping, with its payload.
    pub fn pong(payload: impl Into<Bytes>) -> Self {
        Self { kind: FrameKind::Pong, fin: true, payload: payload.into() }
    }

    /// A close frame. The reason is cut to what a control frame holds.
    pub fn close(code: Option<u16>, reason: &str) -> Self {
        let mut payload = BytesMut::new();
        if let Some(code) = code {
            payload.put_u16(code);
            let room = MAX_CONTROL_PAYLOAD_BYTES - 2;
            let end = (0..=reason.len().min(room)).rev().find(|at| reason.is_char_boundary(*at));
            payload.put_slice(&reason.as_bytes()[..end.unwrap_or(0)]);
        }
        Self { kind: FrameKind::Close, fin: true, payload: payload.freeze() }
    }
}

/// Why what comes from the wire is no frame, or nothing comes any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame, or its message so far, is over the limit. Told by the header alone.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// As far as is known.
        bytes: u64,
        /// In bytes.
        limit: u64,
    },
    /// RSV bits, though no extension was agreed.
    #[error("a frame with reserved bits set")]
    ReservedBits,
    /// Only clients mask.
    #[error("a masked frame from a server")]
    Masked,
    /// 3 to 7 and 11 to 15.
    #[error("a frame with the unknown opcode {0}")]
    UnknownOpcode(u8),
    /// Over 125 bytes.
    #[error("a control frame of {0} bytes, the limit is {MAX_CONTROL_PAYLOAD_BYTES}")]
    ControlTooLong(u64),
    /// Without FIN.
    #[error("a fragmented control frame")]
    ControlFragmented,
    /// Nothing to continue.
    #[error("a continuation frame without a start")]
    ContinuationWithoutStart,
    /// A message inside a message.
    #[error("a new message inside a fragmented one")]
    InterleavedMessage,
    /// A flood of nothing.
    #[error("a message of more than {0} empty fragments")]
    EmptyFragments(usize),
    /// One byte, a code that must not be sent, or a reason that is no UTF-8.
    #[error("a malformed close frame")]
    MalformedClose,
    /// The socket failed.
    #[error("{0}")]
    Io(String),
}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<FrameError> for LinkDown {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            FrameError::Io(cause) => Self::Broken(cause),
            FrameError::ReservedBits
            | FrameError::Masked
            | FrameError::UnknownOpcode(_)
            | FrameError::ControlTooLong(_)
            | FrameError::ControlFragmented
            | FrameError::ContinuationWithoutStart
            | FrameError::InterleavedMessage
            | FrameError::EmptyFragments(_)
            | FrameError::MalformedClose => Self::Protocol(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let frame = Frame::close(Some(1008), &"ü".repeat(100));
        assert!(frame.payload.len() <= MAX_CONTROL_PAYLOAD_BYTES);
        assert!(std::str::from_utf8(&frame.payload[2..]).is_ok());
        assert_eq!(Frame::close(None, "unused").payload.len(), 0);
    }
}
