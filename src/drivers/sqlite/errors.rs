//! What SQLite says, as an operator can use it.

use super::super::DumpError;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::ErrorCode;
use std::path::Path;

/// Whether somebody else's lock is in the way, so that waiting helps.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The error of a call on that database.
pub fn explain(path: &Path, error: &rusqlite::Error) -> DumpError {
    problem(path, format!("{} (SQLite says: {})", advice(path, error), said(error)))
}

/// A problem of that database.
pub fn problem(path: &Path, problem: impl Into<String>) -> DumpError {
    DumpError::File { path: path.to_owned(), problem: problem.into() }
}

fn said(error: &rusqlite::Error) -> String {
    if let rusqlite::Error::SqliteFailure(_, Some(message)) = error {
        return message.clone();
    }
    error.to_string()
}

fn advice(path: &Path, error: &rusqlite::Error) -> &'static str {
    let Some(code) = error.sqlite_error_code() else { return "could not be read" };
    if code == ErrorCode::NotADatabase {
        return "is not a SQLite database, or it is encrypted; correct the target's path";
    }
    if code == ErrorCode::DatabaseCorrupt {
        return "is damaged: check it with `PRAGMA integrity_check` and restore it from an earlier backup";
    }
    if code == ErrorCode::CannotOpen || code == ErrorCode::ReadOnly {
        return cannot_open(path);
    }
    if code == ErrorCode::PermissionDenied {
        return "may not be read by the agent's user: give it read access";
    }
    if code == ErrorCode::SystemIoFailure {
        return "could not be read from the disk: look into the kernel's log";
    }
    if is_busy(error) {
        return "is locked by another process";
    }
    "could not be read"
}

/// The usual reasons, told apart by what lies beside the file.
fn cannot_open(path: &Path) -> &'static str {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    if beside("-journal") {
        return "has a journal of an interrupted transaction, which only a writer may roll back: open it once with its application";
    }
    // Only asked: opening it here would end the locks of this process.
    if access(path, AccessFlags::R_OK) == Err(Errno::EACCES) {
        return "may not be read by the agent's user: give it read access to the file and its directory";
    }
    "cannot be opened for reading. A database in WAL mode needs its `-shm` file beside it: keep its application running, or let the agent's user write into the directory"
}
