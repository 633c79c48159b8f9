//! Why a database could not be dumped.

use crate::backup::spool::SpoolError;
use std::io;
use std::path::PathBuf;

/// A dump's failure. The texts go to the server: no secret is in them.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The run was told to stop.
    #[error("the run was stopped")]
    Cancelled,
    /// The engine is known, and nothing dumps it.
    #[error("target \"{target}\" is a {engine} database: this version backs up SQLite only")]
    NoDriver {
        /// Its id.
        target: String,
        /// Its engine.
        engine: &'static str,
    },
    /// The engine is not known.
    #[error(
        "target \"{target}\" is of a database type that this agent does not know: update the agent, or correct the target"
    )]
    UnknownEngine {
        /// Its id.
        target: String,
    },
    /// The engine cannot be reached that way.
    #[error("target \"{target}\": {reason}")]
    Strategy {
        /// Its id.
        target: String,
        /// And what to do.
        reason: &'static str,
    },
    /// A database file cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The stream does not begin as the engine's dumps do.
    #[error("the dump of target \"{target}\" does not begin like one of {engine}: nothing was stored")]
    Magic {
        /// Its id.
        target: String,
        /// Of the driver.
        engine: String,
    },
    /// There is no room for what the driver must put aside.
    #[error(transparent)]
    Scratch(#[from] SpoolError),
    /// The dump could not be handed on: the packing thread ended, and has the reason.
    #[error("the dump could not be handed on: {0}")]
    Output(io::Error),
}
