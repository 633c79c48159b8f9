//! The last words of a tool, without its secrets.

use crate::model::Secret;
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// Kept of a tool's standard error (behaviour section 4).
const KEPT_LEN: usize = 8 * 1024;

/// What stands where a secret stood.
const MASK: &[u8] = b"***";

/// Keeps the end of what is pushed.
pub struct Tail {
    bytes: VecDeque<u8>,
    secrets: Vec<Secret>,
    /// More than is shown, so that a secret at the cut is still whole.
    capacity: usize,
}

impl Tail {
    /// Of a tool that was given these.
    pub fn new(secrets: &[Secret]) -> Self {
        let secrets: Vec<_> = secrets.iter().filter(|secret| !secret.is_empty()).cloned().collect();
        let longest = secrets.iter().map(|secret| secret.expose().len()).max().unwrap_or(0);
        Self { bytes: VecDeque::new(), secrets, capacity: KEPT_LEN + longest }
    }

    /// The next words.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(self.capacity);
        self.bytes.drain(..surplus);
    }

    /// What is kept, as one text: secrets masked, controls gone, no blank line.
    pub fn text(&self) -> String {
        let mut bytes = Zeroizing::new(self.bytes.iter().copied().collect::<Vec<u8>>());
        for secret in &self.secrets {
            bytes = Zeroizing::new(masked(&bytes, secret.expose().as_bytes()));
        }
        let shown = bytes.len().saturating_sub(KEPT_LEN);
        let text = String::from_utf8_lossy(bytes.get(shown..).unwrap_or_default());
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        let clean =
            |line: &str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        lines.map(clean).collect::<Vec<_>>().join("\n")
    }
}

fn masked(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(secret) {
            Some(behind) => {
                out.extend_from_slice(MASK);
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_no_secret_is_in_it_even_at_the_cut() {
        let mut tail = Tail::new(&["hunter2".into(), "".into()]);
        tail.push(b"hunter2 and ");
        tail.push(&[b'x'; KEPT_LEN - 3]);
        tail.push(b" end");
        let text = tail.text();
        assert!(!text.contains("hunter") && !text.contains("nter2") && text.ends_with(" end"), "{text}");
        assert!(text.len() <= KEPT_LEN);
    }

    #[test]
    fn the_text_is_fit_for_a_log() {
        let mut tail = Tail::new(&["pw".into()]);
        tail.push(b"FATAL: \x1b[31mpw\x1b[0m is wrong\r\n\n  hint: \xff\n");
        assert_eq!(tail.text(), "FATAL:  [31m*** [0m is wrong\nhint: \u{fffd}");
    }
}
