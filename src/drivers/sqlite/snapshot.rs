//! A whole snapshot out of one read transaction.

use super::super::DumpError;
use super::Sqlite;
use super::errors::{explain, problem};
use super::open::Extent;
use crate::drivers::Sink;
use crate::process::Cancel;
use rusqlite::types::ValueRef;
use std::io::Write;

/// Where the header keeps the database's size in pages, and the counters that say whether it may be believed
/// (<https://www.sqlite.org/fileformat2.html>, 1.3).
const HEADER_LEN: usize = 100;
const CHANGE_COUNTER_AT: usize = 24;
const PAGE_COUNT_AT: usize = 28;
const VALID_FOR_AT: usize = 92;

impl Sqlite {
    /// Streams every page of one snapshot; gives the bytes.
    pub(super) fn stream_snapshot(&self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        self.begin_read(cancel)?;
        let streamed = self.stream_pages(out, cancel);
        let ended = self.end_read();
        let bytes = streamed?;
        ended.map(|()| bytes)
    }

    fn stream_pages(&self, out: &mut dyn Write, cancel: &Cancel) -> Result<u64, DumpError> {
        let failed = |error: rusqlite::Error| explain(&self.path, &error);
        let extent = self.extent()?;
        let mut statement = self.connection.prepare("SELECT data FROM sqlite_dbpage").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut pages = 0;
        self.pages.take();
        while let Some(row) = rows.next().map_err(failed)? {
            if cancel.is_cancelled() {
                return Err(DumpError::Cancelled);
            }
            pages += 1;
            let page = row.get_ref(0).map_err(failed)?;
            self.write_page(page, pages, extent, out)?;
        }
        self.check_count(pages, extent)?;
        self.count_rows();
        Ok(extent.bytes())
    }

    /// Counts the rows of the pages that were written, while their snapshot is still the one that is asked. What cannot
    /// be counted is no reason to fail.
    pub(super) fn count_rows(&self) {
        let pages = self.pages.take();
        let sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 \
                   AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let roots = self.connection.prepare(sql).and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<_>, _>>()
        });
        *self.tally.borrow_mut() = roots.ok().and_then(|roots| pages.tally(&roots));
    }

    /// Writes one page; the first tells whether the header agrees with the snapshot.
    pub(super) fn write_page(
        &self,
        page: ValueRef<'_>,
        number: u32,
        extent: Extent,
        out: &mut dyn Write,
    ) -> Result<(), DumpError> {
        let bytes = match page {
            ValueRef::Blob(bytes) if bytes.len() == extent.page_size as usize => bytes,
            ValueRef::Blob(_)
            | ValueRef::Null
            | ValueRef::Integer(_)
            | ValueRef::Real(_)
            | ValueRef::Text(_) => {
                return Err(problem(&self.path, format!("is damaged: page {number} could not be read")));
            }
        };
        if number == 1
            && let Some(claimed) = claimed_pages(bytes)
            && claimed != extent.pages
        {
            let text = format!("is damaged: its header says {claimed} pages, SQLite finds {}", extent.pages);
            return Err(problem(&self.path, text));
        }
        self.pages.borrow_mut().push(bytes);
        out.write_all(bytes).map_err(DumpError::Output)
    }

    /// A stream that ended early is a failure.
    pub(super) fn check_count(&self, pages: u32, extent: Extent) -> Result<(), DumpError> {
        if pages == extent.pages {
            return Ok(());
        }
        let text = format!("gave {pages} pages of {}: the backup would not be whole", extent.pages);
        Err(problem(&self.path, text))
    }
}

/// What the header says about the size; None where an old writer left it out of date.
fn claimed_pages(first_page: &[u8]) -> Option<u32> {
    let header = first_page.get(..HEADER_LEN)?;
    let field = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let pages = field(PAGE_COUNT_AT).filter(|pages| *pages > 0)?;
    (field(CHANGE_COUNTER_AT) == field(VALID_FOR_AT)).then_some(pages)
}
