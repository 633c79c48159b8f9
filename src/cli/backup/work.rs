//! The run itself: the daemon's own pipeline, a bar instead of a control plane.

use super::super::opening::Target;
use super::super::progress::Progress as Bar;
use super::place::Place;
use super::{Args, CliError, failed, warn_of};
use crate::actors::runner::run_options;
use crate::backup::{Job, Options, Progress, RunError, execute_to_file, execute_to_url, hooks, on_thread};
use crate::model::{
    Completed, Dek, EventLevel, JobId, JobSpec, RunOrder, Secret, SysExit, TargetSpec, unix_ms,
};
use crate::process::{Cancel, CancelOnDrop};
use crate::settings::RunSettings;
use crate::spool;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(200);

/// The bar counts percent.
const PARTS: u64 = 100;

/// What is to be done.
pub struct Work<'a> {
    pub args: &'a Args,
    pub target: TargetSpec,
    pub settings: RunSettings,
    pub key: Dek,
    pub to: Destination,
}

/// Where the object goes.
pub enum Destination {
    Store(Secret),
    Stdout,
    File(PathBuf),
}

/// How it ended badly.
pub struct Ended {
    pub error: CliError,
    /// The store was given all of the object, and its word did not come.
    pub may_be_stored: bool,
}

impl Work<'_> {
    /// Does it, and gives what was stored.
    ///
    /// # Errors
    /// With the exit code of each.
    pub fn run(self) -> Result<Completed, Ended> {
        let runtime = actix_rt::Runtime::new().map_err(|error| Ended {
            error: CliError::new(SysExit::Internal, format_args!("no runtime: {error}")),
            may_be_stored: false,
        })?;
        let cancel = Cancel::new();
        let _stop = CancelOnDrop(cancel.clone());
        let progress = Progress::new();
        let bar = if self.args.quiet { Bar::hidden() } else { Bar::parts(PARTS) };
        runtime.block_on(async {
            let running = self.go(&progress, &cancel);
            tokio::pin!(running);
            let stopped = stop_asked(self.args.timeout);
            tokio::pin!(stopped);
            let mut why = None;
            loop {
                tokio::select! {
                    ended = &mut running => {
                        tell(&progress);
                        return ended.map_err(|error| Ended {
                            error: self.ended(&error, why, &progress),
                            may_be_stored: matches!(self.to, Destination::Store(_)) && progress.is_all_sent(),
                        });
                    }
                    asked = &mut stopped, if why.is_none() => {
                        why = Some(asked);
                        cancel.cancel();
                    }
                    () = tokio::time::sleep(LOOK) => {
                        bar.set(progress.now().1.into());
                        tell(&progress);
                    }
                }
            }
        })
    }

    fn ended(&self, error: &RunError, why: Option<Stop>, progress: &Progress) -> CliError {
        match (error, why) {
            (RunError::Cancelled, Some(Stop::Timeout(seconds))) => CliError::new(
                SysExit::Unavailable,
                format_args!("target \"{}\": not done within --timeout {seconds} s", self.target.id),
            ),
            (error, _) => failed(&self.target, error, progress),
        }
    }

    async fn go(&self, progress: &Progress, cancel: &Cancel) -> Result<Completed, RunError> {
        let job = self.job();
        let (options, _place) = self.options()?;
        match &self.to {
            Destination::Store(_) => execute_to_url(&job, &options, progress, cancel).await,
            Destination::Stdout => self.to_stdout(&job, &options, progress, cancel).await,
            Destination::File(out) => {
                execute_to_file(&job, &options, out, self.args.force, progress, cancel).await
            }
        }
    }

    /// Into a file of the spool's directory, and only when that is whole, out.
    async fn to_stdout(
        &self,
        job: &Job,
        options: &Options,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<Completed, RunError> {
        let out = Target::create(Path::new("-"), false);
        let mut out = out.map_err(|error| RunError::Stdout(io::Error::other(error.to_string())))?;
        let whole = options.spool_dir.join("object");
        let completed = execute_to_file(job, options, &whole, false, progress, cancel).await?;
        let mut object = File::open(&whole).map_err(unusable(&whole))?;
        // On a thread: who reads it may stand still, and this must still hear that it is to stop.
        let copying = on_thread("copy", move || io::copy(&mut object, &mut out))?;
        tokio::select! {
            copied = copying => {
                let died = |_| RunError::Internal("the copying thread ended without a result".into());
                copied.map_err(died)?.map_err(RunError::Stdout)?;
                Ok(completed)
            }
            () = cancel.cancelled() => Err(RunError::Cancelled),
        }
    }

    fn job(&self) -> Job {
        let id = JobId::from(self.target.id.as_str());
        let put_url = match &self.to {
            Destination::Store(url) => url.clone(),
            Destination::Stdout | Destination::File(_) => Secret::default(),
        };
        Job {
            order: RunOrder {
                run_id: format!("backup-{}-{}", std::process::id(), unix_ms()).into(),
                job_id: id.clone(),
                manual: true,
                put_url,
                expires_at_ms: 0,
                multipart: None,
                s3_key: String::new(),
                dek: self.key.clone(),
            },
            job: JobSpec {
                id,
                target_id: self.target.id.clone(),
                compression: Some(self.args.compression.into()),
                pre_hooks: Vec::new(),
                post_hooks: Vec::new(),
                timeout: None,
            },
            target: self.target.clone(),
        }
    }

    /// As the daemon's runs; but its spool is in a place of its own, gone with it.
    fn options(&self) -> Result<(Options, Place), RunError> {
        let mut options = run_options(&self.settings, hooks::Options::default());
        if let Destination::File(out) = &self.to {
            // Beside the output, so that it needs only a new name at the end.
            let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty());
            options.spool_dir = dir.unwrap_or(Path::new(".")).to_owned();
        }
        let place = Place::create(&options.spool_dir).map_err(unusable(&options.spool_dir))?;
        options.spool_dir = place.path().to_owned();
        Ok((options, place))
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |cause| RunError::from(spool::SpoolError::Io { path, cause })
}

/// Why a backup is stopped.
#[derive(Clone, Copy)]
enum Stop {
    Signal,
    Timeout(u64),
}

/// SIGINT, SIGTERM or the end of its time.
async fn stop_asked(timeout: Option<u64>) -> Stop {
    let asked = async |kind| match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        // Then the signal ends this process as it always does.
        Err(_) => std::future::pending().await,
    };
    let over = async {
        match timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = asked(SignalKind::interrupt()) => Stop::Signal,
        () = asked(SignalKind::terminate()) => Stop::Signal,
        () = asked(SignalKind::hangup()) => Stop::Signal,
        () = over => Stop::Timeout(timeout.unwrap_or_default()),
    }
}

/// What went wrong on the way without ending the run.
fn tell(progress: &Progress) {
    for event in progress.take_events() {
        match event.level {
            EventLevel::Info => {}
            EventLevel::Warn => {
                let fields: Vec<_> =
                    event.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let fields =
                    if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
                warn_of(&format!("{}{fields}", event.message));
            }
        }
    }
}
