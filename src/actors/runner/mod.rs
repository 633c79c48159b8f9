//! Runs: taken on, waiting, going on, over. What must not get lost is on disk before it is said.
//!
//! ```text
//! StartRun -> PutRun(Accepted) -> Ok                    the order is durable before it is acked
//!          -> waits for its turn (QUEUED)               max_parallel_jobs, one per target, window
//!          -> PutRun(Started) -> the executor           on a thread of its own; RUNNING once a second
//!          -> PutRun(Started, outcome)                  where post-hooks follow, before they begin
//!          -> one transaction: the result and PutRun(Finished)
//! ```
//!
//! The Runner knows nothing of the link: a run goes on without it. A run that is Started or Accepted when the agent
//! ends begins again at the next start, while its upload URL lives; with an outcome it is only told.

mod doors;
mod executor;
mod going;
mod measure;
mod news;
mod options;
mod orders;
mod recovery;
mod table;
mod turns;
mod urls;
mod verdict;

pub use executor::{Executor, ThreadExecutor};
pub use measure::describe;
pub use options::run_options;

use super::life::Life;
use super::messages::{
    AreYouThere, CancelRun, ChildExit, Commit, Configured, GetRuns, Quit, Recover, Refusal, StartRun, Submit,
};
use crate::model::{JobId, Plan, RunOrder, RunStatus};
use actix::prelude::*;
use doors::Doors;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use table::{Run, Stop, Table};
use tokio::sync::{oneshot, watch};

/// An executor that was told to stop is not waited for longer: CancelJob is done within 2 s, and the result must
/// reach the disk in the rest.
const STOP_GRACE: Duration = Duration::from_millis(1_500);

/// What is left of a run keeps its target so long: the post-hooks' 30 minutes and a little.
const LONGEST_TRAIL: Duration = Duration::from_secs(31 * 60);

/// At shutdown a run that is nearly over may end well in this time, before it is stopped like the others.
const LAST_CHANCE: Duration = Duration::from_millis(900);

/// At shutdown the Runner answers after this at the latest: it has 3 s of the agent's 10.
const QUIT_LIMIT: Duration = Duration::from_millis(2_500);

/// At most one message of progress a run in this time (behaviour section 4).
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the time in unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a Runner is made of.
pub struct RunnerDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// Does the work.
    pub executor: Box<dyn Executor>,
    /// The host's clock; another one in tests.
    pub clock: Clock,
}

/// Whom the Runner asks and tells; given at start and after one of them was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RunnerNeighbours {
    /// The StateStore, once.
    pub recover: Recipient<Recover>,
    /// The StateStore.
    pub commit: Recipient<Commit>,
    /// The Queue.
    pub submit: Recipient<Submit>,
}

type Answer = oneshot::Sender<Result<(), Refusal>>;

/// A command that came before the runs of the earlier life were known.
enum Early {
    Order(Box<RunOrder>, Answer),
    Cancel(JobId, Answer),
}

/// The actor.
pub struct Runner {
    life: Life,
    executor: Box<dyn Executor>,
    clock: Clock,
    neighbours: watch::Sender<Option<RunnerNeighbours>>,
    doors: Doors,
    /// None until the Dispatcher or the store told one.
    plan: Option<Arc<Plan>>,
    recovering: bool,
    recovered: bool,
    /// In the server's order.
    early: Vec<Early>,
    /// Orders on their way to the disk, with everybody who waits for that.
    accepting: HashMap<crate::model::RunId, (RunOrder, Vec<Answer>)>,
    table: Table,
    window_timer: Option<SpawnHandle>,
    /// It was logged that the window holds runs.
    window_holds: bool,
    expiry_timer: Option<SpawnHandle>,
    quitting: Option<Vec<oneshot::Sender<()>>>,
}

impl Runner {
    /// Without neighbours nothing begins.
    pub fn new(deps: RunnerDeps) -> Self {
        let (neighbours, known) = watch::channel(None);
        Self {
            life: deps.life,
            executor: deps.executor,
            clock: deps.clock,
            neighbours,
            doors: Doors::new(known),
            plan: None,
            recovering: false,
            recovered: false,
            early: Vec::new(),
            accepting: HashMap::new(),
            table: Table::default(),
            window_timer: None,
            window_holds: false,
            expiry_timer: None,
            quitting: None,
        }
    }

    fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.clone().unwrap_or_default()
    }

    /// Ends the actor once nothing is left that must be finished.
    fn quit_if_done(&mut self, ctx: &mut Context<Self>) {
        if self.quitting.is_some() && !self.table.busy() {
            self.quit(ctx);
        }
    }

    fn stop_all(&mut self, pick: impl Fn(&Run) -> bool, ctx: &mut Context<Self>) {
        for id in self.table.ids_where(|run| run.stop.is_none() && pick(run)) {
            self.stop_going(&id, Stop::Quitting, ctx);
        }
    }

    fn quit(&mut self, ctx: &mut Context<Self>) {
        for waiting in self.quitting.take().unwrap_or_default() {
            // Nobody may be waiting any more.
            let _ = waiting.send(());
        }
        self.life.ends_as(ChildExit::Stopped);
        ctx.stop();
    }
}

impl Actor for Runner {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.tell();
    }
}

impl Handler<RunnerNeighbours> for Runner {
    type Result = ();

    fn handle(&mut self, neighbours: RunnerNeighbours, ctx: &mut Self::Context) {
        self.neighbours.send_replace(Some(neighbours));
        self.recover(ctx);
    }
}

impl Handler<Configured> for Runner {
    type Result = ();

    fn handle(&mut self, Configured(plan): Configured, ctx: &mut Self::Context) {
        self.plan = Some(plan);
        self.take_turns(ctx);
    }
}

impl Handler<StartRun> for Runner {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, StartRun(order): StartRun, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.take_order(order, answer, ctx);
        Box::pin(async move {
            // What was promised; a Runner that ends before it could keep it refuses.
            let ended = |_| Err(Refusal::NobodyThere("the agent is ending: send the command again"));
            answered.await.unwrap_or_else(ended)
        })
    }
}

impl Handler<CancelRun> for Runner {
    type Result = MessageResult<CancelRun>;

    fn handle(&mut self, CancelRun(job_id): CancelRun, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.cancel_job(&job_id, answer, ctx);
        MessageResult(answered)
    }
}

impl Handler<GetRuns> for Runner {
    type Result = Vec<RunStatus>;

    fn handle(&mut self, _: GetRuns, _: &mut Self::Context) -> Self::Result {
        self.table.statuses()
    }
}

impl Handler<AreYouThere> for Runner {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl Handler<Quit> for Runner {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) -> Self::Result {
        let (done, ended) = oneshot::channel();
        self.quitting.get_or_insert_default().push(done);
        for trail in &self.table.trails {
            trail.running.cancel.0.interrupt();
        }
        self.stop_all(|run| run.is_going() && !run.is_nearly_over(), ctx);
        ctx.run_later(LAST_CHANCE, |act, ctx| act.stop_all(Run::is_going, ctx));
        ctx.run_later(QUIT_LIMIT, |act, ctx| act.quit(ctx));
        self.quit_if_done(ctx);
        Box::pin(async move {
            // An actor that is gone has quit.
            let _ = ended.await;
        })
    }
}
