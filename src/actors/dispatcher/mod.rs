//! Takes in what the server asks, one command after the other, and answers with an Ack once it is
//! durable or done. Nothing long happens here: a run is the Runner's. Commands are worked off by one
//! task, so their order is the server's; the actor itself stays free to answer, and the ends of
//! what was cancelled are waited for beside it.

mod answers;
mod cancels;
mod commands;
mod neighbours;

pub use neighbours::DispatcherNeighbours;

use super::life::Life;
use super::messages::{AreYouThere, ChildExit, Command, GetConfigVersion, Quit, ServerCommand};
use crate::wire;
use actix::prelude::*;
use cancels::Cancelling;
use commands::Worker;
use neighbours::Neighbours;
use prost::Message as _;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// So many commands wait here before the Connection is made to wait, and TCP with it.
const MAX_WAITING: usize = 64;

/// And so many bytes: a single larger command is still taken in, and makes the next one wait.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// What a Dispatcher is made of.
#[derive(Debug)]
pub struct DispatcherDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
}

/// A command on its way to the worker.
struct Task {
    command: ServerCommand,
    bytes: usize,
    /// Tells the Connection to read on, where it was made to wait.
    taken: Option<oneshot::Sender<()>>,
}

/// What waits for the worker.
#[derive(Debug, Default)]
struct Waiting {
    commands: Cell<usize>,
    bytes: Cell<usize>,
}

impl Waiting {
    fn add(&self, bytes: usize) -> bool {
        self.commands.set(self.commands.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.commands.get() <= MAX_WAITING && self.bytes.get() <= MAX_WAITING_BYTES
    }

    fn remove(&self, bytes: usize) {
        self.commands.set(self.commands.get().saturating_sub(1));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }
}

/// The actor.
pub struct Dispatcher {
    life: Life,
    tasks: mpsc::UnboundedSender<Task>,
    waiting: Rc<Waiting>,
    neighbours: watch::Sender<Option<DispatcherNeighbours>>,
    /// None until the state of the earlier life is known.
    version: watch::Receiver<Option<u64>>,
    worker: Option<Worker>,
    inbox: Option<mpsc::UnboundedReceiver<Task>>,
    cancels: Option<mpsc::Receiver<Cancelling>>,
}

impl Dispatcher {
    /// Works from the moment its neighbours are known.
    pub fn new(deps: DispatcherDeps) -> Self {
        let (tasks, inbox) = mpsc::unbounded_channel();
        let (neighbours, known) = watch::channel(None);
        let (version_is, version) = watch::channel(None);
        let (cancelling, cancels) = mpsc::channel(1);
        Self {
            life: deps.life,
            tasks,
            waiting: Rc::default(),
            neighbours,
            version,
            worker: Some(Worker::new(Neighbours::new(known), version_is, cancelling)),
            inbox: Some(inbox),
            cancels: Some(cancels),
        }
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (Some(worker), Some(inbox), Some(cancels)) =
            (self.worker.take(), self.inbox.take(), self.cancels.take())
        else {
            return;
        };
        let waiting = Rc::clone(&self.waiting);
        let work = async move {
            tokio::select! {
                end = work_off(worker, inbox, &waiting) => end,
                () = cancels::answer_all(cancels) => Ok(()),
            }
        };
        ctx.spawn(work.into_actor(self).map(|end: Result<(), String>, act, ctx| {
            if let Err(cause) = end {
                act.life.ends_as(ChildExit::Failed(cause));
                ctx.stop();
            }
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.tell();
    }
}

/// Works off commands as they come, one after the other.
async fn work_off(
    mut worker: Worker,
    mut inbox: mpsc::UnboundedReceiver<Task>,
    waiting: &Waiting,
) -> Result<(), String> {
    worker.recover().await?;
    loop {
        let store_at = worker.time_to_store();
        tokio::select! {
            biased;
            () = worker.greet() => {}
            task = inbox.recv() => {
                let Some(task) = task else { return Ok(()) };
                waiting.remove(task.bytes);
                if let Some(taken) = task.taken {
                    // The Connection may be gone; the command stays valid.
                    let _ = taken.send(());
                }
                worker.take_on(task.command).await;
            }
            () = sleep_until(store_at.unwrap_or_else(Instant::now)), if store_at.is_some() => {
                worker.store_again().await;
            }
        }
    }
}

impl Handler<ServerCommand> for Dispatcher {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, command: ServerCommand, _: &mut Self::Context) -> Self::Result {
        let bytes = held_bytes(&command.command);
        let (taken, is_taken) = oneshot::channel();
        let room = self.waiting.add(bytes);
        let task = Task { command, bytes, taken: (!room).then_some(taken) };
        // The worker ends only with this actor.
        let _ = self.tasks.send(task);
        Box::pin(async move {
            if !room {
                let _ = is_taken.await;
            }
        })
    }
}

/// About what the command holds in memory.
fn held_bytes(command: &Command) -> usize {
    match command {
        // Its lists can be many times larger than they were on the wire.
        Command::Configure(message) => wire::held_bytes(message),
        Command::RunBackup(message) => message.encoded_len(),
        Command::CancelJob(message) => message.encoded_len(),
        Command::RunHealthCheck(message) => message.encoded_len(),
        Command::SelfUpdate(message) => message.encoded_len(),
    }
}

impl Handler<GetConfigVersion> for Dispatcher {
    type Result = ResponseFuture<u64>;

    /// Answered once the state of the earlier life is known: Register must not say 0 too early.
    fn handle(&mut self, _: GetConfigVersion, _: &mut Self::Context) -> Self::Result {
        let mut version = self.version.clone();
        Box::pin(async move {
            version.wait_for(Option::is_some).await.ok().and_then(|version| *version).unwrap_or(0)
        })
    }
}

impl Handler<DispatcherNeighbours> for Dispatcher {
    type Result = ();

    fn handle(&mut self, neighbours: DispatcherNeighbours, _: &mut Self::Context) {
        self.neighbours.send_replace(Some(neighbours));
    }
}

impl Handler<AreYouThere> for Dispatcher {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl Handler<Quit> for Dispatcher {
    type Result = ();

    /// A command that was not acked yet is asked again by the server.
    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) {
        self.life.ends_as(ChildExit::Stopped);
        ctx.stop();
    }
}
