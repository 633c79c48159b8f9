//! Health checks: who has a turn and when, what became of it, and the result on its way to the server.
//!
//! ```text
//! Configured ──▶ Schedule ──▶ turns, each a task: look ──▶ Submit (durable) ──▶ Ended
//! RunCheck   ──▶    │  ▲                                                          │
//!                timer └──────────────── the place is free ◀──────────────────────┘
//! ```
//!
//! The actor knows nothing of the link: results queue up on the disk without it. Without checks there
//! is no timer, and nothing happens at all.

mod ledger;
mod metrics;
mod turn;

pub use metrics::describe;

use super::life::Life;
use super::messages::{AreYouThere, ChildExit, Configured, GetHealth, Quit, Refusal, RunCheck, Submit};
use super::runner::Clock;
use crate::model::{HealthStatus, Plan};
use crate::probe::health::Prober;
use crate::probe::health::schedule::{Key, RunNow, Schedule, Turn};
use actix::prelude::*;
use ledger::Ledger;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use turn::{Ended, Looked, Tools};

/// At shutdown the results that are on their way to the disk have so long.
const QUIT_LIMIT: Duration = Duration::from_millis(400);

/// A random number, at least 0 and under 1.
pub type Unit = Box<dyn FnMut() -> f64>;

/// What a Health is made of.
pub struct HealthDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// Looks.
    pub prober: Rc<dyn Prober>,
    /// The host's clock; another one in tests.
    pub clock: Clock,
    /// For the moments at which checks start.
    pub unit: Unit,
}

/// Whom Health tells; given at start and after it was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct HealthNeighbours {
    /// The Queue.
    pub submit: Recipient<Submit>,
}

/// Somebody's turn has come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Due;

/// A turn that is under way.
struct Going {
    task: AbortHandle,
    /// Its result is on its way to the disk.
    looked: bool,
}

/// The actor.
pub struct Health {
    life: Life,
    prober: Rc<dyn Prober>,
    clock: Clock,
    unit: Unit,
    neighbours: watch::Sender<Option<HealthNeighbours>>,
    /// What the schedule counts from.
    epoch: Instant,
    schedule: Schedule,
    ledger: Ledger,
    timer: Option<(Duration, SpawnHandle)>,
    /// Ends every turn with this actor, however it ends.
    tasks: JoinSet<()>,
    going: HashMap<Key, Going>,
    quitting: Option<Vec<oneshot::Sender<()>>>,
}

impl Health {
    /// Without a configuration nothing happens.
    pub fn new(deps: HealthDeps) -> Self {
        Self {
            life: deps.life,
            prober: deps.prober,
            clock: deps.clock,
            unit: deps.unit,
            neighbours: watch::channel(None).0,
            epoch: Instant::now(),
            schedule: Schedule::default(),
            ledger: Ledger::default(),
            timer: None,
            tasks: JoinSet::new(),
            going: HashMap::new(),
            quitting: None,
        }
    }

    fn configure(&mut self, plan: &Plan, ctx: &mut Context<Self>) {
        let before = self.schedule.len();
        let ended = self.schedule.replace(&plan.health_checks, self.epoch.elapsed(), &mut self.unit);
        for key in ended {
            // A result that is on its way to the disk arrives: it was seen.
            if self.going.get(&key).is_some_and(|going| !going.looked)
                && let Some(going) = self.going.remove(&key)
            {
                going.task.abort();
            }
        }
        self.ledger.keep(|id| self.schedule.check(id).is_some());
        if before + self.schedule.len() > 0 {
            tracing::info!(version = plan.version, checks = self.schedule.len(), "health checks applied");
        }
        self.stand();
        // Places may have become free.
        self.turns(ctx);
    }

    fn stand(&self) {
        metrics::stand(self.schedule.len(), self.ledger.failing());
    }

