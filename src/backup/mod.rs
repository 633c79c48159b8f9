//! One run: hooks, dump, compress, seal, spool, upload, verify, hooks.
//!
//! ```text
//! thread run-read          thread run-pack, zstd's workers        the run's own thread
//! driver -> magic check -> compress -> seal -> hash -> spool  ->  PUT or parts, retried from the spool
//!                                                             ->  every frame opened again -> outcome
//! ```
//!
//! Where the server offers an upload in parts, they go up while they are made, each opened again before it is sent,
//! and nothing is spooled (`store`, `upload::parts`).
//!
//! Between the two threads a few buffers go round (`pipe`); nothing grows with the database. Only
//! ciphertext touches the disk. Nothing here knows of the control plane's connection: a run goes on without it.

mod deadline;
mod dump;
mod dumped;
mod error;
mod events;
pub mod hooks;
mod job;
mod keep;
mod ledger;
mod outlet;
mod pack;
mod pipe;
mod progress;
mod rate;
mod secrets;
mod store;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;
mod thread;
mod tuning;
pub mod upload;
mod urls;
mod verdict;
mod verify;

pub use deadline::{UNDATED_LIFE, expiry_text, upload_deadline_ms};
pub use dumped::{Dumped, Packed};
pub use error::RunError;
pub use job::Job;
pub use progress::Progress;
pub use rate::Rate;
pub use thread::on_thread;
pub use urls::{FreshUrls, UrlDesk, UrlsWanted};
pub use verdict::Verdict;

use crate::drivers;
use crate::model::{Completed, Compression, JobSpec, RunId, RunOutcome, SpoolUse, TargetSpec};
use crate::process::Cancel;
use crate::spool::{self, Room, Spool};
use outlet::Outlet;
use pack::Packing;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use upload::parts;

/// What the host's owner says about every run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where runs put what they must put aside: a directory of their agent's own, below `backup.spool_dir`.
    pub spool_dir: PathBuf,
    /// `backup.spool`
    pub spool: SpoolUse,
    /// `backup.zstd_level`
    pub zstd_level: i32,
    /// `backup.gzip_level`
    pub gzip_level: u32,
    /// `backup.threads`
    pub threads: u32,
    /// Limits of the spool's file system.
    pub room: Room,
    /// Where dump tools are and how they are treated.
    pub host: drivers::Host,
    /// `backup.max_read_bytes_per_sec`: of what the databases give, all runs together.
    pub read_rate: Rate,
    /// How objects go up.
    pub upload: upload::Options,
    /// What the server may run here.
    pub hooks: hooks::Options,
}

/// Removes what runs of an earlier life left in the agent's own directory, but for whole spools of the runs in `keep`. Only
/// when no run is going on; gives how many files and directories there were.
///
/// # Errors
/// [`spool::SpoolError`], after having tried everything.
pub fn remove_leftovers(spool_dir: &std::path::Path, keep: &[RunId]) -> Result<usize, spool::SpoolError> {
    let spools = spool::remove_stale(spool_dir, keep);
    let private = drivers::private::remove_stale(spool_dir);
    Ok(spools? + private?)
}

/// Whether this agent would take the job on at all, before anything is stored or started.
///
/// # Errors
/// [`RunError::HooksDisabled`], [`RunError::HooksRefused`], [`RunError::UnknownCompression`], [`RunError::Dump`].
pub fn acceptable(job: &JobSpec, target: &TargetSpec, hooks: &hooks::Options) -> Result<(), RunError> {
    hooks::check(job, hooks)?;
    compression(job)?;
    Ok(drivers::supports(target)?)
}

/// One run from its beginning to its end. Its spool is gone when this returns; but when the agent ends, a whole one
/// stays, and the next life goes on with its upload.
///
/// Before post-hooks begin, `progress` has the outcome ([`Verdict`]). Where it has it from the start, an earlier life was
/// interrupted in them, and nothing but they are run.
///
/// Needs a tokio runtime of its own, so that a busy run is felt by nobody else.
pub async fn execute(job: &Job, options: &Options, progress: &Progress, cancel: &Cancel) -> RunOutcome {
    let start = Instant::now();
    let hidden = secrets::hide(job, progress, cancel).await;
    let mut hooks = hooks::Hooks::new(job, &options.hooks, progress, cancel);
    if let Some(outcome) = progress.verdict().known() {
        hooks.after(&outcome).await;
        return outcome;
    }
    let done = match hidden {
        Ok(()) => run(job, options, &mut hooks, progress, cancel, start).await,
        Err(error) => {
            drop_begun(job, options, cancel).await;
            Err(error)
        }
    };
    let outcome = match done {
        Ok(completed) => RunOutcome::Completed(completed),
        Err(_) if cancel.is_cancelled() => RunOutcome::Cancelled,
        Err(error) => RunOutcome::Failed { error: progress.mask().text(&error.to_string()) },
    };
    // What the end of the agent stopped begins again: that is no end to keep.
    let begins_again = cancel.is_interrupted() && outcome == RunOutcome::Cancelled;
    if hooks.has_after() && !begins_again {
        progress.verdict().reach(outcome.clone()).await;
    }
    hooks.after(&outcome).await;
    outcome
}

