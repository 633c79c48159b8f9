//! The last words of a process, without its secrets.

use super::warnings::Warnings;
use crate::process::Mask;
use std::collections::VecDeque;
use zeroize::{Zeroize, Zeroizing};

/// Kept of what a tool or a hook says (behaviour section 4).
pub const KEPT_LEN: usize = 8 * 1024;

/// Keeps the end of what is pushed.
#[derive(Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    /// All that was pushed.
    total: u64,
    mask: Mask,
    warnings: Warnings,
}

impl Tail {
    /// Of a process that was given these.
    pub fn new(mask: Mask) -> Self {
        Self { bytes: VecDeque::with_capacity(2 * KEPT_LEN), total: 0, mask, warnings: Warnings::default() }
    }

    /// The next words.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.warnings.push(bytes);
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(KEPT_LEN);
        self.bytes.drain(..surplus);
    }

    /// The warnings among all that was said, also before what is kept; secrets masked.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.told(&self.mask)
    }

    /// How much was said before what is kept.
    pub fn lost_len(&self) -> u64 {
        self.total.saturating_sub(KEPT_LEN as u64)
    }

    /// What is kept, secrets masked.
    pub fn masked(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let bytes = Zeroizing::new([front, back].concat());
        let cut = if self.lost_len() > 0 { self.mask.rest_len(&bytes) } else { 0 };
        let shown = self.mask.apply(bytes.get(cut..).unwrap_or_default());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The same as one text for an error: controls gone, no blank line.
    pub fn text(&self) -> String {
        let text = self.masked();
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        let clean =
            |line: &str| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        lines.map(clean).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.bytes.make_contiguous().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_no_secret_is_in_it_even_at_the_cut() {
        let mut tail = Tail::new(Mask::of(&["hunter2".into(), "".into()]));
        tail.push(b"hunter2 and ");
        tail.push(&b"hunter2".repeat(KEPT_LEN / 7));
        tail.push(b" end");
        let text = tail.text();
        assert!(!text.contains("hunter") && !text.contains("ter2") && text.ends_with("* end"), "{text}");
        assert!(text.len() <= KEPT_LEN);
        assert_eq!(tail.lost_len(), 14);
    }

    #[test]
    fn the_text_is_fit_for_a_log() {
        let mut tail = Tail::new(Mask::of(&["pw".into()]));
        tail.push(b"FATAL: \x1b[31mpw\x1b[0m is wrong\r\n\n  hint: \xff\n");
        assert_eq!(tail.text(), "FATAL:  [31m*** [0m is wrong\nhint: \u{fffd}");
    }
}