    /// Begins what is due, and sets the timer for what comes next.
    fn turns(&mut self, ctx: &mut Context<Self>) {
        if self.quitting.is_some() {
            return;
        }
        let turns = self.schedule.advance(self.epoch.elapsed());
        match self.schedule.take_skipped() {
            0 => {}
            skipped => metrics::skipped(skipped),
        }
        self.begin(turns, ctx);
        let next = self.schedule.next_due();
        if next == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if let Some(at) = next {
            let timer = ctx.notify_later(Due, at.saturating_sub(self.epoch.elapsed()));
            self.timer = Some((at, timer));
        }
    }

    fn begin(&mut self, turns: Vec<Turn>, ctx: &mut Context<Self>) {
        // What ended or was given up is let go.
        while self.tasks.try_join_next().is_some() {}
        for turn in turns {
            let tools = Tools {
                prober: Rc::clone(&self.prober),
                clock: self.clock.clone(),
                neighbours: self.neighbours.subscribe(),
                health: ctx.address(),
            };
            let key = turn.key;
            let task = self.tasks.spawn_local(tools.take(turn));
            self.going.insert(key, Going { task, looked: false });
        }
    }

    fn quit_if_done(&mut self, ctx: &mut Context<Self>) {
        if self.quitting.is_some() && self.going.is_empty() {
            self.quit(ctx);
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

impl Actor for Health {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.tell();
    }
}

impl Handler<HealthNeighbours> for Health {
    type Result = ();

    fn handle(&mut self, neighbours: HealthNeighbours, _: &mut Self::Context) {
        self.neighbours.send_replace(Some(neighbours));
    }
}

impl Handler<Configured> for Health {
    type Result = ();

    fn handle(&mut self, Configured(plan): Configured, ctx: &mut Self::Context) {
        self.configure(&plan, ctx);
    }
}

impl Handler<Due> for Health {
    type Result = ();

    fn handle(&mut self, _: Due, ctx: &mut Self::Context) {
        self.timer = None;
        self.turns(ctx);
    }
}

impl Handler<Looked> for Health {
    type Result = ();

    fn handle(&mut self, Looked(key): Looked, _: &mut Self::Context) {
        if let Some(going) = self.going.get_mut(&key) {
            going.looked = true;
        }
    }
}

impl Handler<Ended> for Health {
    type Result = ();

    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        let Ended { turn, ts_ms, outcome, lost } = ended;
        self.going.remove(&turn.key);
        metrics::ended(&outcome);
        if let Some(why) = lost {
            self.ledger.lost(&why);
        }
        // None: the check was replaced meanwhile, and what its former self saw is not its state.
        if let Some(turns) = self.schedule.ended(turn.key, outcome.timed_out) {
            self.ledger.note(&turn.check, ts_ms, &outcome);
            self.stand();
            if self.quitting.is_none() {
                self.begin(turns, ctx);
            }
        }
        self.quit_if_done(ctx);
    }
}

impl Handler<RunCheck> for Health {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, RunCheck(id): RunCheck, ctx: &mut Self::Context) -> Self::Result {
        if self.quitting.is_some() {
            return Err(Refusal::Other("the agent is ending: send the command again".into()));
        }
        match self.schedule.run_now(&id) {
            RunNow::Unknown => Err(Refusal::UnknownCheck(id)),
            RunNow::UnderWay => Ok(()),
            RunNow::Next(turns) => {
                self.begin(turns, ctx);
                Ok(())
            }
        }
    }
}

impl Handler<GetHealth> for Health {
    type Result = MessageResult<GetHealth>;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> Self::Result {
        let status: HealthStatus = self.ledger.status(self.schedule.len());
        MessageResult(status)
    }
}

impl Handler<AreYouThere> for Health {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl Handler<Quit> for Health {
    type Result = ResponseFuture<()>;

    /// Looks are given up; what was seen reaches the disk.
    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) -> Self::Result {
        let (done, ended) = oneshot::channel();
        self.quitting.get_or_insert_default().push(done);
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.going.retain(|_, going| {
            if !going.looked {
                going.task.abort();
            }
            going.looked
        });
        ctx.run_later(QUIT_LIMIT, |act, ctx| act.quit(ctx));
        self.quit_if_done(ctx);
        Box::pin(async move {
            // An actor that is gone has quit.
            let _ = ended.await;
        })
    }
}
