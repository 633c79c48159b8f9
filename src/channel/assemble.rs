//! Fragments put together, with control frames passing between them.

use super::frame::{Frame, FrameError, FrameKind};
use super::limits::MAX_EMPTY_FRAGMENTS;
use crate::wire::MAX_MESSAGE_BYTES;
use bytes::Bytes;

/// What the peer said: a whole message or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Content, which the contract knows only as text that is ignored; its length in bytes.
    Text(usize),
    /// An envelope.
    Binary(Bytes),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// Answers a ping.
    Pong(Bytes),
    /// Goodbye.
    Close {
        /// None where the frame carried none.
        code: Option<u16>,
        /// None where the frame carried none.
        reason: Option<String>,
    },
}

impl Message {
    /// Bytes of its content.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(bytes) => *bytes,
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close { reason, .. } => reason.as_ref().map_or(0, String::len),
        }
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes messages of frames. At most 4 MiB and [`MAX_EMPTY_FRAGMENTS`] are held.
#[derive(Debug, Default)]
pub struct Assembler {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    is_text: bool,
    bytes: Vec<u8>,
    empty_fragments: usize,
}

impl Assembler {
    /// Takes the next frame; None while its message is not whole.
    ///
    /// # Errors
    /// [`FrameError`] where the peer broke the rules of RFC 6455 section 5.4 or the message limit.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Message>, FrameError> {
        match frame.kind {
            FrameKind::Ping => Ok(Some(Message::Ping(frame.payload))),
            FrameKind::Pong => Ok(Some(Message::Pong(frame.payload))),
            FrameKind::Close => parse_close(&frame.payload).map(Some),
            FrameKind::Text | FrameKind::Binary => self.start(frame),
            FrameKind::Continuation => self.go_on(&frame),
        }
    }

    fn start(&mut self, frame: Frame) -> Result<Option<Message>, FrameError> {
        if self.open.is_some() {
            return Err(FrameError::InterleavedMessage);
        }
        let is_text = frame.kind == FrameKind::Text;
        if frame.fin {
            check_size(frame.payload.len())?;
            return Ok(Some(if is_text {
                Message::Text(frame.payload.len())
            } else {
                Message::Binary(frame.payload)
            }));
        }
        let mut open = Open { is_text, bytes: Vec::new(), empty_fragments: 0 };
        open.add(&frame.payload)?;
        self.open = Some(open);
        Ok(None)
    }

    fn go_on(&mut self, frame: &Frame) -> Result<Option<Message>, FrameError> {
        let Some(mut open) = self.open.take() else {
            return Err(FrameError::ContinuationWithoutStart);
        };
        open.add(&frame.payload)?;
        if frame.fin {
            return Ok(Some(if open.is_text {
                Message::Text(open.bytes.len())
            } else {
                Message::Binary(open.bytes.into())
            }));
        }
        self.open = Some(open);
        Ok(None)
    }
}

impl Open {
    fn add(&mut self, fragment: &[u8]) -> Result<(), FrameError> {
        if fragment.is_empty() {
            self.empty_fragments += 1;
            if self.empty_fragments > MAX_EMPTY_FRAGMENTS {
                return Err(FrameError::EmptyFragments(MAX_EMPTY_FRAGMENTS));
            }
            return Ok(());
        }
        let total = self.bytes.len() + fragment.len();
        check_size(total)?;
        if total > self.bytes.capacity() {
            // Doubling, but never past the limit: the buffer holds 4 MiB at most, not 8.
            let capacity = (self.bytes.capacity() * 2).clamp(total, MAX_MESSAGE_BYTES);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(fragment);
        Ok(())
    }
}

fn check_size(bytes: usize) -> Result<(), FrameError> {
    if bytes > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLarge { bytes: bytes as u64, limit: MAX_MESSAGE_BYTES as u64 });
    }
    Ok(())
}

