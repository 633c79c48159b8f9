//! A run from its start to its result on disk.

use super::doors::Patience;
use super::measure;
use super::table::{Run, Running, Stage, Stop, Trail};
use super::verdict::{out_of_time, time_left};
use super::{LONGEST_TRAIL, PROGRESS_INTERVAL, Runner, STOP_GRACE};
use crate::actors::messages::Submit;
use crate::backup::{Job, Progress, expiry_text, upload_deadline_ms};
use crate::model::{RunId, RunOutcome, RunPhase};
use crate::process::{Cancel, CancelOnDrop};
use crate::store::Change;
use crate::wire::convert;
use actix::prelude::*;
use std::time::Duration;
use tokio::time::Instant;

impl Runner {
    /// Its turn has come: its start goes to the disk.
    pub(super) fn begin(&mut self, id: &RunId, ctx: &mut Context<Self>) {
        let (now_ms, plan) = (self.now_ms(), self.plan());
        let Some(run) = self.table.get(id) else { return };
        if let Some(error) = too_late(run, now_ms) {
            return self.finish(id, RunOutcome::Failed { error }, None, ctx);
        }
        let Some(job) = plan.job(&run.order.job_id) else {
            let error = format!(
                "job \"{}\" is no longer in the agent's configuration: it was removed {}",
                run.order.job_id,
                before(run)
            );
            return self.finish(id, RunOutcome::Failed { error }, None, ctx);
        };
        if let Some(error) = out_of_time(run, job.timeout, now_ms) {
            return self.finish(id, RunOutcome::Failed { error }, None, ctx);
        }
        run.stage = Stage::Starting(job.target_id.clone());
        run.since_ms = now_ms;
        let at_ms = *run.started_ms.get_or_insert(now_ms);
        let put = Change::PutRun(Box::new(run.record(RunPhase::Started { at_ms, outcome: None })));
        let (doors, id) = (self.doors.clone(), id.clone());
        let storing = async move { doors.commit(vec![put], Patience::Endless).await };
        ctx.spawn(storing.into_actor(self).map(move |stored, act, ctx| match stored {
            Ok(()) => act.launch(&id, ctx),
            // The agent is ending; the run begins again with its next life.
            Err(error) => tracing::warn!(run_id = %id, %error, "run not started"),
        }));
    }

    /// The start is on disk: the executor gets the run.
    fn launch(&mut self, id: &RunId, ctx: &mut Context<Self>) {
        let (plan, attempt, quitting) = (self.plan(), self.table.next_attempt(), self.quitting.is_some());
        let now_ms = self.now_ms();
        let Some(run) = self.table.get(id).filter(|run| matches!(run.stage, Stage::Starting(_))) else {
            return;
        };
        if quitting {
            return;
        }
        if run.stop == Some(Stop::Cancelled) {
            return self.finish(id, RunOutcome::Cancelled, None, ctx);
        }
        let parts = plan.job(&run.order.job_id).and_then(|job| Some((job, plan.target(&job.target_id)?)));
        let Some((job, target)) = parts else {
            let error =
                format!("job \"{}\" or its target is no longer in the configuration", run.order.job_id);
            return self.finish(id, RunOutcome::Failed { error }, None, ctx);
        };
        tracing::info!(run_id = %id, job_id = %job.id, target_id = %target.id, again = run.interrupted, "run started");
        if !run.interrupted {
            // A disk that did not take its start took none of its time.
            run.started_ms = Some(now_ms);
        }
        run.interrupted = false;
        let (cancel, progress) = (Cancel::new(), Progress::new());
        if job.pre_hooks.is_empty() {
            progress.dumping(0, 1);
        }
        let timer = job.timeout.map(|limit| {
            let id = id.clone();
            let rest = time_left(run, limit, now_ms);
            ctx.run_later(rest, move |act, ctx| act.timed_out(&id, attempt, limit, ctx))
        });
        run.stage = Stage::Running(Box::new(Running {
            target: target.id.clone(),
            attempt,
            cancel: CancelOnDrop(cancel.clone()),
            progress: progress.clone(),
            told: None,
            since: Instant::now(),
            timer,
            outcome: None,
            outcome_kept: false,
            left_out: 0,
        }));
        let job = Job { order: run.order.clone(), job: job.clone(), target: target.clone() };
        self.begin_work(job, attempt, progress, cancel, ctx);
        self.tell_progress(id, attempt, ctx);
    }

