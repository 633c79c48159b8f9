//! The runs that the Runner knows, and what of them can be seen.

use super::Answer;
use crate::actors::messages::Refusal;
use crate::backup::Progress;
use crate::model::{
    Completed, JobId, RunId, RunOrder, RunOutcome, RunPhase, RunRecord, RunStatus, Step, TargetId,
};
use crate::process::{Cancel, CancelOnDrop};
use actix::SpawnHandle;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Results that are kept for orders that come again. A server repeats an order within minutes.
pub const KEPT_FINISHED: usize = 256;

/// Of them, jobs whose last good one is kept however old it is: the next one is held against it.
const KEPT_GOOD: usize = 512;

/// Of the whole run: the store has nine tenths of the object.
const NEARLY_UPLOADED_PERCENT: u8 = 96;

/// Why a run was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// CancelJob.
    Cancelled,
    /// `timeout_sec`, as it was when the run began.
    TimedOut(Duration),
    /// The agent is ending: the run begins again at the next start.
    Quitting,
}

/// Where a run stands.
#[derive(Debug)]
pub enum Stage {
    /// Its turn has not come.
    Waiting,
    /// Its start is on the way to the disk.
    Starting(TargetId),
    /// The executor has it.
    Running(Box<Running>),
    /// Its result is on the way to the disk.
    Ending,
}

/// A run that the executor has.
#[derive(Debug)]
pub struct Running {
    /// No second one at once on it.
    pub target: TargetId,
    /// Tells this start of the run from another one.
    pub attempt: u64,
    /// Stops it; also when the Runner itself ends.
    pub cancel: CancelOnDrop,
    /// Written by the run.
    pub progress: Progress,
    /// What the server was told last.
    pub told: Option<(Step, u8)>,
    /// For its metrics.
    pub since: Instant,
    /// Of its timeout.
    pub timer: Option<SpawnHandle>,
    /// How it ended, while its post-hooks go on: whatever stops them changes nothing of it.
    pub outcome: Option<RunOutcome>,
    /// The state has it: a later life tells it, and runs the post-hooks that are left.
    pub outcome_kept: bool,
    /// LogEvents that were left out, for now or for good.
    pub left_out: u64,
}

/// A run that is not over.
#[derive(Debug)]
pub struct Run {
    /// What was asked.
    pub order: RunOrder,
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// Since when it stands where it stands, unix milliseconds.
    pub since_ms: u64,
    /// When it began for the first time, in this life of the agent or an earlier one; unix milliseconds.
    pub started_ms: Option<u64>,
    /// An earlier life of the agent had begun it, and this one has not.
    pub interrupted: bool,
    /// The server knows that it waits.
    pub announced: bool,
    /// Where it stands.
    pub stage: Stage,
    /// Why it was told to stop.
    pub stop: Option<Stop>,
    /// Who waits for its end.
    pub cancellers: Vec<Rc<Canceller>>,
}

impl Run {
    /// Waiting for its turn.
    pub fn waiting(order: RunOrder, accepted_at_ms: u64) -> Self {
        Self {
            order,
            accepted_at_ms,
            since_ms: accepted_at_ms,
            started_ms: None,
            interrupted: false,
            announced: false,
            stage: Stage::Waiting,
            stop: None,
            cancellers: Vec::new(),
        }
    }

    /// Its record in the store.
    pub fn record(&self, phase: RunPhase) -> RunRecord {
        let mut order = self.order.clone();
        if matches!(phase, RunPhase::Finished { .. }) {
            // Its authorisation is of no use any more: what is not kept cannot leak.
            order.forget_urls();
        }
        RunRecord { order, accepted_at_ms: self.accepted_at_ms, phase }
    }

    /// Whether it takes a place and a target.
    pub fn is_going(&self) -> bool {
        self.target().is_some()
    }

    /// Its phase in the store; None while its result is on the way there.
    pub fn phase(&self) -> Option<RunPhase> {
        let outcome = match &self.stage {
            Stage::Waiting | Stage::Starting(_) => None,
            Stage::Running(running) => running.outcome.clone(),
            Stage::Ending => return None,
        };
        let started = |at_ms| RunPhase::Started { at_ms, outcome };
        Some(self.started_ms.map_or(RunPhase::Accepted, started))
    }

    /// The target that it is on.
    pub fn target(&self) -> Option<&TargetId> {
        match &self.stage {
            Stage::Starting(target) => Some(target),
            Stage::Running(running) => Some(&running.target),
            Stage::Waiting | Stage::Ending => None,
        }
    }

    /// What the executor has.
    pub fn running(&mut self) -> Option<&mut Running> {
        match &mut self.stage {
            Stage::Running(running) => Some(running),
            Stage::Waiting | Stage::Starting(_) | Stage::Ending => None,
        }
    }

    /// Whether its object is stored, or the store has nearly all of it: waiting a moment saves all its work.
    pub fn is_nearly_over(&self) -> bool {
        let Stage::Running(running) = &self.stage else { return false };
        let (step, percent) = running.progress.now();
        match step {
            Step::Verifying | Step::PostHooks => true,
            Step::Uploading => percent >= NEARLY_UPLOADED_PERCENT,
            Step::PreHooks | Step::Dumping => false,
        }
    }

    /// Its switch.
    pub fn cancel(&self) -> Option<&Cancel> {
        match &self.stage {
            Stage::Running(running) => Some(&running.cancel.0),
            Stage::Waiting | Stage::Starting(_) | Stage::Ending => None,
        }
    }

    fn status(&self) -> RunStatus {
        let (step, progress_percent) = match &self.stage {
            Stage::Waiting | Stage::Starting(_) => (None, 0),
            Stage::Running(running) => {
                let (step, percent) = running.progress.now();
                (Some(step), percent)
            }
            Stage::Ending => (Some(Step::PostHooks), 99),
        };
        RunStatus {
            run_id: self.order.run_id.clone(),
            job_id: self.order.job_id.clone(),
            step,
            progress_percent,
            since_ms: self.since_ms,
        }
    }
}

