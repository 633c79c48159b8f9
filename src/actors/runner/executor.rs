//! Who does a run's work.

use crate::backup::{self, Cancel, CancelOnDrop, Job, Progress};
use crate::model::RunOutcome;
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Does runs. Behind a trait, so that the Runner's tests need no database.
pub trait Executor {
    /// Begins the run; the future is its end. Dropping the future stops the run, and so does `cancel`.
    fn run(&self, job: Job, progress: Progress, cancel: Cancel) -> LocalBoxFuture<'static, RunOutcome>;

    /// Removes what runs of an earlier life left behind. Called once, before the first run.
    fn clear_leftovers(&self);
}

/// Does each run on a thread of its own with a runtime of its own, so that nobody else, the heartbeats least of all,
/// feels a run that computes.
pub struct ThreadExecutor {
    options: Arc<backup::Options>,
}

impl ThreadExecutor {
    /// Every run with these options.
    pub fn new(options: backup::Options) -> Self {
        Self { options: Arc::new(options) }
    }
}

impl Executor for ThreadExecutor {
    fn run(&self, job: Job, progress: Progress, cancel: Cancel) -> LocalBoxFuture<'static, RunOutcome> {
        let options = Arc::clone(&self.options);
        let stop = CancelOnDrop(cancel.clone());
        let (done, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("run".into()).spawn(move || {
            let outcome = match actix_rt::Runtime::new() {
                Ok(runtime) => runtime.block_on(backup::execute(&job, &options, &progress, &cancel)),
                Err(error) => failed(&format!("no runtime could be started: {error}")),
            };
            // The Runner may have given the run up.
            let _ = done.send(outcome);
        });
        Box::pin(async move {
            let _stop = stop;
            if let Err(error) = thread {
                return failed(&format!("no thread could be started: {error}"));
            }
            // A thread that ends without a word panicked; its report stands in the log.
            ended.await.unwrap_or_else(|_| failed("its thread panicked; the agent's log has the place"))
        })
    }

    fn clear_leftovers(&self) {
        match backup::spool::remove_stale(&self.options.spool_dir) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "spools of interrupted runs removed"),
            Err(error) => tracing::warn!(%error, "spools of interrupted runs could not be removed"),
        }
    }
}

fn failed(what: &str) -> RunOutcome {
    RunOutcome::Failed { error: format!("the agent could not go on with the run: {what}") }
}
