//! The engines: how a database becomes a stream of bytes. One folder an engine, one trait.

mod call;
mod child;
mod container;
mod error;
mod form;
mod ground;
mod inside;
mod mongodb;
mod mysql;
mod patience;
mod place;
mod postgres;
pub mod private;
mod reader;
mod redis;
#[cfg(test)]
mod scripted_engine;
mod search;
mod secret;
mod sqlite;
mod tally;
mod tool;
mod tools;

pub use container::{Access, Mark, Owner, end_tools_of_earlier_lives};
pub use error::DumpError;
pub use ground::Host;
pub use reader::{DumpReader, HEAD_LEN, engine_of};
pub use secret::password;
pub use tally::Tally;
pub use tools::Tools;

use crate::model::{Engine, TargetSpec};
use crate::process::Cancel;
use crate::spool::Room;
use ground::Ground;
use std::io::{self, Write};
use std::path::PathBuf;

/// Where a driver writes its dump.
pub trait Sink: Write {
    /// Voids everything that was written: the dump begins again from its first byte.
    fn restart(&mut self) -> io::Result<()>;
}

/// A dump that is smaller than its database by more than this, packed or by what the server keeps beside the rows, is rare.
pub const HOPEFUL_RATIO: u64 = 8;

/// A database that can be dumped. It is made, used and dropped by the run's reading thread, so its
/// calls may block; each looks at `cancel` often enough to end within a second.
pub trait Driver {
    /// About how many bytes the dump will have, by the engine's own account.
    ///
    /// # Errors
    /// [`DumpError`]
    fn estimate(&mut self, cancel: &Cancel) -> Result<u64, DumpError>;

    /// What the dump has at least of an estimate: with less room than that it cannot end well. Tables have space that a
    /// dump has not, and so has memory.
    fn least_bytes(&self, estimate: u64) -> u64 {
        estimate / HOPEFUL_RATIO
    }

    /// For `BackupCompleted.db_engine_version`.
    fn engine_version(&self) -> String;

    /// What every dump of the engine begins with.
    fn magic(&self) -> &'static [u8];

    /// What the dump's owner should know of it although it went well.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the dump that went well has in it, counted as it passed; None where nobody counted.
    fn tally(&mut self) -> Option<Tally> {
        None
    }

    /// Writes the whole dump; gives its length. It is an error, never a short success, when the
    /// dump ended before its end.
    ///
    /// # Errors
    /// [`DumpError`]
    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError>;
}

/// Where a driver may put what does not fit into memory: sealed, never in the clear.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The agent's own directory below `backup.spool_dir`.
    pub dir: PathBuf,
    /// Its limits.
    pub room: Room,
}

/// The engine's name for people.
fn name(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgresql => "PostgreSQL",
        Engine::Mysql => "MySQL",
        Engine::Mariadb => "MariaDB",
        Engine::Mongodb => "MongoDB",
        Engine::Redis => "Redis",
        Engine::Sqlite => "SQLite",
    }
}

/// Whether this version can dump the target.
///
/// # Errors
/// [`DumpError::UnknownEngine`], [`DumpError::Strategy`], [`DumpError::Target`].
pub fn supports(target: &TargetSpec) -> Result<(), DumpError> {
    match target.engine {
        Some(Engine::Sqlite) => sqlite::supports(target),
        Some(Engine::Postgresql) => postgres::supports(target),
        Some(Engine::Mysql | Engine::Mariadb | Engine::Mongodb | Engine::Redis) => place::check(target),
        None => Err(DumpError::UnknownEngine { target: target.id.to_string() }),
    }
}

/// The target's driver, with what it needs found.
///
/// # Errors
/// [`DumpError`]
pub fn open(
    target: &TargetSpec,
    host: &Host,
    scratch: Scratch,
    cancel: &Cancel,
) -> Result<Box<dyn Driver>, DumpError> {
    supports(target)?;
    if target.engine == Some(Engine::Sqlite) {
        return Ok(Box::new(sqlite::Sqlite::open(target, scratch, cancel)?));
    }
    let ground = Ground::of(target, host, cancel)?;
    Ok(match target.engine {
        Some(Engine::Sqlite) | None => {
            return Err(DumpError::UnknownEngine { target: target.id.to_string() });
        }
        Some(Engine::Postgresql) => Box::new(postgres::Postgres::open(target, ground, cancel)?),
        Some(engine @ (Engine::Mysql | Engine::Mariadb)) => {
            Box::new(mysql::Mysql::open(target, engine, ground, &scratch, cancel)?)
        }
        Some(Engine::Mongodb) => Box::new(mongodb::Mongodb::open(target, ground, &scratch, cancel)?),
        Some(Engine::Redis) => Box::new(redis::Redis::open(target, ground, cancel)?),
    })
}
