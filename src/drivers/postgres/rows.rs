//! Which tables an archive has, and how many rows each block of data: lines of `COPY`, in which a line break of the
//! data is written as `\n`, so that every line feed ends a row.

use super::super::tally::Tally;
use memchr::memchr_iter;
use std::collections::HashMap;

/// How the table of contents calls the rows of a table.
const TABLE_DATA: &[u8] = b"TABLE DATA";

/// And what says how its texts are encoded.
const ENCODING: &[u8] = b"ENCODING";

/// What pg_dump writes behind the last row, with line feeds after it. No row is like that: a backslash is doubled.
const END: &[u8] = b"\\.";

/// Names of tables that are waited for; then their blocks come.
const MAX_WAITING: usize = 50_000;

/// What the table of contents says of the entry that is read, and what of the block.
#[derive(Default)]
pub struct TableData {
    entry: i64,
    has_data: bool,
    is_rows: bool,
    is_encoding: bool,
    tag: Vec<u8>,
    encoding: Option<String>,
    names: HashMap<i64, String>,
    rows: CopyRows,
    tally: Tally,
}

impl TableData {
    /// Another entry.
    pub fn entry(&mut self, id: i64, has_data: bool) {
        (self.entry, self.has_data) = (id, has_data);
    }

    /// Its name.
    pub fn tag(&mut self, text: Option<&[u8]>) {
        self.tag.clear();
        self.tag.extend_from_slice(text.unwrap_or_default());
    }

    /// Its kind.
    pub fn kind(&mut self, text: Option<&[u8]>) {
        self.is_rows = self.has_data && text == Some(TABLE_DATA);
        self.is_encoding = text == Some(ENCODING);
    }

    /// Its definition's beginning.
    pub fn definition(&mut self, text: Option<&[u8]>) {
        if self.is_encoding {
            let text = String::from_utf8_lossy(text.unwrap_or_default());
            self.encoding = text.split('\'').nth(1).map(str::to_owned);
        }
    }

    /// Its schema.
    pub fn schema(&mut self, text: Option<&[u8]>) {
        if !self.is_rows || !self.tally.is_whole() {
            return;
        }
        if self.names.len() >= MAX_WAITING {
            self.names.clear();
            return self.tally.give_up();
        }
        let schema = String::from_utf8_lossy(text.unwrap_or_default());
        self.names.insert(self.entry, format!("{schema}.{}", String::from_utf8_lossy(&self.tag)));
    }

    /// Bytes of a block.
    pub fn data(&mut self, bytes: &[u8]) {
        self.rows.push(bytes);
    }

    /// The entry's block is whole.
    pub fn ended(&mut self, entry: i64) {
        let rows = std::mem::take(&mut self.rows).count();
        if let Some(name) = self.names.remove(&entry) {
            self.tally.add(&name, rows);
        }
    }

    /// Of texts and rows.
    pub fn encoding(&self) -> Option<&str> {
        self.encoding.as_deref()
    }

    /// What was counted.
    pub fn take(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

/// Counts the rows of one block.
#[derive(Default)]
struct CopyRows {
    lines: u64,
    /// The last eight bytes.
    tail: u64,
}

impl CopyRows {
    fn push(&mut self, bytes: &[u8]) {
        self.lines += memchr_iter(b'\n', bytes).count() as u64;
        match bytes.last_chunk::<8>() {
            Some(last) => self.tail = u64::from_be_bytes(*last),
            None => bytes.iter().for_each(|byte| self.tail = self.tail << 8 | u64::from(*byte)),
        }
    }

    fn count(&self) -> u64 {
        let tail = self.tail.to_be_bytes();
        let text = tail.trim_ascii_end();
        let feeds = (tail.len() - text.len()) as u64;
        // Behind the end mark itself there is at least one.
        let ended = feeds > 0 && text.ends_with(END);
        let at_line_start = match text.len().checked_sub(END.len() + 1).and_then(|at| text.get(at)) {
            Some(byte) => *byte == b'\n' || *byte == 0,
            None => true,
        };
        if ended && at_line_start { self.lines.saturating_sub(feeds) } else { self.lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> u64 {
        let whole = {
            let mut rows = CopyRows::default();
            rows.push(text.as_bytes());
            rows.count()
        };
        for piece in [1, 2, 3, 5, 8, 13] {
            let mut rows = CopyRows::default();
            text.as_bytes().chunks(piece).for_each(|piece| rows.push(piece));
            assert_eq!(rows.count(), whole, "{text:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn the_end_mark_is_no_row_and_rows_may_be_empty_or_look_like_it() {
        for (text, expected) in [
            ("", 0),
            ("\\.\n\n\n", 0),
            ("1\ta\n2\t\\N\n\\.\n\n\n", 2),
            ("a\\nb\n\\.\n\n\n", 1),
            // A table without columns has empty rows.
            ("\n\n\n\\.\n\n\n", 3),
            ("\\\\.\n\\.\n\n\n", 1),
            // Without the mark, as a later tool may write it.
            ("1\n2\n", 2),
            ("\n\n", 2),
            ("x\\\\.\n", 1),
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
    }
}