    /// The executor begins it, and is listened to until it ends.
    pub(super) fn begin_work(
        &self,
        job: Job,
        attempt: u64,
        progress: Progress,
        cancel: Cancel,
        ctx: &mut Context<Self>,
    ) {
        let (judged, ended) = (job.order.run_id.clone(), job.order.run_id.clone());
        let reached = progress.verdict().reached();
        ctx.spawn(reached.into_actor(self).map(move |outcome, act, ctx| {
            if let Some(outcome) = outcome {
                act.judged(&judged, attempt, outcome, ctx);
            }
        }));
        let going = self.executor.run(job, progress, cancel);
        ctx.spawn(
            going.into_actor(self).map(move |outcome, act, ctx| act.ended(&ended, attempt, outcome, ctx)),
        );
    }

    /// RUNNING, when something changed, and again in a second.
    fn tell_progress(&mut self, id: &RunId, attempt: u64, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        let order = run.order.clone();
        let Some(running) = run.running().filter(|running| running.attempt == attempt) else { return };
        let now = running.progress.now();
        if running.told != Some(now) {
            running.told = Some(now);
            self.doors.tell(Submit::new(convert::run_progress(&order, now.0, now.1)));
        }
        self.tell_events(id, ctx);
        self.ask_for_urls(id, ctx);
        let id = id.clone();
        ctx.run_later(PROGRESS_INTERVAL, move |act, ctx| act.tell_progress(&id, attempt, ctx));
    }

    fn timed_out(&mut self, id: &RunId, attempt: u64, limit: Duration, ctx: &mut Context<Self>) {
        let current =
            self.table.get(id).and_then(Run::running).is_some_and(|running| running.attempt == attempt);
        if current {
            self.stop_going(id, Stop::TimedOut(limit), ctx);
        }
    }

    /// Tells a run to stop, and gives it up when it does not. The first reason counts.
    pub(super) fn stop_going(&mut self, id: &RunId, why: Stop, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        if run.stop.replace(run.stop.unwrap_or(why)).is_none() {
            self.tell_late_stop(id, why);
        }
        let Some(run) = self.table.get(id) else { return };
        if let Some(cancel) = run.cancel() {
            match why {
                Stop::Cancelled | Stop::TimedOut(_) => cancel.cancel(),
                Stop::Quitting => cancel.interrupt(),
            }
        }
        if let Some(attempt) = run.running().map(|running| running.attempt) {
            let id = id.clone();
            ctx.run_later(STOP_GRACE, move |act, ctx| act.give_up_waiting(&id, attempt, ctx));
        }
    }

    /// The run is over for the server; what the executor still has of it keeps its target.
    fn give_up_waiting(&mut self, id: &RunId, attempt: u64, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        if run.running().is_none_or(|running| running.attempt != attempt) {
            return;
        }
        self.over(id, RunOutcome::Cancelled, true, ctx);
        self.bound_trail(id, attempt, ctx);
    }

    /// What never comes back gives its target up in the end.
    pub(super) fn bound_trail(&self, id: &RunId, attempt: u64, ctx: &mut Context<Self>) {
        let id = id.clone();
        ctx.run_later(LONGEST_TRAIL, move |act, ctx| {
            if act.table.take_trail(attempt).is_some() {
                tracing::error!(run_id = %id, "what is left of a run still hangs: its target is given to others; look at its disk and its database");
                act.take_turns(ctx);
            }
        });
    }

    /// The executor is through with the run.
    pub(super) fn ended(&mut self, id: &RunId, attempt: u64, outcome: RunOutcome, ctx: &mut Context<Self>) {
        if let Some(mut trail) = self.table.take_trail(attempt) {
            self.log(&trail.order, trail.running.progress.take_events(), ctx);
            trail.running.left_out += trail.running.progress.take_left_out();
            self.log_left_out(&trail.order, trail.running.left_out, ctx);
            self.take_turns(ctx);
            return self.quit_if_done(ctx);
        }
        if self.table.get(id).and_then(Run::running).is_some_and(|running| running.attempt == attempt) {
            self.over(id, outcome, false, ctx);
        }
    }