fn parse_close(payload: &[u8]) -> Result<Message, FrameError> {
    match payload {
        [] => Ok(Message::Close { code: None, reason: None }),
        [_] => Err(FrameError::MalformedClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // RFC 6455 section 7.4: 1004 to 1006 and 1015 never travel, 1016 to 2999 are not given out.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(FrameError::MalformedClose);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| FrameError::MalformedClose)?;
            let reason = (!reason.is_empty()).then(|| reason.to_owned());
            Ok(Message::Close { code: Some(code), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, fin: bool, payload: &[u8]) -> Frame {
        Frame { kind, fin, payload: Bytes::copy_from_slice(payload) }
    }

    #[test]
    fn fragments_become_one_message_and_control_frames_pass_between_them() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(frame(FrameKind::Binary, false, b"ab")), Ok(None));
        assert_eq!(assembler.push(Frame::ping("p")), Ok(Some(Message::Ping("p".into()))));
        assert_eq!(assembler.push(frame(FrameKind::Continuation, false, b"")), Ok(None));
        assert_eq!(assembler.push(frame(FrameKind::Continuation, false, b"cd")), Ok(None));
        assert_eq!(
            assembler.push(frame(FrameKind::Continuation, true, b"e")),
            Ok(Some(Message::Binary("abcde".into())))
        );
        assert_eq!(assembler.push(frame(FrameKind::Text, true, b"hello")), Ok(Some(Message::Text(5))));
    }

    #[test]
    fn the_limit_holds_over_all_fragments() {
        let mut assembler = Assembler::default();
        let quarter = vec![1; MAX_MESSAGE_BYTES / 4];
        assert_eq!(assembler.push(frame(FrameKind::Binary, false, &quarter)), Ok(None));
        for _ in 0..3 {
            assert_eq!(assembler.push(frame(FrameKind::Continuation, false, &quarter)), Ok(None));
        }
        assert_eq!(assembler.open.as_ref().unwrap().bytes.capacity(), MAX_MESSAGE_BYTES);
        assert_eq!(
            assembler.push(frame(FrameKind::Continuation, true, b"x")),
            Err(FrameError::TooLarge {
                bytes: MAX_MESSAGE_BYTES as u64 + 1,
                limit: MAX_MESSAGE_BYTES as u64
            })
        );
    }

    #[test]
    fn empty_fragments_are_counted() {
        let mut assembler = Assembler::default();
        assembler.push(frame(FrameKind::Binary, false, b"a")).unwrap();
        for _ in 0..MAX_EMPTY_FRAGMENTS {
            assert_eq!(assembler.push(frame(FrameKind::Continuation, false, b"")), Ok(None));
        }
        assert_eq!(
            assembler.push(frame(FrameKind::Continuation, false, b"")),
            Err(FrameError::EmptyFragments(MAX_EMPTY_FRAGMENTS))
        );
    }

    #[test]
    fn fragments_out_of_order_are_named() {
        let mut assembler = Assembler::default();
        assert_eq!(
            assembler.push(frame(FrameKind::Continuation, true, b"x")),
            Err(FrameError::ContinuationWithoutStart)
        );
        assembler.push(frame(FrameKind::Text, false, b"x")).unwrap();
        assert_eq!(assembler.push(Frame::binary("y")), Err(FrameError::InterleavedMessage));
    }

    #[test]
    fn close_frames_are_read_and_malformed_ones_named() {
        let close = |payload: &[u8]| Assembler::default().push(frame(FrameKind::Close, true, payload));
        assert_eq!(close(b""), Ok(Some(Message::Close { code: None, reason: None })));
        assert_eq!(
            close(b"\x03\xf4soon"),
            Ok(Some(Message::Close { code: Some(1012), reason: Some("soon".into()) }))
        );
        for malformed in [&b"\x03"[..], b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff\xfe"] {
            assert_eq!(close(malformed), Err(FrameError::MalformedClose), "{malformed:?}");
        }
    }
}
