//! Who lives. Starts every child in order, hands out neighbours, replaces what panicked, failed or
//! froze, keeps the link's story, feeds the watchdog, and ends everything in order. Restarts are
//! bounded: a child that keeps dying ends the process, for the init system to begin anew.

mod children;
mod ending;
mod factory;
mod handlers;
mod init;
mod link;
mod recover;
mod slot;
mod status;
mod watch;

pub use children::{Children, store_options};
pub use ending::SHUTDOWN_LIMIT;
pub use factory::{
    Birth, Born, ConnectionDoor, DispatcherDoor, Factory, HealthDoor, HeartbeatDoor, LinkReports,
    Neighbourhood, QueueDoor, RunnerDoor, StoreDoor, Ties,
};
pub use init::InitSystem;
pub use link::{Unit, describe};
pub use slot::{MAX_RESTARTS, RESTART_WINDOW};
pub use watch::SUPERINTEND_INTERVAL;

use super::messages::{ChildDown, ChildExit, ChildName, Commit, Hangup, Quit, Superintend};
use crate::channel::LinkDown;
use crate::model::{SysExit, unix_ms};
use crate::store::Change;
use actix::prelude::*;
use ending::LastOrders;
use factory::Doors;
use link::LinkBook;
use slot::{Cause, Slot};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use watch::Answer;

/// What a Supervisor is made of.
pub struct SupervisorDeps {
    /// Makes the children.
    pub factory: Box<dyn Factory>,
    /// Hears how the agent is.
    pub init: Box<dyn InitSystem>,
    /// For the jitter of the delays between dials.
    pub unit: Unit,
    /// How long the init system waits for a sign of life; None where it does not wait.
    pub watchdog: Option<Duration>,
    /// The control plane, without query or userinfo.
    pub server_url: String,
    /// Of the configuration that an earlier life applied; 0 for none.
    pub config_version: u64,
    /// Called once every child has ended.
    pub end: Box<dyn FnOnce(SysExit)>,
}

/// It is time to dial, unless another life of the Connection has begun.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Dial;

/// The actor.
pub struct Supervisor {
    factory: Box<dyn Factory>,
    init: Box<dyn InitSystem>,
    end: Option<Box<dyn FnOnce(SysExit)>>,
    interval: Duration,
    server_url: String,
    config_version: u64,
    started_at_ms: u64,
    slots: [Slot; ChildName::ALL.len()],
    doors: Doors,
    link: LinkBook,
    stored_session: String,
    last_answers: Rc<RefCell<status::LastAnswers>>,
    /// Some from the beginning of the end: who waits for it.
    ending: Option<Vec<oneshot::Sender<()>>>,
}

impl Supervisor {
    /// Starts its children when it is started itself.
    pub fn new(deps: SupervisorDeps) -> Self {
        Self {
            factory: deps.factory,
            init: deps.init,
            end: Some(deps.end),
            interval: watch::interval(deps.watchdog),
            server_url: deps.server_url,
            config_version: deps.config_version,
            started_at_ms: unix_ms(),
            slots: ChildName::ALL.map(Slot::new),
            doors: Doors::default(),
            link: LinkBook::new(deps.unit),
            stored_session: String::new(),
            last_answers: Rc::default(),
            ending: None,
        }
    }

    fn slot(&mut self, child: ChildName) -> &mut Slot {
        // `ALL` is in the order of the enum, so its length covers every discriminant.
        &mut self.slots[child as usize]
    }

    /// Begins a life of this child.
    fn spawn(&mut self, child: ChildName, ctx: &mut Context<Self>) {
        let slot = self.slot(child);
        slot.generation += 1;
        let generation = slot.generation;
        let birth = Birth { generation, supervisor: ctx.address().recipient() };
        let ties = match child {
            ChildName::StateStore => match self.factory.state_store(birth) {
                Ok(born) => {
                    self.doors.store = Some(born.door);
                    born.ties
                }
                Err(cause) => {
                    return ctx.notify(ChildDown { child, generation, exit: ChildExit::Failed(cause) });
                }
            },
            ChildName::Queue => keep(self.factory.queue(birth), &mut self.doors.queue),
            ChildName::Runner => keep(self.factory.runner(birth), &mut self.doors.runner),
            ChildName::Health => keep(self.factory.health(birth), &mut self.doors.health),
            ChildName::Dispatcher => keep(self.factory.dispatcher(birth), &mut self.doors.dispatcher),
            ChildName::Heartbeat => keep(self.factory.heartbeat(birth), &mut self.doors.heartbeat),
            ChildName::Connection => {
                let Some(doors) = self.doors.neighbourhood() else { return };
                let reports =
                    LinkReports { changed: ctx.address().recipient(), round_trip: ctx.address().recipient() };
                let born = self.factory.connection(birth, reports, &doors, self.config_version);
                keep(born, &mut self.doors.connection)
            }
        };
        self.slot(child).lives(ties);
    }

    /// Tells these children who their neighbours are now.
    fn introduce(&self, children: &[ChildName]) {
        let Some(doors) = self.doors.neighbourhood() else { return };
        for child in children {
            if let Some(ties) = &self.slots[*child as usize].ties {
                (ties.introduce)(&doors);
            }
        }
    }

