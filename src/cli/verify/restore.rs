//! `verify --restore`: the backup becomes a database again, is looked at, and is gone.
//!
//! The copy is plaintext on a disk for that time. It has no name while it is written, and loses the one that SQLite
//! needs as soon as SQLite has it open: whatever ends this process, nothing stays.

use super::super::opening::{Failure, Key, OpeningArgs, Report};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::O_TMPFILE;
use nix::unistd::linkat;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a SQLite database begins with.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// More of what is wrong helps nobody.
const SHOWN_FAULTS: usize = 3;

/// A database that came out of a backup.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// The engine that read it.
    pub engine: String,
    /// Its tables, each with its rows.
    pub tables: BTreeMap<String, u64>,
    /// All rows.
    pub rows: u64,
}

/// Opens the object into a database of `dir`, and looks at all of it.
///
/// # Errors
/// [`Failure`]; [`Failure::NotRestorable`] for engines that this version cannot restore,
/// [`Failure::Restored`] where the database is not sound.
pub fn restore(opening: &OpeningArgs, key: &Key, dir: &Path) -> Result<(Report, Restored), Failure> {
    let place = tempfile::Builder::new().prefix("backupy-restore-").tempdir_in(dir);
    let place = place.map_err(|cause| Failure::Create { name: dir.display().to_string(), cause })?;
    let mut copy = nameless(place.path()).map_err(Failure::Write)?;
    let report = opening.open_into(key, &mut copy)?;
    let mut magic = [0; SQLITE.len()];
    let begun = copy.seek(SeekFrom::Start(0)).and_then(|_| copy.read_exact(&mut magic));
    if begun.is_err() || &magic != SQLITE {
        return Err(Failure::NotRestorable);
    }
    let path = place.path().join("restored.db");
    let linked = linkat(AT_FDCWD, proc_path(&copy).as_path(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW);
    linked.map_err(|error| Failure::Write(error.into()))?;
    let opened = open(&path);
    fs::remove_file(&path).map_err(Failure::Write)?;
    let restored = opened.and_then(|database| look(&database)).map_err(Failure::Restored)?;
    Ok((report, restored))
}

/// A file without a name, for reading and writing.
fn nameless(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(O_TMPFILE).open(dir)
}

fn proc_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Nobody else has the file: no locks and no journal are needed.
fn open(path: &Path) -> Result<Connection, String> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Its directory was named here, without a character that a URI would read otherwise, below a directory of the
    // user's, which may have some.
    let text = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let database = Connection::open_with_flags(format!("file:{text}?immutable=1"), flags);
    let database = database.map_err(|error| error.to_string())?;
    // The file is opened with the first look at it.
    let looked: rusqlite::Result<i64> = database.query_row("PRAGMA schema_version", [], |row| row.get(0));
    looked.map_err(|error| error.to_string())?;
    Ok(database)
}

fn look(database: &Connection) -> Result<Restored, String> {
    let failed = |error: rusqlite::Error| error.to_string();
    let texts = |sql: &str| -> rusqlite::Result<Vec<String>> {
        database.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let found = texts("PRAGMA integrity_check").map_err(failed)?;
    if found != ["ok"] {
        let shown = found.iter().take(SHOWN_FAULTS).map(String::as_str).collect::<Vec<_>>().join("; ");
        return Err(format!("integrity_check: {shown}"));
    }
    // Virtual tables need modules of the application's; what they keep stands in tables of its own.
    let names = texts(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND sql NOT LIKE 'CREATE VIRTUAL%'",
    );
    let mut tables = BTreeMap::new();
    for name in names.map_err(failed)? {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let rows: i64 = database.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
        tables.insert(name, u64::try_from(rows).unwrap_or_default());
    }
    let rows = tables.values().sum();
    Ok(Restored { engine: format!("SQLite {}", rusqlite::version()), tables, rows })
}
