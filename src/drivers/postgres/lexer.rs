//! pg_dump's numbers and texts out of a stream that comes in pieces.

use super::super::form::{FormError, wrong};

/// Kept of a text: enough for the name of a table, which PostgreSQL cuts at 63 bytes.
const TEXT_KEPT: usize = 128;

/// The largest number: a sign byte and eight more.
const NUMBER_LEN_MAX: u8 = 8;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// So many bytes, a few.
    Raw(usize),
    /// A sign and a number.
    Number,
    /// A length and so many bytes.
    Text,
    /// So many bytes that nobody looks at.
    Skip(u64),
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// All of the bytes.
    Raw(&'a [u8]),
    /// Its value.
    Number(i64),
    /// The text's beginning; None for the text that is none.
    Text(Option<&'a [u8]>),
    /// They are gone by.
    Skipped,
}

/// Reads one token after the other.
pub struct Lexer {
    want: Want,
    number_len: usize,
    kept: Vec<u8>,
    /// Bytes that are still to come of a text or of what is skipped.
    body: Option<u64>,
}

impl Lexer {
    /// The first token's kind.
    pub fn new(want: Want) -> Self {
        Self { want, number_len: 4, kept: Vec::with_capacity(TEXT_KEPT), body: None }
    }

    /// How many bytes a number has; false where there is no such number.
    pub fn set_number_len(&mut self, len: u8) -> bool {
        self.number_len = usize::from(len);
        (1..=NUMBER_LEN_MAX).contains(&len)
    }

    /// The next token's kind.
    pub fn expect(&mut self, want: Want) {
        self.want = want;
        self.kept.clear();
        self.body = None;
    }

    /// Whether nothing of the next token has come yet.
    pub fn is_between(&self) -> bool {
        self.kept.is_empty() && self.body.is_none()
    }

    /// The token, once all of it has come. What it takes is gone from `bytes`.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Token<'_>>, FormError> {
        match self.want {
            Want::Raw(len) => Ok(self.gather(len, bytes).then_some(Token::Raw(&self.kept))),
            Want::Number => {
                // Each row begins with one: nearly always all of it is there.
                if self.kept.is_empty()
                    && let Some((whole, rest)) = bytes.split_at_checked(1 + self.number_len)
                {
                    *bytes = rest;
                    return Ok(Some(Token::Number(number(whole)?)));
                }
                if !self.gather(1 + self.number_len, bytes) {
                    return Ok(None);
                }
                Ok(Some(Token::Number(number(&self.kept)?)))
            }
            Want::Skip(len) => {
                self.body.get_or_insert(len);
                Ok(self.pass(bytes, 0).then_some(Token::Skipped))
            }
            Want::Text => {
                if self.body.is_none() {
                    if !self.gather(1 + self.number_len, bytes) {
                        return Ok(None);
                    }
                    let len = number(&self.kept)?;
                    self.kept.clear();
                    match u64::try_from(len) {
                        Ok(len) => self.body = Some(len),
                        Err(_) => return Ok(Some(Token::Text(None))),
                    }
                }
                Ok(self.pass(bytes, TEXT_KEPT).then_some(Token::Text(Some(&self.kept))))
            }
        }
    }

    fn gather(&mut self, len: usize, bytes: &mut &[u8]) -> bool {
        let missing = len.saturating_sub(self.kept.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.kept.extend_from_slice(taken);
        *bytes = rest;
        self.kept.len() >= len
    }

    /// Lets the body go by and keeps its beginning; true at its end.
    fn pass(&mut self, bytes: &mut &[u8], kept_len: usize) -> bool {
        let left = self.body.unwrap_or(0);
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (taken, rest) = bytes.split_at(here);
        let room = kept_len.saturating_sub(self.kept.len()).min(here);
        self.kept.extend_from_slice(taken.get(..room).unwrap_or_default());
        *bytes = rest;
        let left = left - here as u64;
        self.body = Some(left);
        left == 0
    }
}

/// A sign byte, then the value, the lowest byte first.
fn number(bytes: &[u8]) -> Result<i64, FormError> {
    let Some((sign, digits)) = bytes.split_first() else { return wrong("a number without bytes") };
    let value = digits.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let Ok(value) = i64::try_from(value) else { return wrong("a number is out of range") };
    Ok(if *sign == 0 { value } else { -value })
}