    /// How the run ended, and whether the executor still has something of it.
    fn over(&mut self, id: &RunId, outcome: RunOutcome, trails: bool, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        let quitting = run.stop == Some(Stop::Quitting);
        let Some(running) = run.running() else { return };
        let took = running.since.elapsed();
        if let Some(timer) = running.timer.take() {
            ctx.cancel_future(timer);
        }
        let known = running.outcome.clone();
        if quitting && running.outcome_kept {
            // Told now, its post-hooks would be lost where they were stopped.
            return self.leave(id, "its end is told, and its post-hooks run, at the next start", ctx);
        }
        let Some(outcome) = known.or_else(|| self.judge(id, outcome)) else {
            return self.leave(id, "it begins again at the next start", ctx);
        };
        self.tell_events(id, ctx);
        let Some(run) = self.table.get(id) else { return };
        let order = run.order.clone();
        if let Stage::Running(running) = std::mem::replace(&mut run.stage, Stage::Ending) {
            if trails {
                self.table.trails.push(Trail { order, running: *running });
            } else {
                self.log_left_out(&order, running.left_out, ctx);
            }
        }
        self.finish(id, outcome, Some(took), ctx);
    }

    /// The agent ends before the run: its record stays, and the next life goes on with it.
    fn leave(&mut self, id: &RunId, how: &str, ctx: &mut Context<Self>) {
        tracing::info!(run_id = %id, "run interrupted: {how}");
        self.table.remove(id);
        self.quit_if_done(ctx);
    }

    /// The result goes to the disk and into the queue, in one transaction, however long that takes.
    pub(super) fn finish(
        &mut self,
        id: &RunId,
        outcome: RunOutcome,
        took: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        let now_ms = self.now_ms();
        let Some(run) = self.table.get(id) else { return };
        run.stage = Stage::Ending;
        run.since_ms = now_ms;
        let hooks_left = run.interrupted.then(|| (run.order.clone(), outcome.clone()));
        if took.is_none() {
            self.executor.forget(&run.order);
        }
        measure::ended(&run.order.job_id, &outcome, took);
        let (run_id, job_id, status) = (id, &run.order.job_id, measure::status(&outcome));
        match &outcome {
            RunOutcome::Failed { error } => tracing::error!(%run_id, %job_id, %error, "run failed"),
            RunOutcome::Completed(_) | RunOutcome::Cancelled => {
                tracing::info!(%run_id, %job_id, status, "run ended");
            }
        }
        let phase = RunPhase::Finished { at_ms: now_ms, outcome: outcome.clone() };
        let put = Change::PutRun(Box::new(run.record(phase)));
        let result = Submit { with: vec![put], ..Submit::new(convert::run_result(&run.order, &outcome)) };
        let (doors, id) = (self.doors.clone(), id.clone());
        let storing = async move { doors.submit(result, Patience::Endless).await };
        ctx.spawn(storing.into_actor(self).map(move |stored, act, ctx| match stored {
            Ok(()) => act.finished(&id, outcome, ctx),
            Err(error) => tracing::error!(run_id = %id, %error, "a result could not be stored"),
        }));
        if let Some((order, outcome)) = hooks_left {
            self.run_hooks_left(order, outcome, ctx);
        }
        // The place is free already; not from within, since a turn may have ended this one.
        ctx.run_later(Duration::ZERO, |act, ctx| act.take_turns(ctx));
    }

    /// The result is on disk.
    fn finished(&mut self, id: &RunId, outcome: RunOutcome, ctx: &mut Context<Self>) {
        let Some(run) = self.table.remove(id) else { return };
        for canceller in run.cancellers {
            canceller.ended(!matches!(outcome, RunOutcome::Completed(_)));
        }
        let forgotten = self.table.keep(run.order, outcome);
        self.forget(forgotten, ctx);
        self.quit_if_done(ctx);
    }

    /// Results that are too many are dropped from the store as well.
    pub(super) fn forget(&self, ids: Vec<RunId>, ctx: &mut Context<Self>) {
        if ids.is_empty() {
            return;
        }
        let changes = ids.into_iter().map(Change::ForgetRun).collect();
        let doors = self.doors.clone();
        let forgetting = async move {
            if let Err(error) = doors.commit(changes, Patience::Short).await {
                tracing::warn!(%error, "results of old runs could not be dropped; the next start tries again");
            }
        };
        ctx.spawn(forgetting.into_actor(self));
    }
}

/// What a run was doing when something came in between.
fn before(run: &Run) -> &'static str {
    if run.interrupted { "while the agent was interrupted" } else { "while the run waited for its turn" }
}

/// Why it makes no sense to begin; None while it does.
pub(super) fn too_late(run: &Run, now_ms: u64) -> Option<String> {
    let deadline_ms = upload_deadline_ms(&run.order, run.accepted_at_ms);
    if now_ms < deadline_ms {
        return None;
    }
    let what = if run.interrupted {
        "the agent was interrupted during the run"
    } else {
        "the run waited for its turn"
    };
    Some(format!("{what}, and its upload URL expired at {}: order a new run", expiry_text(deadline_ms)))
}