async fn run(
    job: &Job,
    options: &Options,
    hooks: &mut hooks::Hooks<'_>,
    progress: &Progress,
    cancel: &Cancel,
    start: Instant,
) -> Result<Completed, RunError> {
    let way = match way(job, options, progress) {
        Ok(way) => way,
        Err(error) => {
            drop_begun(job, options, cancel).await;
            return Err(error);
        }
    };
    let compression = compression(&job.job)?;
    let dumped = store::Run { job, options, compression, progress, cancel }.go(way, hooks).await?;
    let duration_ms = millis(start.elapsed());
    tracing::info!(
        run_id = %job.order.run_id,
        job_id = %job.job.id,
        plain_bytes = dumped.plain_bytes,
        size_bytes = dumped.packed.size_bytes,
        duration_ms,
        "backup stored"
    );
    progress.info("backup stored", figures(&dumped, start));
    Ok(completed(&dumped, compression, duration_ms))
}

/// A run that ends before its dump: what an earlier life left of it, here and at the store, is of no use any more,
/// unless it begins again.
async fn drop_begun(job: &Job, options: &Options, cancel: &Cancel) {
    if cancel.is_interrupted() {
        return;
    }
    spool::remove_of(&options.spool_dir, &job.order.run_id);
    let cancelled = cancel.is_cancelled();
    let limit = if cancelled { parts::ABORT_LIMIT_CANCELLED } else { parts::ABORT_LIMIT_FAILED };
    parts::give_up(&job.order, &options.upload, limit).await;
}

/// How the object will go up, where the run can begin at all.
fn way(job: &Job, options: &Options, progress: &Progress) -> Result<store::Way, RunError> {
    acceptable(&job.job, &job.target, &options.hooks)?;
    let key = &job.order.dek;
    if key.plain().is_none() {
        return Err(RunError::WrappedKey { len: key.as_received().len() });
    }
    Ok(store::Way::new(job, options, progress)?)
}

/// The same dump, sealed and opened again, but to a file of this host instead of a store: no server, no hooks.
///
/// The file appears under its name only when it is whole; one that is there is only replaced with `replace`. Until
/// then, and where it ends otherwise, a spool lies in `options.spool_dir`, which must be on the file's file system.
///
/// # Errors
/// [`RunError`]; [`RunError::Exists`] where the name was taken meanwhile.
pub async fn execute_to_file(
    job: &Job,
    options: &Options,
    file: &std::path::Path,
    replace: bool,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Completed, RunError> {
    let start = Instant::now();
    secrets::hide(job, progress, cancel).await?;
    let compression = compression(&job.job)?;
    drivers::supports(&job.target)?;
    progress.dumping(0, 1);
    let spool = Arc::new(Spool::create(&options.spool_dir, &job.order.run_id)?);
    let outlet = Outlet::Spool(Arc::clone(&spool));
    let dumped = seal(job, options, compression, outlet, progress, cancel).await?;
    progress.verifying();
    let expected = verify::Expected {
        size_bytes: dumped.packed.size_bytes,
        plain_bytes: dumped.plain_bytes,
        compression,
        sha256: None,
    };
    verify::verify_spool(&spool, &job.order.dek, expected, cancel)?.await?;
    keep::keep_as(&spool, file, replace)?;
    Ok(completed(&dumped, compression, millis(start.elapsed())))
}

/// One run to a store that nobody ordered and nobody is told of: for `backup` on a command line.
///
/// # Errors
/// [`RunError`]
pub async fn execute_to_url(
    job: &Job,
    options: &Options,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Completed, RunError> {
    secrets::hide(job, progress, cancel).await?;
    let mut hooks = hooks::Hooks::new(job, &options.hooks, progress, cancel);
    run(job, options, &mut hooks, progress, cancel, Instant::now()).await
}

/// Dumps the job's target into the outlet.
async fn seal(
    job: &Job,
    options: &Options,
    compression: Compression,
    outlet: Outlet,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Dumped, RunError> {
    // It may have gone since the start, as when a disk was mounted over it. Whoever needs it, and has it not, says why.
    let _ = spool::make_dir(&options.spool_dir);
    let packing = Packing {
        compression,
        zstd_level: options.zstd_level,
        gzip_level: options.gzip_level,
        threads: options.threads,
        key: job.order.dek.clone(),
        room: options.room.clone(),
    };
    let scratch = drivers::Scratch { dir: options.spool_dir.clone(), room: options.room.clone() };
    let source = dump::Source {
        target: job.target.clone(),
        host: options.host.clone(),
        scratch,
        rate: options.read_rate.clone(),
    };
    dump::dump(source, packing, outlet, progress, cancel).await
}

fn completed(dumped: &Dumped, compression: Compression, duration_ms: u64) -> Completed {
    Completed {
        size_bytes: dumped.packed.size_bytes,
        sha256: data_encoding::HEXLOWER.encode(&dumped.packed.sha256),
        duration_ms,
        compression,
        engine_version: dumped.engine_version.clone(),
        manifest: dumped.manifest.clone(),
    }
}

fn compression(job: &JobSpec) -> Result<Compression, RunError> {
    job.compression.ok_or_else(|| RunError::UnknownCompression { job: job.id.to_string() })
}

/// For the server's log of the run.
fn figures(dumped: &Dumped, start: Instant) -> Vec<(&'static str, String)> {
    vec![
        ("plain_bytes", dumped.plain_bytes.to_string()),
        ("size_bytes", dumped.packed.size_bytes.to_string()),
        ("elapsed_ms", millis(start.elapsed()).to_string()),
    ]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
