//! The way from the database to the store: in parts while it is dumped, or by a spool.

use super::dumped::Dumped;
use super::error::RunError;
use super::hooks::Hooks;
use super::ledger::{Ledger, Stored};
use super::outlet::Outlet;
use super::thread::on_thread;
use super::upload::parts::{
    ABORT_LIMIT_CANCELLED, ABORT_LIMIT_FAILED, PATIENCE, PartSink, Parts, SinkOptions, memory_bytes,
};
use super::upload::{Put, UploadError};
use super::{Job, Options, Progress, seal, verify};
use crate::model::{Compression, SpoolUse};
use crate::process::{Cancel, CancelOnDrop};
use crate::spool::{self, Spool};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A stopped dump has told its tools so by then; the run has 2 s.
const STOP_GRACE: Duration = Duration::from_millis(1_200);

/// Uploads of one spool: a store that loses several loses the next one too.
const MAX_UPLOADS: u32 = 3;

/// The way of one run, checked before a byte is dumped.
pub enum Way {
    /// Parts, while they are made.
    Stream(Box<Parts>),
    /// Parts of a spool.
    SpoolParts(Box<Parts>),
    /// A spool in one piece.
    SpoolPut(Box<Put>),
}

impl Way {
    /// What the order offers and the host's owner wants.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn new(job: &Job, options: &Options, progress: &Progress) -> Result<Self, UploadError> {
        let parts = Parts::new(&job.order, &options.upload, progress)?.map(Box::new);
        match (options.spool, parts) {
            (SpoolUse::Auto | SpoolUse::Never, Some(parts)) => Ok(Self::Stream(parts)),
            (SpoolUse::Always, Some(parts)) => Ok(Self::SpoolParts(parts)),
            (SpoolUse::Never, None) => Err(UploadError::NoMultipart),
            (SpoolUse::Auto | SpoolUse::Always, None) => {
                Ok(Self::SpoolPut(Box::new(Put::new(&job.order, &options.upload)?)))
            }
        }
    }
}

/// What a run is done with.
pub struct Run<'a> {
    pub job: &'a Job,
    pub options: &'a Options,
    pub compression: Compression,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

