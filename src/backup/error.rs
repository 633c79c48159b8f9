//! Why a run ended without an object. The texts go to the server and into logs: no secret is in them.

use super::upload::UploadError;
use crate::drivers::DumpError;
use crate::spool::SpoolError;
use std::io;

/// A run's failure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was told to stop.
    #[error("the run was stopped")]
    Cancelled,
    /// Protocol section 4, rule 8.
    #[error(
        "the key of this run is wrapped ({len} bytes) and no key provider is configured on this agent: the server must send the 32 bytes of the key itself"
    )]
    WrappedKey {
        /// Bytes that came.
        len: usize,
    },
    /// The server named an algorithm that this agent does not know.
    #[error("job \"{job}\" asks for a compression that this agent does not know: use zstd, gzip or none")]
    UnknownCompression {
        /// Its name.
        job: String,
    },
    /// Hooks are opt-in.
    #[error("hooks are disabled on this agent")]
    HooksDisabled,
    /// The job has hooks that this agent does not run.
    #[error("job \"{job}\" has {why}")]
    HooksRefused {
        /// Its name.
        job: String,
        /// What of them.
        why: String,
    },
    /// A pre-hook failed: nothing was dumped.
    #[error("{0}")]
    Hook(String),
    /// The database could not be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// Where the object should go, there is something.
    #[error("{0} exists")]
    Exists(String),
    /// What takes the object did not.
    #[error("standard output took not all of the object: {0}")]
    Stdout(io::Error),
    /// The spool could not be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The compressor gave up.
    #[error("{stage} failed: {cause}")]
    Pack {
        /// What was being done.
        stage: &'static str,
        /// What the library said.
        cause: io::Error,
    },
    /// The object did not reach the store.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// A defect of the agent, or a machine without room for a thread.
    #[error("the agent could not go on with the run: {0}")]
    Internal(String),
}
