//! The frame guard: the codec between the socket and the session. It judges a frame by its header,
//! as soon as the header is there, so that a frame of 200 MiB costs its ten header bytes and not
//! 200 MiB. (awc's own parser looks at the length only when the whole frame is in memory.)

use super::frame::{Frame, FrameError, FrameKind};
use super::limits::MAX_CONTROL_PAYLOAD_BYTES;
use crate::wire::MAX_MESSAGE_BYTES;
use actix_codec::{Decoder, Encoder};
use actix_http::ws::{OpCode, Parser};
use bytes::{Buf, BytesMut};

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

/// A buffer that grew over this for one large message is given back when it is empty.
const KEEP_BUFFER_BYTES: usize = 64 * 1024;

/// What a fresh buffer has: the size in which the framed socket reads.
const FRESH_BUFFER_BYTES: usize = 8 * 1024;

/// Client side of the WebSocket framing: reads unmasked frames, writes masked ones.
#[derive(Debug, Default)]
pub struct FrameGuard {
    /// After a refused frame the stream has no frames any more. What still comes is read and thrown
    /// away, so that the peer gets to see our close frame instead of a reset.
    refused: bool,
    /// A large frame passed since the buffer was fresh. Its capacity alone does not tell: what was
    /// taken from its front is out of sight, and still held.
    read_grew: bool,
    write_grew: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    kind: FrameKind,
    fin: bool,
    /// Of the header itself.
    header_bytes: usize,
    payload_bytes: usize,
}

impl Decoder for FrameGuard {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.refused {
            src.clear();
            return Ok(None);
        }
        let header = match parse_header(src) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.refused = true;
                *src = BytesMut::with_capacity(FRESH_BUFFER_BYTES);
                return Err(error);
            }
        };
        let frame_bytes = header.header_bytes + header.payload_bytes;
        if src.len() < frame_bytes {
            src.reserve(frame_bytes - src.len());
            return Ok(None);
        }
        src.advance(header.header_bytes);
        let payload = src.split_to(header.payload_bytes).freeze();
        self.read_grew |= frame_bytes > KEEP_BUFFER_BYTES;
        give_back(src, &mut self.read_grew);
        Ok(Some(Frame { kind: header.kind, fin: header.fin, payload }))
    }
}

/// None while the header is not whole.
fn parse_header(src: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, rest @ ..] = src else { return Ok(None) };
    if first & RESERVED != 0 {
        return Err(FrameError::ReservedBits);
    }
    let kind = match first & OPCODE {
        0 => FrameKind::Continuation,
        1 => FrameKind::Text,
        2 => FrameKind::Binary,
        8 => FrameKind::Close,
        9 => FrameKind::Ping,
        10 => FrameKind::Pong,
        unknown => return Err(FrameError::UnknownOpcode(unknown)),
    };
    if second & MASK != 0 {
        return Err(FrameError::Masked);
    }
    let fin = first & FIN != 0;
    if kind.is_control() && !fin {
        return Err(FrameError::ControlFragmented);
    }
    let (header_bytes, length) = match second & LENGTH {
        LENGTH_IN_2_BYTES => match rest.first_chunk::<2>() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        LENGTH_IN_8_BYTES => match rest.first_chunk::<8>() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        length => (2, u64::from(length)),
    };
    let payload_bytes = checked_length(kind, length)?;
    Ok(Some(Header { kind, fin, header_bytes, payload_bytes }))
}

fn checked_length(kind: FrameKind, length: u64) -> Result<usize, FrameError> {
    let limit = if kind.is_control() { MAX_CONTROL_PAYLOAD_BYTES } else { MAX_MESSAGE_BYTES };
    match usize::try_from(length) {
        Ok(bytes) if bytes <= limit => Ok(bytes),
        Ok(_) | Err(_) if kind.is_control() => Err(FrameError::ControlTooLong(length)),
        Ok(_) | Err(_) => Err(FrameError::TooLarge { bytes: length, limit: limit as u64 }),
    }
}

/// Replaces an empty buffer that grew.
fn give_back(buffer: &mut BytesMut, grew: &mut bool) {
    if *grew && buffer.is_empty() {
        *buffer = BytesMut::with_capacity(FRESH_BUFFER_BYTES);
        *grew = false;
    }
}

impl Encoder<Frame> for FrameGuard {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), FrameError> {
        give_back(dst, &mut self.write_grew);
        let opcode = match frame.kind {
            FrameKind::Continuation => OpCode::Continue,
            FrameKind::Text => OpCode::Text,
            FrameKind::Binary => OpCode::Binary,
            FrameKind::Close => OpCode::Close,
            FrameKind::Ping => OpCode::Ping,
            FrameKind::Pong => OpCode::Pong,
        };
        self.write_grew |= dst.len() + frame.payload.len() > KEEP_BUFFER_BYTES;
        Parser::write_message(dst, frame.payload, opcode, frame.fin, true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        FrameGuard::default().decode(&mut BytesMut::from(bytes))
    }