impl Run<'_> {
    /// From the database to the verified object in the store.
    ///
    /// # Errors
    /// [`RunError`], with nothing left on the disk; but when the agent ends, a whole spool stays for its next life.
    pub async fn go(&self, way: Way, hooks: &mut Hooks<'_>) -> Result<Dumped, RunError> {
        match way {
            Way::Stream(parts) => {
                let done = self.streamed(&parts, hooks).await;
                if done.is_ok() || !self.cancel.is_interrupted() {
                    spool::remove_of(&self.options.spool_dir, &self.job.order.run_id);
                }
                self.give_up(&parts, done.is_err()).await;
                done
            }
            Way::SpoolParts(parts) => {
                let done = self.spooled(Some(&parts), None, hooks).await;
                self.give_up(&parts, done.is_err()).await;
                done
            }
            Way::SpoolPut(put) => self.spooled(None, Some(*put), hooks).await,
        }
    }

    /// The next life of the agent uses the same upload: it is only given up when the run is over.
    async fn give_up(&self, parts: &Parts, failed: bool) {
        if failed && !self.cancel.is_interrupted() {
            let cancelled = self.cancel.is_cancelled();
            parts.abort(if cancelled { ABORT_LIMIT_CANCELLED } else { ABORT_LIMIT_FAILED }).await;
        }
    }

    async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
        tokio::select! {
            done = work => done,
            () = self.cancel.cancelled() => Err(RunError::Cancelled),
        }
    }

    async fn streamed(&self, parts: &Parts, hooks: &mut Hooks<'_>) -> Result<Dumped, RunError> {
        let mut ledger = self.ledger()?;
        if let Some(dumped) = self.put_together(parts, &mut ledger).await? {
            return Ok(dumped);
        }
        spool::remove_of(&self.options.spool_dir, &self.job.order.run_id);
        hooks.before().await?;
        self.progress.dumping(0, 1);
        self.stream(parts, self.ledger()?).await
    }

    /// An earlier life was interrupted while the store put all parts together: it is asked once more. None where there
    /// is nothing of that, or where the store knows the upload no more.
    async fn put_together(&self, parts: &Parts, ledger: &mut Ledger) -> Result<Option<Dumped>, RunError> {
        let Some(dumped) = ledger.recover() else { return Ok(None) };
        let Some(stored) = ledger.all_streamed(&parts.upload_id()) else { return Ok(None) };
        let run_id = &self.job.order.run_id;
        tracing::info!(%run_id, parts = stored.len(), "every part was stored before the agent was interrupted: the store is asked again to put them together");
        match self.complete(parts, stored, dumped.packed.size_bytes).await {
            Ok(()) => Ok(Some(dumped)),
            Err(RunError::Cancelled) => Err(RunError::Cancelled),
            Err(error) => {
                tracing::warn!(%run_id, %error, "the parts of an earlier life are lost: the database is dumped again");
                let fields = vec![("error", error.to_string())];
                self.progress
                    .warn("the parts that were stored are lost: the database is dumped again", fields);
                Ok(None)
            }
        }
    }

    fn ledger(&self) -> Result<Ledger, RunError> {
        let (dir, run_id) = (&self.options.spool_dir, &self.job.order.run_id);
        Ledger::new(&spool::path_of(dir, run_id), run_id, &self.job.order.dek, &self.options.room)
    }

    async fn stream(&self, parts: &Parts, ledger: Ledger) -> Result<Dumped, RunError> {
        let (offered_bytes, numbers) = parts.offer();
        let (sink, items) = PartSink::new(SinkOptions {
            offered_bytes,
            numbers,
            memory_bytes: memory_bytes(self.compression, self.options.threads),
            key: self.job.order.dek.clone(),
            dir: self.options.spool_dir.clone(),
            room: self.options.room.clone(),
            // Who wants no spool has the dump wait.
            patience: (self.options.spool != SpoolUse::Never).then_some(PATIENCE),
        });
        // The dump's own switch: a store that refuses stops the database's tools at once.
        let stop = CancelOnDrop(Cancel::new());
        let outlet = Outlet::Parts(Arc::new(sink));
        let dumping = async {
            let dumped = seal(self.job, self.options, self.compression, outlet, self.progress, &stop.0).await;
            if dumped.is_ok() {
                self.progress.uploading(0, 1);
            }
            dumped
        };
        let sending = async {
            let sent = parts.send_all(items).await;
            if sent.is_err() {
                stop.0.cancel();
            }
            sent
        };
        let both = async { tokio::join!(dumping, sending) };
        tokio::pin!(both);
        let (dumped, stored) = tokio::select! {
            ended = &mut both => ended,
            () = self.cancel.cancelled() => {
                stop.0.cancel();
                let _ = timeout(STOP_GRACE, both).await;
                return Err(RunError::Cancelled);
            }
        };
        let stored = stored?;
        let dumped = dumped?;
        let stored = stored.ok_or_else(|| RunError::Internal("the dump's last part got lost".into()))?;
        self.dumped(&dumped);
        let (of, upload, all) = (dumped.clone(), parts.upload_id(), stored.clone());
        self.note(ledger, move |ledger| ledger.streamed(&of, &upload, &all)).await?;
        self.complete(parts, &stored, dumped.packed.size_bytes).await?;
        Ok(dumped)
    }

    async fn complete(&self, parts: &Parts, stored: &[Stored], size_bytes: u64) -> Result<(), RunError> {
        self.progress.verifying();
        self.or_cancelled(parts.complete(stored, size_bytes)).await
    }

    fn dumped(&self, dumped: &Dumped) {
        tracing::info!(
            run_id = %self.job.order.run_id,
            plain_bytes = dumped.plain_bytes,
            size_bytes = dumped.packed.size_bytes,
            "database dumped and sealed"
        );
        let mut fields = vec![
            ("plain_bytes", dumped.plain_bytes.to_string()),
            ("size_bytes", dumped.packed.size_bytes.to_string()),
        ];
        // Numbers only: what the tables are called is nobody's business but the database's owner's.
        if let Some(manifest) = &dumped.manifest {
            fields.push(("tables", manifest.tables.to_string()));
            fields.push(("rows", manifest.rows.to_string()));
        }
        self.progress.info("database dumped and sealed, uploading", fields);
    }

    async fn spooled(
        &self,
        parts: Option<&Parts>,
        put: Option<Put>,
        hooks: &mut Hooks<'_>,
    ) -> Result<Dumped, RunError> {
        let (dir, run_id) = (&self.options.spool_dir, &self.job.order.run_id);
        let mut ledger = self.ledger()?;
        let known = ledger.recover();
        let known =
            known.and_then(|dumped| Some((Spool::reopen(dir, run_id, dumped.packed.size_bytes)?, dumped)));
        let (spool, dumped, again) = match known {
            Some((spool, dumped)) => {
                tracing::info!(run_id = %run_id, size_bytes = dumped.packed.size_bytes, "the spool of an earlier life is whole: only the upload goes on");
                self.progress.info(
                    "only the upload goes on: the database was dumped before the agent was interrupted",
                    Vec::new(),
                );
                (Arc::new(spool), dumped, true)
            }
            None => {
                ledger.discard();
                // Parts of an object that is gone are none of the next one's.
                ledger = self.ledger()?;
                hooks.before().await?;
                self.progress.dumping(0, 1);
                let spool = Arc::new(Spool::create(dir, run_id)?);
                let outlet = Outlet::Spool(Arc::clone(&spool));
                let sealing =
                    seal(self.job, self.options, self.compression, outlet, self.progress, self.cancel);
                let dumped = sealing.await.inspect_err(|_| spool.discard())?;
                self.dumped(&dumped);
                let (held, of) = (Arc::clone(&spool), dumped.clone());
                let noted = self.note(ledger, move |ledger| ledger.finished(&held, &of)).await;
                ledger = noted.inspect_err(|_| {
                    spool.discard();
                    spool::remove_of(dir, run_id);
                })?;
                (spool, dumped, false)
            }
        };
        let done = self.upload(parts, put, &spool, &dumped, &mut ledger, again).await;
        if done.is_err() && self.cancel.is_interrupted() {
            spool.keep();
        } else {
            ledger.discard();
            // Now, even if a thread that was left behind still holds the other end.
            spool.discard();
        }
        done.map(|()| dumped)
    }

    /// Notes that the object is whole. Without that note a later life would dump again: no reason to fail.
    async fn note(
        &self,
        mut ledger: Ledger,
        write: impl FnOnce(&mut Ledger) -> Result<(), RunError> + Send + 'static,
    ) -> Result<Ledger, RunError> {
        let noting = on_thread("run-sync", move || {
            if let Err(error) = write(&mut ledger) {
                tracing::warn!(%error, "the finished dump could not be noted: after a restart the database would be dumped again");
            }
            ledger
        })?;
        let died = |_| RunError::Internal("its writing thread ended without a result".into());
        self.or_cancelled(async { noting.await.map_err(died) }).await
    }

    /// Uploads the spool, and opens every frame of it again meanwhile: what cannot be opened is no backup.
    async fn upload(
        &self,
        parts: Option<&Parts>,
        put: Option<Put>,
        spool: &Arc<Spool>,
        dumped: &Dumped,
        ledger: &mut Ledger,
        again: bool,
    ) -> Result<(), RunError> {
        let expected = verify::Expected {
            size_bytes: dumped.packed.size_bytes,
            plain_bytes: dumped.plain_bytes,
            compression: self.compression,
            sha256: again.then_some(dumped.packed.sha256),
        };
        self.progress.uploading(0, 1);
        let opened = verify::verify_spool(spool, &self.job.order.dek, expected, self.cancel)?;
        let opened = Box::pin(opened);
        let size_bytes = dumped.packed.size_bytes;
        if let Some(put) = put {
            self.or_cancelled(put.send(spool, &dumped.packed, self.progress)).await?;
            self.progress.verifying();
            return self.or_cancelled(opened).await;
        }
        let Some(parts) = parts else {
            return Err(RunError::Internal("the run has no way to the store".into()));
        };
        let mut opened = Some(opened);
        let mut uploads = 1;
        loop {
            let sent = async {
                let stored = self.or_cancelled(parts.send_spool(spool, size_bytes, ledger)).await?;
                // Before the store puts them together: an object that does not open must not appear.
                if let Some(opened) = opened.take() {
                    self.or_cancelled(opened).await?;
                }
                self.complete(parts, &stored, size_bytes).await
            };
            let lost = match sent.await {
                Err(RunError::Upload(lost)) if lost.is_lost_upload() && uploads < MAX_UPLOADS => lost,
                done => return done,
            };
            // The spool has all of it still.
            uploads += 1;
            tracing::warn!(run_id = %self.job.order.run_id, error = %lost, "the store has lost the upload: the spool goes up again, in another one");
            let fields = vec![("error", lost.to_string())];
            self.progress.warn("the store has lost the upload: the object goes up again", fields);
            self.or_cancelled(async { Ok(parts.begin_another(&lost).await?) }).await?;
        }
    }
}
