//! What a process warns of while it goes on: the lines among its words that are warnings, without what only tells how far it
//! is.

use super::Mask;
use zeroize::{Zeroize, Zeroizing};

/// Warnings that are kept; of the others only the number.
const KEPT: usize = 16;

/// Shown of one line, in bytes.
const SHOWN_LEN: usize = 500;

/// Kept of one line until its secrets are masked: none that begins in what is shown is longer than the rest.
const LINE_LEN: usize = 4 * 1024;

/// What a line of a warning has in it, in small letters: of pg_dump (`warning:`, `detail:`), of MySQL's tools (`[warning]`,
/// `-- warning:`, `error:`), of mongodump. A name of a table may be a word of these, but is not followed so.
const SIGNS: [&str; 5] = ["warning:", "error:", "detail:", "[warning]", "[error]"];

/// redis-cli asks for less than a replica gets; a server that does not know that, or a user who may not, costs nothing.
const HARMLESS: &str = "replconf ";

/// Reads words as they come.
#[derive(Default)]
pub struct Warnings {
    line: Vec<u8>,
    kept: Vec<u8>,
    count: usize,
}

impl Warnings {
    /// The next words.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_LEN.saturating_sub(self.line.len()).min(piece.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).to_ascii_lowercase();
        if SIGNS.iter().any(|sign| line.contains(sign)) && !line.starts_with(HARMLESS) {
            self.count += 1;
            if self.count <= KEPT {
                self.kept.extend_from_slice(self.line.trim_ascii());
                self.kept.push(b'\n');
            }
        }
        self.line.zeroize();
    }

    /// Each warning, without those secrets, fit for a log; and how many more there were.
    pub fn told(&self, mask: &Mask) -> Vec<String> {
        let mut all = Self { kept: self.kept.clone(), line: self.line.clone(), count: self.count };
        // The last line may have no end.
        all.end_line();
        let shown = Zeroizing::new(String::from_utf8_lossy(&mask.apply(&all.kept)).into_owned());
        let clean = |line: &str| -> String {
            // Masked before it is cut: half a secret would not be known any more.
            let end = line.floor_char_boundary(SHOWN_LEN);
            let line = line.get(..end).unwrap_or_default();
            line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        let mut told: Vec<String> = shown.lines().map(clean).collect();
        if all.count > KEPT {
            told.push(format!("and {} more warnings", all.count - KEPT));
        }
        told
    }
}

impl Drop for Warnings {
    fn drop(&mut self) {
        self.line.zeroize();
        self.kept.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, piece: usize) -> Vec<String> {
        let mut warnings = Warnings::default();
        text.as_bytes().chunks(piece).for_each(|piece| warnings.push(piece));
        warnings.told(&Mask::of(&["hunter2".into()]))
    }

    #[test]
    fn warnings_are_told_and_progress_is_not() {
        let said = "pg_dump: warning: subscriptions not dumped because current user is not a superuser\n\
            mysqldump: [Warning] hunter2 \u{1b}[1m\n\
            2026-01-01T00:00:00\twriting shop.errors to archive on stdout\n\
            2026-01-01T00:00:00\tdone dumping shop.warnings (5 documents)\n-- Warning: Skipping the data of table x";
        for piece in [1, 7, said.len()] {
            assert_eq!(
                told(said, piece),
                [
                    "pg_dump: warning: subscriptions not dumped because current user is not a superuser",
                    "mysqldump: [Warning] ***  [1m",
                    "-- Warning: Skipping the data of table x",
                ]
            );
        }
    }

    #[test]
    fn a_secret_at_the_cut_of_a_line_is_masked_and_noise_is_none() {
        let text = format!("warning: {}hunter2\n", "x".repeat(SHOWN_LEN - 12));
        assert!(!told(&text, 50)[0].contains("hun"), "{:?}", told(&text, 50));
        assert_eq!(told("REPLCONF rdb-only error: ERR unknown option\n", 9), Vec::<String>::new());
    }

    #[test]
    fn a_flood_of_warnings_is_a_few_and_a_number() {
        let told = told(&format!("warning: {}\n", "x".repeat(10_000)).repeat(40), 1_000);
        assert_eq!(told.len(), KEPT + 1);
        assert!(told.iter().all(|line| line.len() <= SHOWN_LEN));
        assert_eq!(told.last().unwrap(), "and 24 more warnings");
    }
}
