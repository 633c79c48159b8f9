//! The engines: how a database becomes a stream of bytes. One file an engine, one trait.

mod error;
mod sqlite;

pub use error::DumpError;

use super::cancel::Cancel;
use super::pipe::Sink;
use super::spool::Room;
use crate::model::{Engine, TargetSpec};
use std::path::PathBuf;

/// A database that can be dumped. It is made, used and dropped by the run's reading thread, so its
/// calls may block; each looks at `cancel` often enough to end within a second.
pub trait Driver {
    /// About how many bytes the dump will have, by the engine's own account.
    ///
    /// # Errors
    /// [`DumpError`]
    fn estimate(&mut self, cancel: &Cancel) -> Result<u64, DumpError>;

    /// For `BackupCompleted.db_engine_version`.
    fn engine_version(&self) -> String;

    /// What every dump of the engine begins with.
    fn magic(&self) -> &'static [u8];

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
    /// `backup.spool_dir`
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

/// Whether this version has a driver for the target.
///
/// # Errors
/// [`DumpError::NoDriver`], [`DumpError::UnknownEngine`], [`DumpError::Strategy`].
pub fn supports(target: &TargetSpec) -> Result<(), DumpError> {
    let id = || target.id.to_string();
    match target.engine {
        Some(Engine::Sqlite) => sqlite::supports(target),
        Some(
            engine @ (Engine::Postgresql | Engine::Mysql | Engine::Mariadb | Engine::Mongodb | Engine::Redis),
        ) => Err(DumpError::NoDriver { target: id(), engine: name(engine) }),
        None => Err(DumpError::UnknownEngine { target: id() }),
    }
}

/// The target's driver, with its database found and readable.
///
/// # Errors
/// [`DumpError`]
pub fn open(target: &TargetSpec, scratch: Scratch, cancel: &Cancel) -> Result<Box<dyn Driver>, DumpError> {
    supports(target)?;
    Ok(Box::new(sqlite::Sqlite::open(target, scratch, cancel)?))
}
