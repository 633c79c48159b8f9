//! Hooks: shell commands of the server's before and after a run, where the host's owner allows them.
//!
//! A pre-hook that fails fails the run before its dump. Post-hooks run whatever became of the run, and only warn.
//! Everything is bounded: how many, how long, how much of their output is kept.

mod shell;
#[cfg(test)]
mod tests;

use super::error::RunError;
use super::job::Job;
use super::progress::Progress;
use super::secrets::hide_again;
use super::thread::on_thread;
use crate::model::{JobSpec, RunOutcome};
use crate::process::Cancel;
use shell::{End, Ran};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Before a run, and as many after it.
pub const MAX_HOOKS: usize = 16;

/// Of one command. A longer one is a script, and belongs into a file of the host's.
pub const MAX_COMMAND_BYTES: usize = 4 * 1024;

/// Of one hook, where `hooks.timeout` says nothing else.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The most that `hooks.timeout` can be.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// All hooks of a run together.
const RUN_BUDGET: Duration = Duration::from_secs(30 * 60);

/// All post-hooks together when the agent ends: the process has 10 s for everything.
const BUDGET_AT_SHUTDOWN: Duration = Duration::from_millis(600);

/// Of the output, in the error that the server shows: its last lines, up to this.
const SHOWN_IN_ERROR_BYTES: usize = 300;

/// What a hook inherits of the agent's environment: where tools are, and how texts are written. Everything else
/// may be a secret of the agent's or of a target's.
const INHERITED: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"];

/// Where an agent without `PATH` looks for tools.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the host's owner says about hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `hooks.enabled`
    pub enabled: bool,
    /// `hooks.timeout`, of one hook; at most [`MAX_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: false, timeout: DEFAULT_TIMEOUT }
    }
}

/// Whether the job's hooks may run here.
///
/// # Errors
/// [`RunError::HooksDisabled`], [`RunError::HooksRefused`].
pub fn check(job: &JobSpec, options: &Options) -> Result<(), RunError> {
    if job.pre_hooks.is_empty() && job.post_hooks.is_empty() {
        return Ok(());
    }
    if !options.enabled {
        return Err(RunError::HooksDisabled);
    }
    for (when, hooks) in [(When::Pre, &job.pre_hooks), (When::Post, &job.post_hooks)] {
        let refused = |why: String| Err(RunError::HooksRefused { job: job.id.to_string(), why });
        if hooks.len() > MAX_HOOKS {
            return refused(format!("{} {}s, and {MAX_HOOKS} are allowed", hooks.len(), when.name()));
        }
        for (index, text) in hooks.iter().enumerate() {
            let number = index + 1;
            if text.len() > MAX_COMMAND_BYTES {
                let len = text.len();
                return refused(format!(
                    "a {} of {len} bytes (number {number}), and {MAX_COMMAND_BYTES} are allowed: put it into a script",
                    when.name()
                ));
            }
            if text.contains('\0') {
                return refused(format!("a {} with a zero byte (number {number})", when.name()));
            }
        }
    }
    Ok(())
}

/// Before or after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Pre,
    Post,
}

impl When {
    fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre-hook",
            Self::Post => "post-hook",
        }
    }
}

/// The hooks of one run.
pub struct Hooks<'a> {
    job: &'a Job,
    options: Options,
    progress: &'a Progress,
    cancel: &'a Cancel,
    used: Duration,
}

impl<'a> Hooks<'a> {
    /// Of that run.
    pub fn new(job: &'a Job, options: &Options, progress: &'a Progress, cancel: &'a Cancel) -> Self {
        Self { job, options: *options, progress, cancel, used: Duration::ZERO }
    }

    /// Runs the pre-hooks, one after the other.
    ///
    /// # Errors
    /// [`RunError::Hook`] with the first that failed, [`RunError::Cancelled`].
    pub async fn before(&mut self) -> Result<(), RunError> {
        let count = self.job.job.pre_hooks.len();
        // What undoes the pre-hooks must still have its time when they took long.
        let posts = u32::try_from(self.job.job.post_hooks.len()).unwrap_or(u32::MAX);
        let reserved = self.options.timeout.min(DEFAULT_TIMEOUT).saturating_mul(posts);
        let budget = RUN_BUDGET.saturating_sub(reserved);
        for (index, text) in self.job.job.pre_hooks.iter().enumerate() {
            let place = Place { when: When::Pre, number: index + 1, count };
            let limit = self.options.timeout.min(budget.saturating_sub(self.used));
            let cancel = self.cancel.clone();
            let ran = self.one(place, text, limit, None, move || cancel.is_cancelled()).await;
            if self.cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            if let Some(why) = self.judge(place, &ran, limit) {
                return Err(RunError::Hook(why));
            }
        }
        Ok(())
    }

    /// Whether there are post-hooks that may run here.
    pub fn has_after(&self) -> bool {
        !self.job.job.post_hooks.is_empty() && check(&self.job.job, &self.options).is_ok()
    }

