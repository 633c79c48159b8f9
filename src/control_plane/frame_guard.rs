//! Refuses a too long WebSocket frame by its header.
//!
//! The parser behind actix-ws looks at its limit only after the whole frame is in memory: a header that
//! announces gigabytes would be waited for in memory. This guard stands before it, lets bytes through as
//! they are, and follows only the headers (RFC 6455 section 5.2).

use bytes::Bytes;

/// The longest header: 2 bytes, 8 of length, 4 of mask.
const MAX_HEADER_BYTES: usize = 14;

/// A frame is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {announced} bytes is over the limit of {limit}")]
pub struct TooLong {
    /// By its header.
    pub announced: u64,
    /// What is allowed.
    pub limit: u64,
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub struct FrameGuard {
    limit: u64,
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    /// Bytes of the present frame's payload that are still to come.
    payload_left: u64,
}

impl FrameGuard {
    /// Allows frames with a payload of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit as u64, header: [0; MAX_HEADER_BYTES], header_len: 0, payload_left: 0 }
    }

    /// Looks at the next bytes from the wire.
    ///
    /// # Errors
    /// Where a frame's header is in them that announces too much; the connection must end then.
    pub fn pass(&mut self, bytes: &Bytes) -> Result<(), TooLong> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if self.payload_left > 0 {
                let skip = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(rest.len());
                self.payload_left -= skip as u64;
                rest = &rest[skip..];
                continue;
            }
            self.header[self.header_len] = rest[0];
            self.header_len += 1;
            rest = &rest[1..];
            if let Some(length) = self.whole_header() {
                if length > self.limit {
                    return Err(TooLong { announced: length, limit: self.limit });
                }
                (self.header_len, self.payload_left) = (0, length);
            }
        }
        Ok(())
    }

    /// The payload's length once the header is whole.
    fn whole_header(&self) -> Option<u64> {
        let header = &self.header[..self.header_len];
        let second = *header.get(1)?;
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length_field = header.get(2..2 + length_bytes)?;
        if header.len() < 2 + length_bytes + mask_bytes {
            return None;
        }
        Some(match length_bytes {
            0 => u64::from(second & 0x7f),
            _ => length_field.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            126..65536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(std::iter::repeat_n(0x7f, length));
        frame
    }

    #[test]
    fn frames_up_to_the_limit_pass_however_they_are_cut() {
        let stream: Vec<u8> =
            [0, 1, 125, 126, 1000, 65535, 65536, 70_000].into_iter().flat_map(frame).collect();
        for piece in [1, 2, 3, 7, 1024, stream.len()] {
            let mut guard = FrameGuard::new(70_000);
            for bytes in stream.chunks(piece) {
                guard.pass(&Bytes::copy_from_slice(bytes)).unwrap();
            }
            assert_eq!((guard.header_len, guard.payload_left), (0, 0));
        }
    }

    #[test]
    fn a_too_long_frame_is_refused_by_its_header() {
        let mut guard = FrameGuard::new(1000);
        guard.pass(&Bytes::from(frame(1000))).unwrap();
        let long = frame(1001);
        assert_eq!(
            guard.pass(&Bytes::copy_from_slice(&long[..8])),
            Err(TooLong { announced: 1001, limit: 1000 })
        );
        let mut guard = FrameGuard::new(1000);
        let gigabytes = [vec![0x82, 0xff], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat();
        assert!(guard.pass(&Bytes::from(gigabytes)).is_err());
    }
}
