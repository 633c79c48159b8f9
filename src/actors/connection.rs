//! Connection: one connection's whole life. It dials, registers, pumps, and dies with a reason; it is
//! never used again, and what must outlive it lives elsewhere.
//!
//! ```text
//!  mailbox: Transmit, Hangup, AreYouThere, ConnectionNeighbours
//!      |
//!  Connection ---- windows, hangup ----> pump (a task of its own)
//!                                          |- channel::session   what to do
//!                                          |- writer             control frames pass between messages
//!                                          |- backlog            commands and Acks, in order, bounded
//! ```
//!
//! The actor is a thin shell, so it answers at once whatever the socket does. The pump runs beside it;
//! should it panic, the shell still tells the Supervisor.

mod backlog;
mod pump;
mod shared;
mod writer;

use super::life::Life;
use super::messages::{
    Acked, AreYouThere, BarrierPassed, ChildExit, Hangup, LinkChanged, LinkGone, LinkLost, LinkUp, RoundTrip,
    ServerCommand, Submit, TakeSeq, Transmit,
};
use crate::channel::dial::Dialer;
use crate::wire::v1;
use actix::prelude::*;
use pump::Pump;
use shared::Shared;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};
use writer::Window;

/// Windows that wait behind the one that is being written. The Queue has at most 256 messages or
/// 4 MiB in flight; two keep the socket busy, more would only hide a slow peer from it.
const WAITING_WINDOWS: usize = 2;

/// What one connection is made with.
pub struct ConnectionDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// Dials once.
    pub dialer: Box<dyn Dialer>,
    /// The first message.
    pub register: v1::Register,
    /// Whom it talks to.
    pub neighbours: ConnectionNeighbours,
}

/// Whom a connection talks to: given with it, and again after one of them was replaced. A listener
/// that is new then hears `LinkUp` where the link is up.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionNeighbours {
    /// The Queue: the seq of Register.
    pub take_seq: Recipient<TakeSeq>,
    /// The Queue: the Acks of Pings.
    pub submit: Recipient<Submit>,
    /// The Queue: what was read by the server.
    pub barrier_passed: Recipient<BarrierPassed>,
    /// The Queue: what the server answered end to end.
    pub acked: Recipient<Acked>,
    /// Who must know of the link: Queue and Heartbeat.
    pub listeners: Vec<LinkListener>,
    /// The Dispatcher.
    pub commands: Recipient<ServerCommand>,
    /// The Supervisor.
    pub link_changed: Recipient<LinkChanged>,
    /// The Supervisor.
    pub round_trip: Recipient<RoundTrip>,
}

/// Somebody who uses the link while it is up.
#[derive(Clone)]
pub struct LinkListener {
    /// Told once, after the configuration of RegisterAck was taken.
    pub up: Recipient<LinkUp>,
    /// Told at the end.
    pub lost: Recipient<LinkLost>,
}

/// The actor. See the module.
pub struct Connection {
    life: Life,
    shared: Rc<Shared>,
    windows: mpsc::Sender<Window>,
    /// Taken when it starts.
    pump: Option<Pump>,
    task: Option<tokio::task::AbortHandle>,
    /// Dropped at the end, which answers every Hangup.
    farewells: Vec<oneshot::Sender<()>>,
}

impl Connection {
    /// A connection that dials as soon as it is started.
    pub fn new(deps: ConnectionDeps) -> Self {
        let ConnectionDeps { life, dialer, register, neighbours } = deps;
        let (windows, waiting) = mpsc::channel(WAITING_WINDOWS);
        let shared = Rc::new(Shared::new(life.generation(), neighbours));
        let pump = Some(Pump::new(shared.clone(), dialer, register, waiting));
        Self { life, shared, windows, pump, task: None, farewells: Vec::new() }
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(pump) = self.pump.take() else { return ctx.stop() };
        self.shared.started(ctx.address().downgrade().recipient());
        // A task of its own: a panic in it arrives here as an error instead of tearing the context.
        let task = actix_rt::spawn(pump.live());
        self.task = Some(task.abort_handle());
        ctx.spawn(task.into_actor(self).map(|end, connection, ctx| {
            if let Ok(down) = end {
                connection.life.ends_as(ChildExit::Link(down));
            }
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.shared.link_lost();
        self.life.tell();
    }
}

impl Handler<Transmit> for Connection {
    type Result = ResponseFuture<Result<(), LinkGone>>;

    fn handle(&mut self, transmit: Transmit, _: &mut Context<Self>) -> Self::Result {
        let windows = self.windows.clone();
        // These futures are first polled in the order of their messages, and the channel is fair: so
        // windows keep their order also where they wait for room.
        Box::pin(async move {
            let (done, written) = oneshot::channel();
            let Transmit { envelopes, proof } = transmit;
            windows.send(Window { envelopes, proof, done }).await.map_err(|_| LinkGone)?;
            written.await.map_err(|_| LinkGone)
        })
    }
}

impl Handler<Hangup> for Connection {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Hangup, _: &mut Context<Self>) -> Self::Result {
        let (farewell, gone) = oneshot::channel();
        self.farewells.push(farewell);
        self.shared.hang_up();
        Box::pin(async move {
            let _ = gone.await;
        })
    }
}

impl Handler<AreYouThere> for Connection {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Context<Self>) {}
}

impl Handler<ConnectionNeighbours> for Connection {
    type Result = ();

    fn handle(&mut self, neighbours: ConnectionNeighbours, _: &mut Context<Self>) {
        self.shared.introduce(neighbours);
    }
}
