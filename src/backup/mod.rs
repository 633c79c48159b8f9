//! One run: dump, compress, seal, spool, upload, verify.
//!
//! ```text
//! thread run-read          thread run-pack, zstd's workers        the run's own thread
//! driver -> magic check -> compress -> seal -> hash -> spool  ->  PUT, retried from the spool
//!                                                             ->  every frame opened again -> outcome
//! ```
//!
//! Between the two threads a few buffers go round (`pipe`); nothing grows with the database. Only
//! ciphertext touches the disk. Nothing here knows of the control plane's connection: a run goes on without it.

pub mod cancel;
mod deadline;
pub mod drivers;
mod dump;
mod error;
mod pack;
mod pipe;
mod progress;
pub mod spool;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;
mod thread;
pub mod upload;
mod verify;

pub use cancel::{Cancel, CancelOnDrop};
pub use deadline::{UNDATED_LIFE, expiry_text, upload_deadline_ms};
pub use dump::Dumped;
pub use error::RunError;
pub use pack::Packed;
pub use pipe::Sink;
pub use progress::Progress;
pub use spool::Room;

use crate::model::{Completed, Compression, Dek, JobSpec, RunOrder, RunOutcome, TargetSpec};
use pack::Packing;
use spool::Spool;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A run's whole assignment.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the server ordered.
    pub order: RunOrder,
    /// The job it belongs to.
    pub job: JobSpec,
    /// The database.
    pub target: TargetSpec,
}

/// What the host's owner says about every run.
#[derive(Clone, Debug)]
pub struct Options {
    /// `backup.spool_dir`
    pub spool_dir: PathBuf,
    /// `backup.zstd_level`
    pub zstd_level: i32,
    /// `backup.threads`
    pub threads: u32,
    /// Limits of the spool's file system.
    pub room: Room,
    /// How objects go up.
    pub upload: upload::Options,
}

/// Whether this agent would take the job on at all, before anything is stored or started.
///
/// # Errors
/// [`RunError::HooksDisabled`], [`RunError::UnknownCompression`], [`RunError::Dump`].
pub fn acceptable(job: &JobSpec, target: &TargetSpec) -> Result<(), RunError> {
    if !job.pre_hooks.is_empty() || !job.post_hooks.is_empty() {
        return Err(RunError::HooksDisabled);
    }
    compression(job)?;
    Ok(drivers::supports(target)?)
}

/// One run from its beginning to its end. Its spool is gone when this returns.
///
/// Needs a tokio runtime with a `LocalSet` (awc's sockets live on one thread): one of its own, so that a
/// busy run is felt by nobody else.
pub async fn execute(job: &Job, options: &Options, progress: &Progress, cancel: &Cancel) -> RunOutcome {
    let start = Instant::now();
    match run(job, options, progress, cancel, start).await {
        Ok(completed) => RunOutcome::Completed(completed),
        Err(_) if cancel.is_cancelled() => RunOutcome::Cancelled,
        Err(error) => RunOutcome::Failed { error: error.to_string() },
    }
}

async fn run(
    job: &Job,
    options: &Options,
    progress: &Progress,
    cancel: &Cancel,
    start: Instant,
) -> Result<Completed, RunError> {
    acceptable(&job.job, &job.target)?;
    let key = job.order.dek.clone();
    if key.plain().is_none() {
        return Err(RunError::WrappedKey { len: key.as_received().len() });
    }
    let put = upload::Put::new(&job.order, &options.upload)?;
    let compression = compression(&job.job)?;
    progress.dumping(0, 1);
    let spool = Arc::new(Spool::create(&options.spool_dir, &job.order.run_id)?);
    let stored = async {
        let packing = Packing {
            compression,
            zstd_level: options.zstd_level,
            threads: options.threads,
            key: key.clone(),
            room: options.room.clone(),
        };
        let scratch = drivers::Scratch { dir: options.spool_dir.clone(), room: options.room.clone() };
        let dumped = dump::dump(&job.target, packing, scratch, &spool, progress, cancel).await?;
        tracing::info!(
            run_id = %job.order.run_id,
            plain_bytes = dumped.plain_bytes,
            size_bytes = dumped.packed.size_bytes,
            elapsed_ms = millis(start.elapsed()),
            "database dumped and sealed, uploading"
        );
        store(put, &dumped, &spool, &key, compression, progress, cancel).await?;
        Ok::<_, RunError>(dumped)
    };
    let stored = stored.await;
    // Now, even if a thread that was left behind still holds the other end.
    spool.discard();
    let dumped = stored?;
    let duration_ms = millis(start.elapsed());
    tracing::info!(
        run_id = %job.order.run_id,
        job_id = %job.job.id,
        plain_bytes = dumped.plain_bytes,
        size_bytes = dumped.packed.size_bytes,
        duration_ms,
        "backup stored"
    );
    Ok(Completed {
        size_bytes: dumped.packed.size_bytes,
        sha256: data_encoding::HEXLOWER.encode(&dumped.packed.sha256),
        duration_ms,
        compression,
        engine_version: dumped.engine_version,
    })
}

/// Uploads the spool, and opens every frame of it again meanwhile: what cannot be opened is no backup.
async fn store(
    put: upload::Put,
    dumped: &Dumped,
    spool: &Arc<Spool>,
    key: &Dek,
    compression: Compression,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<(), RunError> {
    let expected = verify::Expected {
        size_bytes: dumped.packed.size_bytes,
        plain_bytes: dumped.plain_bytes,
        compression,
    };
    let opened = verify::verify_spool(spool, key, expected, cancel)?;
    let uploaded = put.send(spool, &dumped.packed, progress, cancel);
    let uploaded = tokio::select! {
        uploaded = uploaded => uploaded,
        () = cancel.cancelled() => return Err(RunError::Cancelled),
    };
    uploaded?;
    progress.verifying();
    tokio::select! {
        opened = opened => opened,
        () = cancel.cancelled() => Err(RunError::Cancelled),
    }
}

fn compression(job: &JobSpec) -> Result<Compression, RunError> {
    job.compression.ok_or_else(|| RunError::UnknownCompression { job: job.id.to_string() })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
