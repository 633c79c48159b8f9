//! The rows of every table, counted in the pages as they pass: of a page only its kind, its cells and, where it has
//! some, its children are kept; in the end each table's tree is walked from its root. So SQLite is not asked to count,
//! which would read the whole database a second time.
//!
//! Pages that are free may look like pages of a tree, with children that are somebody else's by now. No live page leads
//! there, so nobody walks there (<https://www.sqlite.org/fileformat2.html>, 1.6).

use super::super::form::{Form, FormError, wrong};
use super::super::tally::Tally;
use std::io::Write;

/// A database with more pages is backed up without a manifest: 4 GiB with pages of the usual size, 8 MiB of memory.
const MAX_PAGES: usize = 1024 * 1024;

/// Kinds of pages.
const INTERIOR_INDEX: u8 = 2;
const INTERIOR_TABLE: u8 = 5;
const LEAF_INDEX: u8 = 10;
const LEAF_TABLE: u8 = 13;

/// The first page begins with the file's header.
const FILE_HEADER_LEN: usize = 100;
/// Where that has the size of pages.
const PAGE_SIZE_AT: usize = 16;

/// Of an interior page: kind, cells, and the child behind the last cell.
const CELLS_AT: usize = 3;
const LAST_CHILD_AT: usize = 8;
const POINTERS_AT: usize = 12;

/// A page that leads to others.
struct Interior {
    page: u32,
    /// Where its children begin; they end where those of the next one begin.
    first: u32,
}

/// What is kept of the pages of one file.
#[derive(Default)]
pub struct Pages {
    /// Kind and cells of each page, the first one first.
    seen: Vec<(u8, u16)>,
    interiors: Vec<Interior>,
    children: Vec<u32>,
    too_many: bool,
}

impl Pages {
    /// The next page.
    pub fn push(&mut self, page: &[u8]) {
        if self.too_many {
            return;
        }
        if self.seen.len() >= MAX_PAGES || self.children.len() > 2 * MAX_PAGES {
            *self = Self { too_many: true, ..Self::default() };
            return;
        }
        let header = if self.seen.is_empty() { FILE_HEADER_LEN } else { 0 };
        let tree = page.get(header..).unwrap_or_default();
        let kind = tree.first().copied().unwrap_or_default();
        let cells = short(tree, CELLS_AT).unwrap_or_default();
        self.seen.push((kind, cells));
        if matches!(kind, INTERIOR_INDEX | INTERIOR_TABLE) {
            let known = self.children.len();
            if self.lead(page, tree, cells).is_some() {
                let number = self.seen.len() as u32;
                self.interiors.push(Interior { page: number, first: known as u32 });
            } else {
                // It only looked like one.
                self.children.truncate(known);
            }
        }
    }

    /// Notes the children of an interior page.
    fn lead(&mut self, page: &[u8], tree: &[u8], cells: u16) -> Option<()> {
        for cell in 0..usize::from(cells) {
            let at = usize::from(short(tree, POINTERS_AT + 2 * cell)?);
            // Counted from the page's beginning, also on the first page.
            self.children.push(long(page, at)?);
        }
        self.children.push(long(tree, LAST_CHILD_AT)?);
        Some(())
    }

    /// The tables' rows; `roots` are their names and root pages.
    pub fn tally(&self, roots: &[(String, u32)]) -> Option<Tally> {
        let mut tally = Tally::default();
        for (name, root) in roots {
            tally.add(name, self.rows(*root)?);
        }
        Some(tally)
    }

