//! `verify --restore`: the backup becomes a database again, is looked at, and is gone.
//!
//! ```text
//! object -> opened, unpacked -> held against its form, counted -> a throwaway server of its engine -> counted there
//! ```
//!
//! The dump streams into the server: its only plaintext copy is the database itself, in a directory of its own below
//! `--restore-dir` ([`place`]). SQLite and Redis read a file instead, which lies there too.

mod mariadb;
mod place;
mod postgres;
mod redis;
mod server;
mod sqlite;
mod tools;

use super::super::opening::{Failure, Key, OpeningArgs, Report};
use crate::drivers::{DumpReader, HEAD_LEN, Tally, engine_of};
use crate::model::Engine;
use place::{Place, ensure_room};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// How often the free space is looked at while a database grows.
const ROOM_CHECK_BYTES: u64 = 8 * 1024 * 1024;

/// A database that came out of a backup.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// The engine that read it.
    pub engine: String,
    /// Its tables, each with its rows; of Redis, its databases with their keys.
    pub tables: BTreeMap<String, u64>,
    /// All rows.
    pub rows: u64,
    /// Keys of Redis whose time was over when they were restored: they are no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<u64>,
    /// What could not be checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// What a server found in the restored database.
struct Found {
    engine: String,
    tally: Tally,
    /// Tables that are not the backup's, but come with the server's own extensions.
    foreign: Vec<String>,
    expired: Option<u64>,
    remarks: Vec<String>,
}

/// One engine's way back to a database.
trait Restorer {
    /// The next bytes of the dump, which `reader` has seen already.
    fn feed(&mut self, bytes: &[u8], reader: &DumpReader) -> Result<(), Failure>;

    /// The dump is over and whole: what is there?
    fn look(&mut self, reader: &mut DumpReader) -> Result<Found, Failure>;

    /// Tables of SQLite with their root pages, once it was looked at.
    fn roots(&self) -> &[(String, u32)] {
        &[]
    }
}

/// Opens the object into a throwaway server, compares what is there with what the dump had as it went by, and gives
/// that as well, where all of it was counted.
///
/// # Errors
/// [`Failure`]: of the object first; [`Failure::NotRestorable`] and [`Failure::ServerTools`] where this host cannot
/// restore it; [`Failure::Restored`] where what comes out is not sound; [`Failure::Differs`].
pub fn restore(
    opening: &OpeningArgs,
    key: &Key,
    dir: &Path,
) -> Result<(Report, Restored, Option<Tally>), Failure> {
    let mut feed = Feed::new(dir);
    let report = match opening.open_into(key, &mut feed) {
        Ok(report) => report,
        // Writing failed because of the server: it says why.
        Err(Failure::Write(cause)) => return Err(feed.failure.take().unwrap_or(Failure::Write(cause))),
        Err(failure) => return Err(failure),
    };
    if let Some(failure) = feed.failure.take() {
        return Err(failure);
    }
    let (restored, counted) = feed.end()?;
    Ok((report, restored, counted))
}

/// Takes the dump in, finds out what it is, and hands it on.
struct Feed<'a> {
    dir: &'a Path,
    head: Vec<u8>,
    going: Option<(Box<dyn Restorer>, DumpReader)>,
    unchecked_bytes: u64,
    failure: Option<Failure>,
}

impl<'a> Feed<'a> {
    fn new(dir: &'a Path) -> Self {
        Self { dir, head: Vec::new(), going: None, unchecked_bytes: 0, failure: None }
    }

    /// Enough has come to know the engine.
    fn begin(&mut self) -> Result<(), Failure> {
        let head = std::mem::take(&mut self.head);
        let engine = engine_of(&head).ok_or(Failure::NotRestorable { what: "no dump that is known" })?;
        let reader = DumpReader::of(engine);
        let reader = reader.ok_or(Failure::NotRestorable { what: "a dump of MongoDB" })?;
        let place = |user: &[&str]| Place::create(self.dir, user);
        let restorer: Box<dyn Restorer> = match engine {
            Engine::Sqlite => Box::new(sqlite::Copy::create(place(&[])?)?),
            Engine::Postgresql => Box::new(postgres::Postgres::create(place(&["postgres"])?)?),
            Engine::Mysql | Engine::Mariadb => {
                Box::new(mariadb::Mariadb::create(place(&["mysql"])?, engine == Engine::Mysql)?)
            }
            Engine::Redis => Box::new(redis::Redis::create(place(&["redis", "valkey"])?, &head)?),
            Engine::Mongodb => return Err(Failure::NotRestorable { what: "a dump of MongoDB" }),
        };
        self.going = Some((restorer, reader));
        self.hand_on(&head)
    }

    fn hand_on(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some((restorer, reader)) = &mut self.going else { return Ok(()) };
        reader.take(bytes).map_err(Failure::Restored)?;
        restorer.feed(bytes, reader).map_err(|failure| for_want_of_room(self.dir, failure))?;
        self.unchecked_bytes += bytes.len() as u64;
        if self.unchecked_bytes >= ROOM_CHECK_BYTES {
            self.unchecked_bytes = 0;
            ensure_room(self.dir).map_err(Failure::Write)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.going.is_some() {
            return self.hand_on(bytes);
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() >= HEAD_LEN { self.begin() } else { Ok(()) }
    }

    fn end(mut self) -> Result<(Restored, Option<Tally>), Failure> {
        if self.going.is_none() {
            self.begin()?;
        }
        let Some((mut restorer, mut reader)) = self.going else {
            return Err(Failure::NotRestorable { what: "nothing" });
        };
        reader.finish().map_err(Failure::Restored)?;
        let found = restorer.look(&mut reader).map_err(|failure| for_want_of_room(self.dir, failure))?;
        let counted = reader.tally(restorer.roots()).filter(Tally::is_whole);
        compare(found, counted)
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Ok(bytes.len());
        }
        let Err(failure) = self.take(bytes) else { return Ok(bytes.len()) };
        let is_backups_own = matches!(failure, Failure::Restored(_));
        self.failure = Some(failure);
        self.going = None;
        // Then the object is read to its end all the same: what is wrong with the object itself is said first.
        if is_backups_own {
            Ok(bytes.len())
        } else {
            Err(io::Error::other("the dump could not be handed on"))
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A full disk is no fault of the backup, whatever the server says of it.
fn for_want_of_room(dir: &Path, failure: Failure) -> Failure {
    ensure_room(dir).map_or_else(Failure::Write, |()| failure)
}

/// Holds the restored database against what the dump had as it went by.
fn compare(found: Found, counted: Option<Tally>) -> Result<(Restored, Option<Tally>), Failure> {
    let Found { engine, tally, foreign, expired, mut remarks } = found;
    match &counted {
        Some(counted) => {
            let (mut here, mut there) = (counted.clone(), tally.clone());
            for name in &foreign {
                here.forget(name);
                there.forget(name);
            }
            let differences = here.differences(&there, "the dump", "the restored database");
            if !differences.is_empty() {
                return Err(Failure::Differs(differences.join("; ")));
            }
        }
        None => remarks.push(
            "the rows of this dump were not counted on the way: there is nothing to compare with".into(),
        ),
    }
    let rows = tally.total();
    Ok((Restored { engine, tables: tally.rows().clone(), rows, expired, remarks }, counted))
}