/// A CancelJob: each of its runs has a share of it, and the last one to end answers.
#[derive(Debug)]
pub struct Canceller {
    job: JobId,
    stopped: Cell<bool>,
    answer: Answer,
}

impl Canceller {
    /// Of that job's runs.
    pub fn new(job: JobId, answer: Answer) -> Rc<Self> {
        Rc::new(Self { job, stopped: Cell::new(false), answer })
    }

    /// One of its runs ended: not as a good one, where it was stopped.
    pub fn ended(self: Rc<Self>, stopped: bool) {
        self.stopped.set(stopped || self.stopped.get());
        let Some(last) = Rc::into_inner(self) else { return };
        let stopped = last.stopped.get();
        // The Dispatcher may have given up waiting.
        let _ = last.answer.send(if stopped { Ok(()) } else { Err(Refusal::NothingToCancel(last.job)) });
    }
}

/// A run whose result is told while the executor still has something of it: post-hooks after a cancel, or a
/// thread that waits for a dead disk. Its place is free for another target's run, its target is not: a disk that hangs
/// under one database must not keep the backups of all others away.
#[derive(Debug)]
pub struct Trail {
    /// What was asked.
    pub order: RunOrder,
    /// What the executor had.
    pub running: Running,
}

/// Every run that is known.
#[derive(Debug, Default)]
pub struct Table {
    /// In the order in which they were accepted.
    pub runs: Vec<Run>,
    /// Over for the server, and not for the executor.
    pub trails: Vec<Trail>,
    /// Oldest first.
    finished: VecDeque<(RunOrder, RunOutcome)>,
    attempts: u64,
}

impl Table {
    /// A run that is not over.
    pub fn get(&mut self, id: &RunId) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.order.run_id == *id)
    }

    /// A run that is over.
    pub fn finished(&self, id: &RunId) -> Option<&(RunOrder, RunOutcome)> {
        self.finished.iter().find(|(order, _)| order.run_id == *id)
    }

    /// Takes a run out: nothing of it goes on.
    pub fn remove(&mut self, id: &RunId) -> Option<Run> {
        let index = self.runs.iter().position(|run| run.order.run_id == *id)?;
        Some(self.runs.remove(index))
    }

    /// Keeps a result; gives the runs that are no longer kept for it.
    pub fn keep(&mut self, mut order: RunOrder, mut outcome: RunOutcome) -> Vec<RunId> {
        order.forget_urls();
        // The state has it; hundreds of them have no business in the memory.
        if let RunOutcome::Completed(completed) = &mut outcome {
            completed.manifest = None;
        }
        self.finished.push_back((order, outcome));
        let mut forgotten = Vec::new();
        while self.finished.len() > KEPT_FINISHED {
            let spared = (0..self.finished.len()).find(|index| !self.is_last_good(*index));
            // When nothing but last good ones is left, they have a bound of their own.
            let goes = match spared {
                Some(index) if index < self.finished.len() - 1 => index,
                Some(_) | None if self.finished.len() > KEPT_GOOD => 0,
                Some(_) | None => break,
            };
            forgotten.extend(self.finished.remove(goes).map(|(order, _)| order.run_id));
        }
        forgotten
    }

    /// The last good result of that job.
    pub fn last_good(&self, job: &JobId) -> Option<&Completed> {
        self.finished.iter().rev().find_map(|(order, outcome)| match outcome {
            RunOutcome::Completed(completed) if order.job_id == *job => Some(completed),
            RunOutcome::Completed(_) | RunOutcome::Failed { .. } | RunOutcome::Cancelled => None,
        })
    }

    fn is_last_good(&self, index: usize) -> bool {
        let Some((order, RunOutcome::Completed(_))) = self.finished.get(index) else { return false };
        let later = self.finished.iter().skip(index + 1);
        !later
            .filter(|(other, _)| other.job_id == order.job_id)
            .any(|(_, outcome)| matches!(outcome, RunOutcome::Completed(_)))
    }

    /// The trail of that start.
    pub fn take_trail(&mut self, attempt: u64) -> Option<Trail> {
        let index = self.trails.iter().position(|trail| trail.running.attempt == attempt)?;
        Some(self.trails.swap_remove(index))
    }

    /// The number of another start.
    pub fn next_attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    /// Runs that the executor has, or is about to get.
    pub fn going(&self) -> usize {
        self.runs.iter().filter(|run| run.is_going()).count()
    }

    /// Whether a run is on that target.
    pub fn on_target(&self, target: &TargetId) -> bool {
        self.runs.iter().any(|run| run.target() == Some(target))
            || self.trails.iter().any(|trail| trail.running.target == *target)
    }

    /// Whether something goes on that a shutdown waits for.
    pub fn busy(&self) -> bool {
        !self.trails.is_empty()
            || self.runs.iter().any(|run| !matches!(run.stage, Stage::Waiting | Stage::Starting(_)))
    }

    /// The ids of the runs that the function picks.
    pub fn ids_where(&self, pick: impl Fn(&Run) -> bool) -> Vec<RunId> {
        self.runs.iter().filter(|run| pick(run)).map(|run| run.order.run_id.clone()).collect()
    }

    /// The runs of a job, those whose result is on the way to the disk included.
    pub fn of_job(&self, job: &JobId) -> Vec<RunId> {
        self.ids_where(|run| run.order.job_id == *job)
    }

    /// What can be seen.
    pub fn statuses(&self) -> Vec<RunStatus> {
        self.runs.iter().map(Run::status).collect()
    }
}