    /// None where there were too many pages, or the tree is none.
    fn rows(&self, root: u32) -> Option<u64> {
        let (mut rows, mut walked, mut waiting) = (0, 0, vec![root]);
        while let Some(number) = waiting.pop() {
            walked += 1;
            let (kind, cells) = *self.seen.get((number as usize).checked_sub(1)?)?;
            let interior = match kind {
                LEAF_TABLE | LEAF_INDEX => {
                    rows += u64::from(cells);
                    continue;
                }
                INTERIOR_TABLE => false,
                // A table WITHOUT ROWID: its rows are in every page.
                INTERIOR_INDEX => true,
                _ => return None,
            };
            rows += if interior { u64::from(cells) } else { 0 };
            let at = self.interiors.binary_search_by_key(&number, |known| known.page).ok()?;
            let first = self.interiors.get(at)?.first as usize;
            let end = self.interiors.get(at + 1).map_or(self.children.len(), |next| next.first as usize);
            waiting.extend(self.children.get(first..end)?);
            // A damaged tree may have a circle.
            if walked > self.seen.len() {
                return None;
            }
        }
        Some(rows)
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// A database file as a stream, as a backup of it gives it back.
#[derive(Default)]
pub struct Image {
    page_len: usize,
    partial: Vec<u8>,
    pages: Pages,
}

impl Image {
    /// What is known of its pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
}

impl Form for Image {
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        self.partial.extend_from_slice(bytes);
        if self.page_len == 0 {
            let Some(len) = short(&self.partial, PAGE_SIZE_AT) else { return Ok(out.write_all(bytes)?) };
            // The largest does not fit into two bytes.
            self.page_len = if len == 1 { 65_536 } else { usize::from(len) };
            if !self.page_len.is_power_of_two() || self.page_len < 512 {
                return wrong("its header has an impossible size of pages");
            }
        }
        let whole = self.partial.len() / self.page_len * self.page_len;
        for page in self.partial.get(..whole).unwrap_or_default().chunks_exact(self.page_len) {
            self.pages.push(page);
        }
        self.partial.drain(..whole);
        Ok(out.write_all(bytes)?)
    }

    fn finish(&mut self, _: &mut dyn Write) -> Result<(), FormError> {
        if self.page_len == 0 || !self.partial.is_empty() {
            return wrong("it ends in the middle of a page");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn roots(database: &Connection) -> Vec<(String, u32)> {
        let sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0";
        let mut statement = database.prepare(sql).unwrap();
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    #[test]
    fn every_tree_is_counted_as_sqlite_counts_it() {
        for page_size in [512, 4096, 65_536] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            let database = Connection::open(&path).unwrap();
            database
                .execute_batch(&format!(
                    "PRAGMA page_size = {page_size}; PRAGMA secure_delete = off;
                     CREATE TABLE a(x INTEGER PRIMARY KEY, y TEXT); CREATE INDEX i ON a(y);
                     CREATE TABLE bare(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
                     CREATE TABLE empty(z); CREATE TABLE gone(z); CREATE TABLE big(b BLOB);
                     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                       INSERT INTO a SELECT i, 'row number ' || i FROM n;
                     INSERT INTO bare SELECT y, x FROM a; INSERT INTO gone SELECT y FROM a;
                     INSERT INTO big VALUES (randomblob(300000)), (zeroblob(70000));
                     DELETE FROM a WHERE x % 3 = 0 OR x BETWEEN 5000 AND 9000; DROP TABLE gone;
                     DELETE FROM bare WHERE v > 15000"
                ))
                .unwrap();
            let mut image = Image::default();
            let mut out = Vec::new();
            let bytes = std::fs::read(&path).unwrap();
            bytes.chunks(1000).for_each(|piece| image.take(piece, &mut out).unwrap());
            image.finish(&mut out).unwrap();
            assert!(out == bytes);
            let tally = image.pages().tally(&roots(&database)).unwrap();
            assert_eq!(tally.rows().len(), 4);
            for (name, rows) in tally.rows() {
                let sql = format!("SELECT count(*) FROM {name}");
                let expected: i64 = database.query_row(&sql, [], |row| row.get(0)).unwrap();
                assert_eq!(*rows, expected as u64, "{name}, pages of {page_size}");
            }
        }
    }

    #[test]
    fn a_tree_that_is_none_and_too_many_pages_are_not_counted() {
        let mut pages = Pages::default();
        let mut first = vec![0; 512];
        first[100] = INTERIOR_TABLE;
        // Its only child is itself.
        first[100 + LAST_CHILD_AT + 3] = 1;
        pages.push(&first);
        pages.push(&[7; 512]);
        for root in [0, 1, 2, 3] {
            assert_eq!(pages.tally(&[("t".into(), root)]), None, "{root}");
        }
        let mut many = Pages::default();
        (0..=MAX_PAGES).for_each(|_| many.push(&[LEAF_TABLE, 0, 0, 0, 1]));
        assert_eq!(many.tally(&[("t".into(), 2)]), None);
    }

    #[test]
    fn half_a_file_is_no_image() {
        let mut image = Image::default();
        let mut file = b"SQLite format 3\0".to_vec();
        file.extend([2, 0]);
        file.resize(700, 0);
        image.take(&file, &mut Vec::new()).unwrap();
        assert!(image.finish(&mut Vec::new()).is_err());
    }
}
