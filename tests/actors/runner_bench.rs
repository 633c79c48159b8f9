//! A Runner among fakes: a store and a queue that remember, an executor whose runs end as the test says.

use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::{
    CancelRun, ChildDown, ChildName, Commit, Configured, GetRuns, QueueError, Recover, Refusal, StartRun,
    Submit, Submitted,
};
use backupy_agent::actors::runner::{Executor, Runner, RunnerDeps, RunnerNeighbours};
use backupy_agent::backup::{self, Job, Progress};
use backupy_agent::model::{
    Completed, Compression, Connection, Engine, JobSpec, MaintenanceWindow, Plan, RunOrder, RunOutcome,
    RunPhase, RunRecord, RunStatus, TargetSpec,
};
use backupy_agent::process::Cancel;
use backupy_agent::store::{Change, Recovered, StoreError};
use backupy_agent::wire::v1::JobStatus;
use backupy_agent::wire::{Payload, v1};
use futures_util::future::LocalBoxFuture;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// When the virtual day begins: midnight UTC.
pub const MIDNIGHT_MS: u64 = 20_000 * 86_400_000;

/// Long enough for every message that is due now, too short for any timer.
pub const A_MOMENT: Duration = Duration::from_millis(1);

/// What the executor has.
pub struct Going {
    pub job: Job,
    pub progress: Progress,
    pub cancel: Cancel,
    end: Option<oneshot::Sender<RunOutcome>>,
}

impl Going {
    pub fn end(&mut self, outcome: RunOutcome) {
        let _ = self.end.take().expect("ended once").send(outcome);
    }
}

/// Runs that end when the test says, or, unless they are stubborn, when they are told to stop.
#[derive(Default)]
pub struct Hand {
    pub going: Rc<RefCell<Vec<Going>>>,
    /// The targets of each time.
    pub cleared: Rc<RefCell<Vec<Vec<TargetSpec>>>>,
    pub stubborn: bool,
    /// The Runner's own handler panics when this run begins.
    pub panics_on: Option<&'static str>,
}

impl Executor for Hand {
    fn run(&self, job: Job, progress: Progress, cancel: Cancel) -> LocalBoxFuture<'static, RunOutcome> {
        assert_ne!(Some(job.order.run_id.as_str()), self.panics_on);
        let (end, ended) = oneshot::channel();
        self.going.borrow_mut().push(Going { job, progress, cancel: cancel.clone(), end: Some(end) });
        let stubborn = self.stubborn;
        Box::pin(async move {
            tokio::select! {
                outcome = ended => outcome.unwrap_or(RunOutcome::Cancelled),
                () = cancel.cancelled(), if !stubborn => RunOutcome::Cancelled,
            }
        })
    }

    fn acceptable(&self, job: &JobSpec, target: &TargetSpec) -> Result<(), String> {
        backup::acceptable(job, target, &backup::hooks::Options::default()).map_err(|error| error.to_string())
    }

    fn clear_leftovers(&self, _: &[backupy_agent::model::RunId], targets: Vec<TargetSpec>) {
        self.cleared.borrow_mut().push(targets);
    }
}

