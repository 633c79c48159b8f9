//! From a target's path to a connection that can only read.

use super::super::{DumpError, Scratch};
use super::errors::{explain, is_busy, problem};
use super::{Journal, Manners, Sqlite};
use crate::model::{Strategy, TargetSpec};
use crate::process::Cancel;
use rusqlite::{Connection, OpenFlags};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one call waits for a lock: between two of them the run can be stopped.
const BUSY_SLICE: Duration = Duration::from_millis(250);

/// SQLite's page cache in KiB. Pages are read once and in order: a cache only costs.
const CACHE_KIB: i64 = 256;

/// Whether the target can be read as a file of this host.
///
/// # Errors
/// [`DumpError::Strategy`]
pub fn supports(target: &TargetSpec) -> Result<(), DumpError> {
    let refused = |reason| Err(DumpError::Strategy { target: target.id.to_string(), reason });
    match target.connection.strategy {
        Strategy::Tcp | Strategy::UnixSocket => Ok(()),
        Strategy::DockerExec => refused(
            "a SQLite database is read as a file of this host: set connection.database to its path on the host, and the strategy to TCP",
        ),
    }
}

impl Sqlite {
    pub(super) fn open_with(
        target: &TargetSpec,
        scratch: Scratch,
        manners: Manners,
        cancel: &Cancel,
    ) -> Result<Self, DumpError> {
        let path = PathBuf::from(&target.connection.database);
        if target.connection.database.is_empty() {
            let reason = "names no file: set connection.database to the database's absolute path";
            return Err(DumpError::Strategy { target: target.id.to_string(), reason });
        }
        check_file(&path)?;
        // Never SQLITE_OPEN_CREATE: a wrong path must not become an empty database.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(|error| explain(&path, &error))?;
        let mut sqlite = Self {
            path,
            connection,
            journal: Journal::Rollback,
            size_bytes: 0,
            scratch,
            manners,
            pages: Default::default(),
            tally: Default::default(),
        };
        sqlite.prepare(cancel)?;
        Ok(sqlite)
    }

    /// Limits the connection's memory and learns what kind of database it is.
    fn prepare(&mut self, cancel: &Cancel) -> Result<(), DumpError> {
        self.connection.busy_timeout(BUSY_SLICE).map_err(|error| explain(&self.path, &error))?;
        // Even setting a limit reads the schema, so the lock comes first.
        self.begin_read(cancel)?;
        let set = self
            .connection
            .pragma_update(None, "cache_size", -CACHE_KIB)
            .and_then(|()| self.connection.pragma_update(None, "mmap_size", 0_i64))
            .and_then(|()| self.connection.pragma_update(None, "query_only", true));
        set.map_err(|error| explain(&self.path, &error))?;
        self.size_bytes = self.extent()?.bytes();
        let journal: String = self.ask("SELECT journal_mode FROM pragma_journal_mode")?;
        self.journal = if journal.eq_ignore_ascii_case("wal") { Journal::Wal } else { Journal::Rollback };
        // Of a last page that is cut SQLite reads the rest as zeros. A log may still have it whole; without one, nobody
        // writes under this lock.
        let len = std::fs::metadata(&self.path).map_or(u64::MAX, |meta| meta.len());
        if self.journal == Journal::Rollback && len < self.size_bytes {
            return Err(problem(&self.path, "is damaged: its file ends within its last page"));
        }
        self.end_read()?;
        if self.size_bytes == 0 {
            return Err(problem(&self.path, "is empty: there is nothing to back up"));
        }
        self.connection.prepare("SELECT data FROM sqlite_dbpage").map(drop).map_err(|_| {
            problem(
                &self.path,
                "cannot be streamed: the linked SQLite was built without SQLITE_ENABLE_DBPAGE_VTAB; build the agent in its own tree, which sets it",
            )
        })
    }

    /// Starts a read transaction: waits for the lock, and can be stopped meanwhile.
    pub(super) fn begin_read(&self, cancel: &Cancel) -> Result<(), DumpError> {
        let start = Instant::now();
        loop {
            let begun = self.connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema");
            let Err(error) = begun else { return Ok(()) };
            // A BEGIN that found no lock leaves an open transaction.
            let _ = self.connection.execute_batch("ROLLBACK");
            if cancel.is_cancelled() {
                return Err(DumpError::Cancelled);
            }
            if !is_busy(&error) {
                return Err(explain(&self.path, &error));
            }
            if start.elapsed() >= self.manners.lock_wait {
                return Err(problem(
                    &self.path,
                    format!(
                        "stayed locked by another process for {} s: end the transaction that holds it, or leave its exclusive locking mode",
                        self.manners.lock_wait.as_secs()
                    ),
                ));
            }
        }
    }

    /// Ends the read transaction.
    pub(super) fn end_read(&self) -> Result<(), DumpError> {
        self.connection.execute_batch("COMMIT").map_err(|error| explain(&self.path, &error))
    }

    /// The first column of the first row.
    pub(super) fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, DumpError> {
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|error| explain(&self.path, &error))
    }

    /// How large the snapshot of the read transaction is.
    pub(super) fn extent(&self) -> Result<Extent, DumpError> {
        let page_size: u32 = self.ask("SELECT page_size FROM pragma_page_size")?;
        let pages: u32 = self.ask("SELECT page_count FROM pragma_page_count")?;
        Ok(Extent { page_size, pages })
    }
}

/// A snapshot's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages, the lock-byte page included.
    pub pages: u32,
}

impl Extent {
    /// Bytes of the whole file.
    pub fn bytes(self) -> u64 {
        u64::from(self.page_size) * u64::from(self.pages)
    }
}

/// Whether the path names a file that could be a database. Only its name is looked at: see the module.
fn check_file(path: &Path) -> Result<(), DumpError> {
    if !path.is_absolute() {
        return Err(problem(path, "is not an absolute path"));
    }
    // A symbolic link is followed, by SQLite too: journal and log lie beside the file that it leads to.
    let meta = std::fs::metadata(path).map_err(|error| {
        let kind = error.kind();
        let text = if kind == ErrorKind::NotFound && path.is_symlink() {
            "is a symbolic link that leads nowhere; correct it or the target's path".to_owned()
        } else if kind == ErrorKind::NotFound {
            "does not exist; correct the target's path".to_owned()
        } else if kind == ErrorKind::PermissionDenied {
            "may not be seen by the agent's user: give it access to the directory".to_owned()
        } else {
            error.to_string()
        };
        problem(path, text)
    })?;
    if meta.is_dir() {
        return Err(problem(path, "is a directory; name the database file in it"));
    }
    if !meta.is_file() {
        return Err(problem(path, "is not a regular file"));
    }
    if meta.len() == 0 {
        return Err(problem(path, "is empty (0 bytes): there is nothing to back up"));
    }
    Ok(())
}