    /// A life is over, for whatever reason.
    fn over(&mut self, child: ChildName, cause: Cause, reason: &str, ctx: &mut Context<Self>) {
        self.slot(child).ends(cause);
        tracing::error!(
            actor = child.name(),
            cause = cause.name(),
            reason,
            "an actor ended and is replaced: report this if it goes on"
        );
        if !self.slot(child).may_restart(Instant::now()) {
            tracing::error!(
                actor = child.name(),
                "ended more than {MAX_RESTARTS} times within {} s: the agent ends, to be started anew by the init system",
                RESTART_WINDOW.as_secs()
            );
            self.begin_end(SysExit::Internal, ctx);
            return;
        }
        self.spawn(child, ctx);
        if needs_new_link(child) {
            self.hang_up();
            self.introduce(&NOT_CONNECTION);
        } else {
            self.introduce(&ChildName::ALL);
        }
    }

    /// The Connection is over: the next one comes after a delay.
    fn link_over(&mut self, cause: Cause, down: &LinkDown, ctx: &mut Context<Self>) {
        self.slot(ChildName::Connection).ends(cause);
        self.doors.connection = None;
        let delay = self.link.down(down, self.init.as_mut());
        ctx.notify_later(Dial, delay);
    }

    fn hang_up(&self) {
        if let Some(connection) = &self.doors.connection {
            connection.hangup.do_send(Hangup);
        }
    }

    /// The end of a round of questions.
    fn round_over(&mut self, begin: Instant, answers: &[watch::Answered], ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        for &(child, generation, answer) in answers {
            if self.slot(child).generation != generation || self.slot(child).ties.is_none() {
                continue;
            }
            self.slot(child).answers(answer == Answer::There);
            match answer {
                Answer::There => {}
                // Behind the word that it may just have left.
                Answer::Gone => ctx.notify(ChildDown { child, generation, exit: ChildExit::Panicked }),
                Answer::Silent => self.frozen(child, ctx),
            }
        }
        let all_there = answers.iter().all(|(_, _, answer)| *answer == Answer::There);
        let all_asked = answers.len() + usize::from(self.doors.connection.is_none()) >= ChildName::ALL.len();
        if all_there && all_asked {
            self.init.alive();
        }
        ctx.notify_later(Superintend, self.interval.saturating_sub(begin.elapsed()));
    }

    fn frozen(&mut self, child: ChildName, ctx: &mut Context<Self>) {
        let reason =
            format!("did not answer within {:.1} s", watch::answer_limit(self.interval).as_secs_f64());
        // Should it wake up again, it ends: its successor has its place.
        if let Some(quit) = self.slot(child).ties.as_ref().and_then(|ties| ties.quit.as_ref()) {
            quit.do_send(Quit);
        }
        match child {
            ChildName::Connection => {
                self.hang_up();
                self.link_over(Cause::Freeze, &LinkDown::Broken(format!("its actor {reason}")), ctx);
            }
            ChildName::StateStore
            | ChildName::Queue
            | ChildName::Runner
            | ChildName::Health
            | ChildName::Dispatcher
            | ChildName::Heartbeat => self.over(child, Cause::Freeze, &reason, ctx),
        }
    }

    fn begin_end(&mut self, code: SysExit, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Vec::new());
        self.init.stopping();
        tracing::info!("ending: no new commands, then the connection, the runs, the state");
        let quit = ChildName::ALL.into_iter().filter_map(|child| {
            let ties = self.slots[child as usize].ties.as_ref()?;
            Some((child, ties.quit.clone()?))
        });
        let orders = LastOrders { quit: quit.collect(), connection: self.doors.connection.take() };
        ctx.spawn(timeout(SHUTDOWN_LIMIT, orders.carry_out()).into_actor(self).map(move |_, act, ctx| {
            for slot in &mut act.slots {
                slot.ends(Cause::Asked);
            }
            for waiter in act.ending.iter_mut().flat_map(|waiters| waiters.drain(..)) {
                let _ = waiter.send(());
            }
            tracing::info!(code = code.code(), "ended");
            if let Some(end) = act.end.take() {
                end(code);
            }
            ctx.stop();
        }));
    }

    fn store_session(&mut self, ctx: &mut Context<Self>) {
        let session_id = &self.link.status().session_id;
        let Some(store) = self.doors.store.as_ref().filter(|_| *session_id != self.stored_session) else {
            return;
        };
        self.stored_session.clone_from(session_id);
        let storing = store.commit.send(Commit(vec![Change::PutSession(session_id.clone())]));
        ctx.spawn(storing.into_actor(self).map(|stored, _, _| {
            if let Ok(Err(error)) = stored {
                tracing::warn!(%error, "the session's name was not stored");
            }
        }));
    }
}

fn keep<D>(born: Born<D>, door: &mut Option<D>) -> Ties {
    *door = Some(born.door);
    born.ties
}

/// Everybody but the Connection.
const NOT_CONNECTION: [ChildName; 6] = [
    ChildName::StateStore,
    ChildName::Queue,
    ChildName::Runner,
    ChildName::Health,
    ChildName::Dispatcher,
    ChildName::Heartbeat,
];

/// Whether a link must end with that child. Windows of an earlier Queue may be on the wire: a fresh
/// one would take the pongs of their barriers for its own. Any other successor is told of the link.
fn needs_new_link(child: ChildName) -> bool {
    match child {
        ChildName::Queue => true,
        ChildName::StateStore
        | ChildName::Runner
        | ChildName::Health
        | ChildName::Dispatcher
        | ChildName::Heartbeat
        | ChildName::Connection => false,
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.doors.supervisor = Some(ctx.address().recipient());
        for child in NOT_CONNECTION {
            self.spawn(child, ctx);
        }
        self.introduce(&NOT_CONNECTION);
        self.spawn(ChildName::Connection, ctx);
        ctx.notify_later(Superintend, self.interval);
    }
}