/// What the neighbours saw.
#[derive(Default)]
pub struct Seen {
    /// In order: what was committed, and what went out.
    pub events: Vec<(Duration, Event)>,
    /// Of each record, as it was stored.
    pub orders: Vec<RunOrder>,
    /// The next so many durable requests fail like this.
    pub refuse: Option<QueueError>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Put(String, &'static str),
    Forgot(String),
    Said(String, JobStatus, String),
    Progress(String, u32),
    Done(String),
    /// A LogEvent: its job and its message.
    Log(String, String),
}

pub struct Bench {
    pub runner: Addr<Runner>,
    pub seen: Arc<Mutex<Seen>>,
    pub going: Rc<RefCell<Vec<Going>>>,
    pub cleared: Rc<RefCell<Vec<Vec<TargetSpec>>>>,
    pub ends: fake::Told<ChildDown>,
    /// The host's clock is set forward by so much.
    pub ahead_ms: Arc<AtomicU64>,
    neighbours: RunnerNeighbours,
}

pub fn order(run: &str, job: &str) -> RunOrder {
    RunOrder {
        run_id: run.into(),
        job_id: job.into(),
        manual: false,
        put_url: "https://store.test/o?sig=TOPSECRET".into(),
        expires_at_ms: MIDNIGHT_MS + 7 * 86_400_000,
        multipart: None,
        s3_key: "k".into(),
        dek: vec![7; 32].into(),
    }
}

/// Three jobs; `a` and `b` are of one target.
pub fn plan(max_parallel_jobs: usize) -> Plan {
    let target = |id: &str| TargetSpec {
        id: id.into(),
        engine: Some(Engine::Sqlite),
        display_name: id.into(),
        connection: Connection { database: "/x.db".into(), ..Connection::default() },
    };
    let job = |id: &str, target: &str| JobSpec {
        id: id.into(),
        target_id: target.into(),
        compression: Some(Compression::Zstd),
        pre_hooks: Vec::new(),
        post_hooks: Vec::new(),
        timeout: Some(Duration::from_secs(600)),
    };
    Plan {
        version: 1,
        targets: vec![target("t1"), target("t2")],
        jobs: vec![job("a", "t1"), job("b", "t1"), job("c", "t2")],
        health_checks: Vec::new(),
        maintenance: None,
        max_parallel_jobs,
    }
}

pub fn record(order: RunOrder, phase: RunPhase) -> RunRecord {
    RunRecord { order, accepted_at_ms: MIDNIGHT_MS - 60_000, phase }
}

pub fn completed() -> RunOutcome {
    RunOutcome::Completed(Completed {
        size_bytes: 5,
        sha256: "ab".into(),
        duration_ms: 6,
        compression: Compression::Zstd,
        engine_version: "SQLite 3".into(),
        manifest: None,
    })
}

impl Bench {
    pub async fn new(plan: Plan) -> Self {
        Self::with(Hand::default(), plan, Recovered::default()).await
    }

    pub async fn with(hand: Hand, plan: Plan, recovered: Recovered) -> Self {
        let bench = Self::without_neighbours(hand, recovered);
        bench.runner.do_send(Configured(Arc::new(plan)));
        bench.introduce().await;
        bench
    }

    pub fn without_neighbours(hand: Hand, recovered: Recovered) -> Self {
        tokio::time::pause();
        let begin = Instant::now();
        let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let neighbours = RunnerNeighbours {
            recover: fake::quick(move |_: &Recover| Ok(recovered.clone())).0,
            commit: committing(&seen, begin),
            submit: submitting(&seen, begin),
        };
        let (going, cleared) = (Rc::clone(&hand.going), Rc::clone(&hand.cleared));
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let ahead = Arc::clone(&ahead_ms);
        let runner = Runner::new(RunnerDeps {
            life: Life::new(ChildName::Runner, 1, supervisor),
            executor: Box::new(hand),
            clock: Arc::new(move || {
                MIDNIGHT_MS + begin.elapsed().as_millis() as u64 + ahead.load(Ordering::Relaxed)
            }),
        });
        Self { runner: runner.start(), seen, going, cleared, ends, ahead_ms, neighbours }
    }

    pub async fn introduce(&self) {
        self.runner.send(self.neighbours.clone()).await.unwrap();
        sleep(A_MOMENT).await;
    }

    /// Replaces the queue by one that is gone; `introduce` brings it back.
    pub async fn lose_queue(&self) {
        let submit = fake::gone();
        self.runner.send(RunnerNeighbours { submit, ..self.neighbours.clone() }).await.unwrap();
    }

    pub async fn start(&self, order: RunOrder) -> Result<(), Refusal> {
        let answer = self.runner.send(StartRun(order)).await.unwrap();
        sleep(A_MOMENT).await;
        answer
    }

    pub async fn cancel(&self, job: &str) -> Result<(), Refusal> {
        self.runner.send(CancelRun(job.into())).await.unwrap().await.unwrap()
    }

    pub async fn statuses(&self) -> Vec<RunStatus> {
        self.runner.send(GetRuns).await.unwrap()
    }