    /// Runs the post-hooks, whatever became of the run. Their failures are told, and change nothing.
    ///
    /// A run that was told to stop still has them; a stop that comes once they run, after a run that was
    /// good, ends them. When the agent itself ends they have little time.
    pub async fn after(&mut self, outcome: &RunOutcome) {
        if !self.has_after() {
            return;
        }
        self.progress.post_hooks();
        let count = self.job.job.post_hooks.len();
        let stoppable = matches!(outcome, RunOutcome::Completed(_));
        let hurried = self.cancel.is_interrupted();
        let budget = if hurried { self.used + BUDGET_AT_SHUTDOWN } else { RUN_BUDGET };
        for (index, text) in self.job.job.post_hooks.iter().enumerate() {
            let place = Place { when: When::Post, number: index + 1, count };
            let cancel = self.cancel.clone();
            let stop = move || !hurried && (cancel.is_interrupted() || stoppable && cancel.is_cancelled());
            if stop() {
                let text = format!("{place} and those after it were not run: the run was stopped");
                tracing::warn!(run_id = %self.job.order.run_id, "{text}");
                return self.progress.warn(&text, Vec::new());
            }
            let limit = self.options.timeout.min(budget.saturating_sub(self.used));
            let ran = self.one(place, text, limit, Some(outcome), stop).await;
            // Nothing to do about it: it was told.
            let _ = self.judge(place, &ran, limit);
        }
    }

    async fn one(
        &mut self,
        place: Place,
        text: &str,
        limit: Duration,
        outcome: Option<&RunOutcome>,
        stop: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Ran> {
        if limit.is_zero() {
            let budget = RUN_BUDGET.as_secs() / 60;
            return Err(io::Error::other(format!("the hooks of this run used up their {budget} minutes")));
        }
        tracing::info!(run_id = %self.job.order.run_id, limit_s = limit.as_secs(), "{place} begins");
        let environment = self.environment(place, outcome);
        let text = text.to_owned();
        let mask = self.progress.mask();
        let running = on_thread("run-hook", move || shell::run(&text, &environment, mask, limit, &stop));
        let died = || io::Error::other("its thread ended without a result");
        let ran = running.map_err(|error| io::Error::other(error.to_string()))?.await.map_err(|_| died())?;
        // It may have written a new one, and shown it.
        hide_again(&self.job.target, self.progress).await;
        if let Ok(ran) = &ran {
            self.used += ran.took;
        }
        ran
    }

    /// Tells how a hook ended; gives the reason where it failed.
    fn judge(&self, place: Place, ran: &io::Result<Ran>, limit: Duration) -> Option<String> {
        let run_id = &self.job.order.run_id;
        let (why, mut fields) = match ran {
            Ok(ran) => {
                let output = match ran.lost_len {
                    0 => ran.output.clone(),
                    bytes => format!("({bytes} bytes before this were not kept)\n{}", ran.output),
                };
                let took = ("duration_ms", ran.took.as_millis().to_string());
                (failure(ran.end, limit), vec![took, ("output", output)])
            }
            Err(error) => (Some(format!("could not be run: {error}")), Vec::new()),
        };
        fields.push(("step", if place.when == When::Pre { "pre_hooks" } else { "post_hooks" }.to_owned()));
        let Some(why) = why else {
            tracing::info!(%run_id, "{place} ended well");
            self.progress.info(&format!("{place} ended well"), fields);
            return None;
        };
        tracing::warn!(%run_id, "{place} {why}");
        self.progress.warn(&format!("{place} {why}"), fields.clone());
        let said = fields.iter().find(|(name, _)| *name == "output").map(|(_, text)| last_words(text));
        let said = said.filter(|text| !text.is_empty()).map(|text| format!("; it said: {text}"));
        Some(format!("{place} {why}{}", said.unwrap_or_default()))
    }

    /// What a hook knows (documented in docs/backups.md).
    fn environment(&self, place: Place, outcome: Option<&RunOutcome>) -> Vec<(String, OsString)> {
        let Job { order, target, .. } = self.job;
        let mut variables: Vec<(String, OsString)> = INHERITED
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
            .collect();
        if !variables.iter().any(|(name, _)| name == "PATH") {
            variables.push(("PATH".to_owned(), DEFAULT_PATH.into()));
        }
        let mut put = |name: &str, value: &str| {
            // A zero byte ends a variable; nobody who means well sends one.
            variables.push((format!("BACKUPY_{name}"), value.replace('\0', "").into()));
        };
        put("JOB_ID", order.job_id.as_str());
        put("RUN_ID", order.run_id.as_str());
        put("TARGET_ID", target.id.as_str());
        put("HOOK", if place.when == When::Pre { "pre" } else { "post" });
        match outcome {
            None => {}
            Some(RunOutcome::Completed(completed)) => {
                put("STATUS", "success");
                put("SIZE_BYTES", &completed.size_bytes.to_string());
            }
            Some(RunOutcome::Failed { error }) => {
                put("STATUS", "failed");
                put("ERROR", error);
            }
            Some(RunOutcome::Cancelled) => {
                let interrupted = self.cancel.is_interrupted();
                put("STATUS", if interrupted { "interrupted" } else { "cancelled" });
            }
        }
        variables
    }
}

/// Which hook.
#[derive(Clone, Copy, Debug)]
struct Place {
    when: When,
    number: usize,
    count: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {}", self.when.name(), self.number, self.count)
    }
}

/// Why a hook failed; None where it did not.
fn failure(end: End, limit: Duration) -> Option<String> {
    match end {
        End::Exit(status) if status.success() => None,
        End::Exit(status) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("failed: it ended with exit code {code}"),
            (None, signal) => format!("failed: signal {} ended it", signal.unwrap_or_default()),
        }),
        End::TimedOut => Some(format!(
            "failed: it did not end within {} s and was killed; hooks.timeout on the agent's host sets the limit",
            limit.as_secs_f32()
        )),
        End::Stopped => Some("was stopped with its run".to_owned()),
    }
}

/// The end of an output, on one line.
fn last_words(output: &str) -> String {
    let line: String = output.trim().lines().map(str::trim).collect::<Vec<_>>().join(" | ");
    let from = line.ceil_char_boundary(line.len().saturating_sub(SHOWN_IN_ERROR_BYTES));
    line.get(from..).unwrap_or_default().to_owned()
}
