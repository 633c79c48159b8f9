//! The two streams of a program in one: frames of an 8-byte header (stream, three zeros, length big-endian) and their
//! bytes. A frame is handed on while it arrives: its length is the sender's word, and nothing is set aside for it.

/// Docker's header.
const HEADER_LEN: usize = 8;

/// Whose bytes a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What the program wrote to its standard output.
    Stdout,
    /// To its standard error.
    Stderr,
    /// The engine's own words: it could not go on.
    System,
}

/// The bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No header looks like that.
    #[error("what came was not Docker's stream of frames")]
    Header,
    /// The stream ended in a frame.
    #[error("the stream ended in the middle of a frame")]
    Cut,
}

/// Some of a frame: where the program wrote it, and what.
pub type Piece<'a> = (Stream, &'a [u8]);

/// Takes frames apart, in whatever pieces they arrive.
#[derive(Debug, Default)]
pub struct Demux {
    header: [u8; HEADER_LEN],
    have: usize,
    /// Of the frame that goes on.
    left: u32,
    stream: Option<Stream>,
}

impl Demux {
    /// The next piece of a frame at the beginning of the bytes, and how many bytes it took. Without a piece all of them
    /// were taken, and more are needed.
    ///
    /// # Errors
    /// [`FrameError::Header`]
    pub fn next_piece<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Option<Piece<'a>>), FrameError> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok((taken, None));
            }
            if let Some(stream) = self.stream {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                self.left -= u32::try_from(count).unwrap_or(self.left);
                if self.left == 0 {
                    self.stream = None;
                }
                return Ok((taken + count, rest.get(..count).map(|piece| (stream, piece))));
            }
            let count = (HEADER_LEN - self.have).min(rest.len());
            if let (Some(to), Some(from)) =
                (self.header.get_mut(self.have..self.have + count), rest.get(..count))
            {
                to.copy_from_slice(from);
            }
            self.have += count;
            taken += count;
            if self.have == HEADER_LEN {
                self.begin()?;
            }
        }
    }

    /// No more comes.
    ///
    /// # Errors
    /// [`FrameError::Cut`]
    pub fn end(&self) -> Result<(), FrameError> {
        if self.have == 0 && self.stream.is_none() { Ok(()) } else { Err(FrameError::Cut) }
    }

    fn begin(&mut self) -> Result<(), FrameError> {
        let [stream, 0, 0, 0, a, b, c, d] = self.header else { return Err(FrameError::Header) };
        let stream = match stream {
            // 0 is written for a standard input that is shown again; Docker's own reader takes it for output.
            0 | 1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::System,
            _ => return Err(FrameError::Header),
        };
        self.have = 0;
        self.left = u32::from_be_bytes([a, b, c, d]);
        self.stream = (self.left > 0).then_some(stream);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&(text.len() as u32).to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    /// Everything of each stream, fed in pieces of that size.
    fn read(bytes: &[u8], piece: usize) -> Result<(String, String, Result<(), FrameError>), FrameError> {
        let (mut demux, mut out, mut err) = (Demux::default(), Vec::new(), Vec::new());
        for mut part in bytes.chunks(piece) {
            while !part.is_empty() {
                let (taken, found) = demux.next_piece(part)?;
                assert!(taken > 0);
                match found {
                    Some((Stream::Stdout, bytes)) => out.extend_from_slice(bytes),
                    Some((Stream::Stderr | Stream::System, bytes)) => err.extend_from_slice(bytes),
                    None => assert_eq!(taken, part.len()),
                }
                part = &part[taken..];
            }
        }
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), demux.end()))
    }

    #[test]
    fn two_streams_come_apart_in_whatever_pieces_they_arrive() {
        let bytes =
            [frame(1, "first "), frame(2, "no"), frame(1, ""), frame(0, "second"), frame(3, "!")].concat();
        for piece in 1..=bytes.len() {
            let read = read(&bytes, piece).unwrap();
            assert_eq!(read, ("first second".into(), "no!".into(), Ok(())), "{piece}");
        }
    }

    #[test]
    fn a_stream_that_ends_in_a_frame_is_told() {
        let bytes = [frame(1, "whole"), frame(1, "half")].concat();
        for len in 0..=bytes.len() {
            let (_, _, end) = read(&bytes[..len], 7).unwrap();
            let is_between = len == 0 || len == 13 || len == bytes.len();
            assert_eq!(end, if is_between { Ok(()) } else { Err(FrameError::Cut) }, "{len}");
        }
    }

    #[test]
    fn what_is_no_frame_is_told_and_a_boast_costs_nothing() {
        for bytes in [&b"OCI runtime exec failed"[..], &[4, 0, 0, 0, 0, 0, 0, 1], &[1, 0, 1, 0, 0, 0, 0, 1]] {
            assert_eq!(read(bytes, 3).unwrap_err(), FrameError::Header);
        }
        let (out, _, end) = read(&[1, 0, 0, 0, 255, 255, 255, 255, b'x'], 9).unwrap();
        assert_eq!((out.as_str(), end), ("x", Err(FrameError::Cut)));
    }
}
