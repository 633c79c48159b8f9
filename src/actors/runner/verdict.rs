//! How a run ended, before its post-hooks: what it is told as from then on, whatever stops them.

use super::Runner;
use super::table::{Run, Running, Stop, Trail};
use crate::backup::{Job, Progress};
use crate::model::{RunId, RunOrder, RunOutcome};
use crate::process::{Cancel, CancelOnDrop};
use crate::store::Change;
use actix::prelude::*;
use std::time::Duration;
use tokio::time::Instant;

impl Runner {
    /// The run knows its end, and has post-hooks yet: they begin once the end is on disk.
    pub(super) fn judged(&mut self, id: &RunId, attempt: u64, outcome: RunOutcome, ctx: &mut Context<Self>) {
        if let Some(trail) = self.table.trails.iter().find(|trail| trail.running.attempt == attempt) {
            // Its result was told without waiting for it.
            return trail.running.progress.verdict().keep();
        }
        let current = self.table.get(id).and_then(Run::running).filter(|running| running.attempt == attempt);
        let Some(progress) = current.map(|running| running.progress.clone()) else { return };
        // What is to begin again has no end to keep.
        let Some(outcome) = self.judge(id, outcome) else { return progress.verdict().keep() };
        let Some(run) = self.table.get(id) else { return };
        if let Some(running) = run.running() {
            running.outcome = Some(outcome);
        }
        let Some(phase) = run.phase() else { return };
        let put = Change::PutRun(Box::new(run.record(phase)));
        let (doors, id) = (self.doors.clone(), id.clone());
        let keeping = async move {
            // Tried once: later it could undo the result that follows.
            let stored = doors.commit_now(put).await;
            if let Err(error) = &stored {
                tracing::warn!(run_id = %id, %error, "the end of a run could not be stored before its post-hooks: an agent that is killed in them begins the run again");
            }
            progress.verdict().keep();
            (id, stored.is_ok())
        };
        ctx.spawn(keeping.into_actor(self).map(move |(id, stored), act, _| {
            let running = act.table.get(&id).and_then(Run::running);
            if let Some(running) = running.filter(|running| running.attempt == attempt) {
                running.outcome_kept = stored;
            }
        }));
    }

    /// What the run is told as, given why it was told to stop; None where it begins again with the next life.
    pub(super) fn judge(&mut self, id: &RunId, outcome: RunOutcome) -> Option<RunOutcome> {
        let run = self.table.get(id)?;
        let (stop, job_id) = (run.stop, run.order.job_id.clone());
        let step = run.running()?.progress.now().0.name();
        let outcome = match (stop, outcome) {
            // What was stored is stored, whoever wanted to stop it a moment ago.
            (_, RunOutcome::Completed(completed)) => RunOutcome::Completed(completed),
            (Some(Stop::Quitting), _) => return None,
            (Some(Stop::Cancelled), _) => RunOutcome::Cancelled,
            (Some(Stop::TimedOut(limit)), _) => {
                RunOutcome::Failed { error: timeout_text(limit, &format!(" and was stopped while {step}")) }
            }
            (None, RunOutcome::Cancelled) => RunOutcome::Failed { error: "the run was stopped".into() },
            (None, failed @ RunOutcome::Failed { .. }) => failed,
        };
        if let RunOutcome::Completed(completed) = &outcome {
            self.hold_against_last(&job_id, id, completed);
        }
        Some(outcome)
    }

    /// An earlier life knew how the run ended, and was killed in its post-hooks: that is told.
    pub(super) fn end_of_earlier_life(&mut self, id: &RunId, outcome: RunOutcome, ctx: &mut Context<Self>) {
        match &outcome {
            RunOutcome::Completed(completed) => {
                let took = Duration::from_millis(completed.duration_ms);
                self.finish(id, outcome, Some(took), ctx);
            }
            RunOutcome::Failed { .. } | RunOutcome::Cancelled => self.finish(id, outcome, None, ctx),
        }
    }

    /// A run that an earlier life began, and this one only tells: its post-hooks always run, if need be once more. It is
    /// told at the same time, so that a hook which ends the agent does not do so for ever.
    pub(super) fn run_hooks_left(&mut self, order: RunOrder, outcome: RunOutcome, ctx: &mut Context<Self>) {
        let (plan, id) = (self.plan(), order.run_id.clone());
        let parts = plan.job(&order.job_id).and_then(|job| Some((job, plan.target(&job.target_id)?)));
        let Some((job, target)) = parts.filter(|(job, _)| !job.post_hooks.is_empty()) else { return };
        tracing::info!(run_id = %id, job_id = %job.id, "the post-hooks of a run that was interrupted run");
        let attempt = self.table.next_attempt();
        let (cancel, progress) = (Cancel::new(), Progress::new());
        progress.info("the agent was interrupted before the post-hooks had ended: they run now", Vec::new());
        progress.verdict().resume(outcome);
        let running = Running {
            target: target.id.clone(),
            attempt,
            cancel: CancelOnDrop(cancel.clone()),
            progress: progress.clone(),
            told: None,
            since: Instant::now(),
            timer: None,
            outcome: None,
            outcome_kept: false,
            left_out: 0,
        };
        self.table.trails.push(Trail { order: order.clone(), running });
        let job = Job { order, job: job.clone(), target: target.clone() };
        self.begin_work(job, attempt, progress, cancel, ctx);
        self.bound_trail(&id, attempt, ctx);
    }

    /// A stop that comes in the post-hooks changes nothing of the result: it is only told.
    pub(super) fn tell_late_stop(&mut self, id: &RunId, why: Stop) {
        let what = match why {
            Stop::Cancelled => "the run was cancelled in its post-hooks".to_owned(),
            Stop::TimedOut(limit) => {
                format!("the run's timeout of {} s ended in its post-hooks", limit.as_secs())
            }
            // It is told by what the hooks say.
            Stop::Quitting => return,
        };
        let Some(running) = self.table.get(id).and_then(Run::running) else { return };
        let rest = match &running.outcome {
            Some(RunOutcome::Completed(_)) => "they are stopped, and the stored backup counts",
            Some(RunOutcome::Failed { .. } | RunOutcome::Cancelled) => {
                "they run to their end, and the run ends as it had before them"
            }
            None => return,
        };
        running.progress.warn(&format!("{what}: {rest}"), Vec::new());
    }
}

/// `how` follows the limit: what the run did then.
pub(super) fn timeout_text(limit: Duration, how: &str) -> String {
    format!(
        "the run did not end within its timeout of {} s{how}: raise the job's timeout_sec if it needs longer",
        limit.as_secs()
    )
}

/// What is left of a run's limit. Time goes on while the agent is away; a clock that went backwards gives no more
/// than all of it.
pub(super) fn time_left(run: &Run, limit: Duration, now_ms: u64) -> Duration {
    let gone_ms = run.started_ms.map_or(0, |started_ms| now_ms.saturating_sub(started_ms));
    limit.saturating_sub(Duration::from_millis(gone_ms))
}

/// Why a run that was interrupted must not begin again; None while it has time.
pub(super) fn out_of_time(run: &Run, limit: Option<Duration>, now_ms: u64) -> Option<String> {
    let limit = limit.filter(|limit| time_left(run, *limit, now_ms).is_zero())?;
    Some(timeout_text(limit, ", during which the agent was interrupted"))
}
