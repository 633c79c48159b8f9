//! SQLite: the dump is the database. It has no name while it is written, and loses the one that SQLite needs as soon as
//! SQLite has it open.

use super::super::super::opening::Failure;
use super::place::Place;
use super::{Found, Restorer};
use crate::drivers::{DumpReader, Tally};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::O_TMPFILE;
use nix::unistd::linkat;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More of what is wrong helps nobody.
const SHOWN_FAULTS: usize = 3;

/// A database file without a name.
pub struct Copy {
    file: File,
    place: Place,
    roots: Vec<(String, u32)>,
}

impl Copy {
    /// Makes the file.
    ///
    /// # Errors
    /// [`Failure::Write`]
    pub fn create(place: Place) -> Result<Self, Failure> {
        let file = nameless(place.path()).map_err(Failure::Write)?;
        Ok(Self { file, place, roots: Vec::new() })
    }
}

impl Restorer for Copy {
    fn feed(&mut self, bytes: &[u8], _: &DumpReader) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::Write)
    }

    fn look(&mut self, _: &mut DumpReader) -> Result<Found, Failure> {
        let path = self.place.join("restored.db");
        let proc = proc_path(&self.file);
        let linked = linkat(AT_FDCWD, proc.as_path(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW);
        linked.map_err(|error| Failure::Write(error.into()))?;
        let opened = open(&path);
        fs::remove_file(&path).map_err(Failure::Write)?;
        let (tally, roots) = opened.and_then(|database| look(&database)).map_err(Failure::Restored)?;
        self.roots = roots;
        let engine = format!("SQLite {}", rusqlite::version());
        Ok(Found { engine, tally, foreign: Vec::new(), expired: None, remarks: Vec::new() })
    }

    fn roots(&self) -> &[(String, u32)] {
        &self.roots
    }
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

/// Tables with their rows, and with their root pages.
type Looked = (Tally, Vec<(String, u32)>);

fn look(database: &Connection) -> Result<Looked, String> {
    let failed = |error: rusqlite::Error| error.to_string();
    let found: rusqlite::Result<Vec<String>> = database
        .prepare("PRAGMA integrity_check")
        .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect());
    let found = found.map_err(failed)?;
    if found != ["ok"] {
        let shown = found.iter().take(SHOWN_FAULTS).map(String::as_str).collect::<Vec<_>>().join("; ");
        return Err(format!("integrity_check: {shown}"));
    }
    // Virtual tables have no pages and need modules of the application's; what they keep stands in tables of its own.
    let sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let roots: rusqlite::Result<Vec<(String, u32)>> = database
        .prepare(sql)
        .and_then(|mut tables| tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect());
    let roots = roots.map_err(failed)?;
    let mut tally = Tally::default();
    for (name, _) in &roots {
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let rows: i64 = database.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
        tally.add(name, u64::try_from(rows).unwrap_or_default());
    }
    Ok((tally, roots))
}
