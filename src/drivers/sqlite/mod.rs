//! SQLite by the linked library: one consistent snapshot, page by page, without a tool.
//!
//! The table-valued `sqlite_dbpage` shows the pages of the snapshot that a read transaction sees. How long
//! that transaction may live depends on the journal:
//!
//! - **WAL**: readers and writers do not disturb each other. One transaction streams everything.
//! - **Rollback journal**: a reader keeps every writer from committing. A database that is read within about
//!   two seconds is streamed in one transaction. A larger one is read in windows of a quarter of a second,
//!   between which writers get their turn; when one of them committed something (`data_version`
//!   says so), the stream begins again ([`windows`]). A database that is written to all the time is,
//!   the last time, copied under the lock at the disk's speed into an unlinked 0600 file, sealed
//!   under a key that only this process has, and streamed from there.
//!
//! No plaintext touches the disk on any of these ways. The database file is never opened but by SQLite:
//! closing another descriptor of it would drop the locks that this process holds (POSIX locks
//! belong to the process), so even the look at its first bytes is SQLite's.

mod errors;
mod open;
mod pages;
mod snapshot;
#[cfg(test)]
mod tests;
mod windows;

pub use open::supports;
pub use pages::Image;

use super::tally::Tally;
use super::{Driver, DumpError, Scratch};
use crate::drivers::Sink;
use crate::model::TargetSpec;
use crate::process::Cancel;
use pages::Pages;
use rusqlite::Connection;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

/// What a database file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// How long and how often the database's users may be disturbed.
#[derive(Clone, Debug)]
struct Manners {
    /// A lock that somebody else holds is waited for so long. Longer than any sane transaction.
    lock_wait: Duration,
    /// A rollback-journal database up to this size is read under one lock: two seconds at 64 MB/s, half of
    /// what one compressing core does.
    short_lock_bytes: u64,
    /// The lock of one window: short beside the busy timeouts of applications (5 s is usual).
    window: Duration,
    /// Between two windows. A writer that waits holds the PENDING lock, which keeps the next window
    /// out until it is through; this only lets it get there.
    pause: Duration,
    /// Streams in windows, each void when something was committed meanwhile.
    attempts: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(30),
            short_lock_bytes: 128 * 1024 * 1024,
            window: Duration::from_millis(250),
            pause: Duration::from_millis(10),
            attempts: 3,
        }
    }
}

/// How the database keeps its transactions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journal {
    /// Write-ahead log.
    Wal,
    /// Anything that makes readers hold up writers.
    Rollback,
}

/// An open database.
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    journal: Journal,
    size_bytes: u64,
    scratch: Scratch,
    manners: Manners,
    /// Of the snapshot that is streamed.
    pages: RefCell<Pages>,
    tally: RefCell<Option<Tally>>,
}

impl Sqlite {
    /// Opens the target's file, which must be there, read-only.
    ///
    /// # Errors
    /// [`DumpError::File`], [`DumpError::Cancelled`].
    pub fn open(target: &TargetSpec, scratch: Scratch, cancel: &Cancel) -> Result<Self, DumpError> {
        Self::open_with(target, scratch, Manners::default(), cancel)
    }

    /// How this database is streamed, for the log.
    fn streams_at_once(&self) -> bool {
        self.journal == Journal::Wal || self.size_bytes <= self.manners.short_lock_bytes
    }
}

impl Driver for Sqlite {
    fn estimate(&mut self, _cancel: &Cancel) -> Result<u64, DumpError> {
        Ok(self.size_bytes)
    }

    /// The file, page by page.
    fn least_bytes(&self, estimate: u64) -> u64 {
        estimate
    }

    fn engine_version(&self) -> String {
        format!("SQLite {}", rusqlite::version())
    }

    fn magic(&self) -> &'static [u8] {
        MAGIC
    }

    fn tally(&mut self) -> Option<Tally> {
        self.tally.take()
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        if self.streams_at_once() {
            self.stream_snapshot(out, cancel)
        } else {
            self.stream_windows(out, cancel)
        }
    }
}