    fn header_of(length: u64) -> Vec<u8> {
        let mut header = vec![0x82, 127];
        header.extend_from_slice(&length.to_be_bytes());
        header
    }

    #[test]
    fn a_frame_of_200_mib_is_refused_by_its_header_alone() {
        let mut guard = FrameGuard::default();
        let mut src = BytesMut::from(&header_of(200 << 20)[..]);
        assert_eq!(
            guard.decode(&mut src),
            Err(FrameError::TooLarge { bytes: 200 << 20, limit: MAX_MESSAGE_BYTES as u64 })
        );
        // What follows is thrown away in small pieces.
        for _ in 0..1000 {
            src.extend_from_slice(&[0; 8192]);
            assert_eq!(guard.decode(&mut src), Ok(None));
            assert!(src.is_empty() && src.capacity() < KEEP_BUFFER_BYTES);
        }
    }

    #[test]
    fn the_largest_message_passes_and_one_byte_more_does_not() {
        let mut bytes = header_of(MAX_MESSAGE_BYTES as u64);
        bytes.resize(bytes.len() + MAX_MESSAGE_BYTES, 7);
        let frame = decode(&bytes).unwrap().unwrap();
        assert_eq!(frame.payload.len(), MAX_MESSAGE_BYTES);
        assert!(matches!(decode(&header_of(MAX_MESSAGE_BYTES as u64 + 1)), Err(FrameError::TooLarge { .. })));
        assert!(matches!(decode(&header_of(u64::MAX)), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a_frame_comes_out_whole_however_it_is_cut() {
        for length in [0_usize, 1, 125, 126, 65_535, 65_536] {
            let mut wire = match length {
                0..126 => vec![0x82, length as u8],
                126..65_536 => [&[0x82, 126][..], &(length as u16).to_be_bytes()].concat(),
                _ => header_of(length as u64),
            };
            wire.resize(wire.len() + length, 9);
            let mut guard = FrameGuard::default();
            let mut src = BytesMut::new();
            for byte in &wire[..wire.len() - 1] {
                src.extend_from_slice(&[*byte]);
                assert_eq!(guard.decode(&mut src), Ok(None), "{length}");
            }
            src.extend_from_slice(&wire[wire.len() - 1..]);
            let frame = guard.decode(&mut src).unwrap().unwrap();
            assert_eq!((frame.kind, frame.fin, frame.payload.len()), (FrameKind::Binary, true, length));
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_named() {
        assert_eq!(decode(&[0xc2, 0]), Err(FrameError::ReservedBits));
        assert_eq!(decode(&[0x92, 0]), Err(FrameError::ReservedBits));
        assert_eq!(decode(&[0x82, 0x81]), Err(FrameError::Masked));
        assert_eq!(decode(&[0x83, 0]), Err(FrameError::UnknownOpcode(3)));
        assert_eq!(decode(&[0x8f, 0]), Err(FrameError::UnknownOpcode(15)));
        assert_eq!(decode(&[0x09, 0]), Err(FrameError::ControlFragmented));
        assert_eq!(decode(&[0x89, 126, 0, 126]), Err(FrameError::ControlTooLong(126)));
        assert!(matches!(decode(&[0x88, 127, 0, 0, 0, 0, 12, 0, 0, 0]), Err(FrameError::ControlTooLong(_))));
    }

    #[test]
    fn a_large_message_does_not_keep_its_buffers() {
        let mut guard = FrameGuard::default();
        let mut src = BytesMut::from(&header_of(1 << 20)[..]);
        assert_eq!(guard.decode(&mut src), Ok(None));
        src.resize(src.len() + (1 << 20), 1);
        assert!(guard.decode(&mut src).unwrap().is_some());
        assert!(src.capacity() <= KEEP_BUFFER_BYTES);

        let mut dst = BytesMut::new();
        guard.encode(Frame::binary(vec![1; 1 << 20]), &mut dst).unwrap();
        dst.advance(dst.len());
        guard.encode(Frame::ping("x"), &mut dst).unwrap();
        assert!(dst.capacity() <= KEEP_BUFFER_BYTES);
    }

    #[test]
    fn what_is_written_is_masked_as_a_client_must() {
        let mut dst = BytesMut::new();
        FrameGuard::default().encode(Frame::binary("abc"), &mut dst).unwrap();
        assert_eq!(&dst[..2], &[0x82, 0x83]);
        let mask = [dst[2], dst[3], dst[4], dst[5]];
        let clear: Vec<u8> = dst[6..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(clear, b"abc");
    }
}