    /// Runs that the executor has got so far, by id.
    pub fn begun(&self) -> Vec<String> {
        self.going.borrow().iter().map(|going| going.job.order.run_id.to_string()).collect()
    }

    pub async fn end(&self, index: usize, outcome: RunOutcome) {
        self.going.borrow_mut()[index].end(outcome);
        sleep(A_MOMENT).await;
    }

    /// The run knows its end, and waits until its post-hooks may begin.
    pub async fn reach(&self, index: usize, outcome: RunOutcome) {
        let progress = self.going.borrow()[index].progress.clone();
        progress.verdict().reach(outcome).await;
        progress.post_hooks();
    }

    /// What happened since the last look.
    pub fn events(&self) -> Vec<Event> {
        self.timed_events().into_iter().map(|(_, event)| event).collect()
    }

    pub fn timed_events(&self) -> Vec<(Duration, Event)> {
        std::mem::take(&mut self.seen.lock().unwrap().events)
    }
}

/// A plan with a window in minutes of the day.
pub fn with_window(plan: Plan, start_min: u16, end_min: u16) -> Plan {
    Plan { maintenance: Some(MaintenanceWindow { start_min, end_min }), ..plan }
}

fn note_change(seen: &mut Seen, at: Duration, change: &Change) {
    if let Change::ForgetRun(id) = change {
        return seen.events.push((at, Event::Forgot(id.to_string())));
    }
    let Change::PutRun(record) = change else { panic!("unexpected change {change:?}") };
    let phase = match &record.phase {
        RunPhase::Accepted => "accepted",
        RunPhase::Started { outcome: None, .. } => "started",
        RunPhase::Started { outcome: Some(_), .. } => "judged",
        RunPhase::Finished { .. } => {
            assert!(record.order.put_url.is_empty(), "the URL is not kept");
            "finished"
        }
    };
    seen.orders.push(record.order.clone());
    seen.events.push((at, Event::Put(record.order.run_id.to_string(), phase)));
}

fn committing(seen: &Arc<Mutex<Seen>>, begin: Instant) -> Recipient<Commit> {
    let seen = Arc::clone(seen);
    fake::quick(move |commit: &Commit| {
        let mut seen = seen.lock().unwrap();
        if let Some(error) = &seen.refuse {
            if let QueueError::Store(error) = error {
                return Err(error.clone());
            }
            return Err(StoreError::Io { path: "state.redb".into(), cause: error.to_string() });
        }
        commit.0.iter().for_each(|change| note_change(&mut seen, begin.elapsed(), change));
        Ok(())
    })
    .0
}

fn submitting(seen: &Arc<Mutex<Seen>>, begin: Instant) -> Recipient<Submit> {
    let seen = Arc::clone(seen);
    fake::quick(move |submit: &Submit| {
        let mut seen = seen.lock().unwrap();
        if let Some(error) = seen.refuse.clone() {
            return Err(error);
        }
        let at = begin.elapsed();
        submit.with.iter().for_each(|change| note_change(&mut seen, at, change));
        let event = if let Payload::BackupCompleted(done) = &submit.payload {
            Event::Done(done.run_id.clone())
        } else if let Payload::JobUpdate(update) = &submit.payload {
            said(update)
        } else if let Payload::Log(log) = &submit.payload {
            assert!(log.fields.contains_key("run_id") && !format!("{log:?}").contains("TOPSECRET"));
            Event::Log(log.job_id.clone(), log.message.clone())
        } else {
            panic!("unexpected message {:?}", submit.payload)
        };
        let in_slot = matches!(event, Event::Progress(..));
        assert!(!in_slot || submit.with.is_empty());
        seen.events.push((at, event));
        Ok(if in_slot { Submitted::InSlot } else { Submitted::OnDisk(1) })
    })
    .0
}

fn said(update: &v1::JobUpdate) -> Event {
    assert!(!update.error_message.contains("TOPSECRET"));
    let run = update.run_id.clone();
    if update.status() == JobStatus::Running {
        return Event::Progress(run, update.progress_percent);
    }
    Event::Said(run, update.status(), update.error_message.clone())
}
