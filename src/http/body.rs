//! The body of an answer, piece by piece as it arrives.

use super::{Answer, NotHttp};

/// A chunk's size is at most 16 hexadecimal digits; what may follow it (extensions) nobody reads.
const MAX_SIZE_LINE_LEN: usize = 256;

/// Takes a body out of its framing: by its length, in chunks (RFC 9112 section 7.1), or to the connection's end.
/// Nothing is kept but a few bytes.
#[derive(Debug)]
pub struct BodyReader(State);

#[derive(Debug)]
enum State {
    /// So many bytes are to come.
    Length(u64),
    /// Whatever comes until the connection ends.
    UntilEnd,
    /// The line with the next chunk's size.
    Size { digits: u32, value: u64, seen: usize, is_over: bool },
    /// So many bytes of the chunk are to come.
    Chunk(u64),
    /// The line's end behind a chunk.
    ChunkEnd,
    /// Everything was there.
    Whole,
}

const NEXT_SIZE: State = State::Size { digits: 0, value: 0, seen: 0, is_over: false };

impl BodyReader {
    /// The body that this head announces.
    ///
    /// # Errors
    /// [`NotHttp`] where its length is no number.
    pub fn new(answer: &Answer) -> Result<Self, NotHttp> {
        if answer.status == 204 || answer.status == 304 {
            return Ok(Self(State::Whole));
        }
        let coding = answer.header("transfer-encoding").unwrap_or_default();
        if coding.to_ascii_lowercase().contains("chunked") {
            return Ok(Self(NEXT_SIZE));
        }
        let Some(length) = answer.header("content-length") else { return Ok(Self(State::UntilEnd)) };
        match length.parse().map_err(|_| NotHttp)? {
            0 => Ok(Self(State::Whole)),
            length => Ok(Self(State::Length(length))),
        }
    }

    /// Whether nothing more belongs to it.
    pub fn is_whole(&self) -> bool {
        matches!(self.0, State::Whole)
    }

    /// Whether the connection may end here.
    pub fn may_end(&self) -> bool {
        matches!(self.0, State::Whole | State::UntilEnd)
    }

    /// Takes bytes of the connection: what of them is the body goes to `out`. What lies behind a whole body is left
    /// alone; no request of ours is followed by another.
    ///
    /// # Errors
    /// [`NotHttp`]
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotHttp> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.0 {
                State::Whole => return Ok(()),
                State::UntilEnd => {
                    out.extend_from_slice(bytes);
                    return Ok(());
                }
                State::Length(left) | State::Chunk(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (piece, rest) = bytes.split_at(count);
                    out.extend_from_slice(piece);
                    bytes = rest;
                    *left -= count as u64;
                    if *left == 0 {
                        let is_chunk = matches!(self.0, State::Chunk(_));
                        self.0 = if is_chunk { State::ChunkEnd } else { State::Whole };
                    }
                }
                State::ChunkEnd => {
                    match first {
                        b'\r' => {}
                        b'\n' => self.0 = NEXT_SIZE,
                        _ => return Err(NotHttp),
                    }
                    bytes = rest;
                }
                State::Size { .. } => {
                    self.size(*first)?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// The next byte of a size line.
    fn size(&mut self, byte: u8) -> Result<(), NotHttp> {
        let State::Size { digits, value, seen, is_over } = &mut self.0 else { return Ok(()) };
        *seen += 1;
        if *seen > MAX_SIZE_LINE_LEN {
            return Err(NotHttp);
        }
        match (byte, char::from(byte).to_digit(16)) {
            (b'\n', _) if *digits == 0 => return Err(NotHttp),
            // No trailer follows that would be read: the connection ends.
            (b'\n', _) if *value == 0 => self.0 = State::Whole,
            (b'\n', _) => self.0 = State::Chunk(*value),
            (_, Some(digit)) if !*is_over => {
                *digits += 1;
                *value = value.checked_mul(16).ok_or(NotHttp)? | u64::from(digit);
            }
            (b';' | b' ' | b'\t' | b'\r', _) => *is_over = true,
            (_, _) if *is_over => {}
            (_, _) => return Err(NotHttp),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// The body, in pieces of that size; None where it was not whole at the end.
    fn body(text: &str, piece: usize) -> Option<String> {
        let (answer, len) = parse(text.as_bytes()).unwrap().unwrap();
        let mut reader = BodyReader::new(&answer).unwrap();
        let mut out = Vec::new();
        for bytes in text.as_bytes()[len..].chunks(piece) {
            reader.push(bytes, &mut out).unwrap();
        }
        reader.may_end().then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_body_is_whole_by_its_length_its_chunks_or_the_end() {
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        for piece in 1..40 {
            assert_eq!(
                body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", piece).as_deref(),
                Some("abc")
            );
            assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", piece), None);
            assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nabc", piece).as_deref(), Some("abc"));
            assert_eq!(body(chunked, piece).as_deref(), Some("abcde"));
            for cut in 0..10 {
                let short = &chunked[..chunked.len() - 5 - cut];
                assert_eq!(body(short, piece), None, "{short:?}");
            }
        }
        assert_eq!(body("HTTP/1.1 204 No\r\n\r\n", 1).as_deref(), Some(""));
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1).as_deref(), Some(""));
    }

    #[test]
    fn a_body_that_lies_about_itself_is_told() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (answer, _) = parse(head.as_bytes()).unwrap().unwrap();
        let endless = format!("1{}", " ".repeat(300));
        for text in ["\r\n", "x\r\n", "-1\r\n", "11111111111111111\r\n", "1\r\nabc", &endless] {
            let mut reader = BodyReader::new(&answer).unwrap();
            assert_eq!(reader.push(text.as_bytes(), &mut Vec::new()), Err(NotHttp), "{text:?}");
        }
        let length = parse(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").unwrap().unwrap().0;
        assert!(BodyReader::new(&length).is_err());
    }
}
