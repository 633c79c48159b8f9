//! What goes to the server, in which order, how sure, and how much may wait.
//!
//! A durable message takes a seq and goes to the StateStore; its sender hears after the commit. From
//! there messages go to the link through a rolling window: read by a cursor, in the order of seq, at most
//! [`WINDOW_MESSAGES`] or [`WINDOW_BYTES`] unconfirmed, however many wait. A delivery barrier follows every
//! [`BARRIER_MESSAGES`]; what its pong proves, or the server's own acks where they were agreed on, leaves
//! the disk in one transaction, and the next are read into its room. When the link ends first, the next
//! link begins with the oldest again: same seq, same time. Slots and ephemeral messages go between.
//!
//! | file | what |
//! |---|---|
//! | `intake` | a message comes in; it waits for room and a seq, and goes to the disk |
//! | `eviction` | room is made |
//! | `outflow` | messages go out |
//! | `confirmation` | what the server has leaves the disk |
//! | `flight`, `removal`, `backlog`, `slots`, `notice`, `seq` | the states of these, without an actor |
//! | `trouble` | new work is refused while the disk has no room for it |
//! | `link`, `waiting` | a link; who waits for an answer |
//!
//! None of the first four calls another: what changed one's state is told by `Queue::go_on`, and all of
//! them look at once, after everything that waits in the mailbox.

mod backlog;
mod confirmation;
mod eviction;
mod flight;
mod intake;
mod link;
mod metrics;
mod notice;
mod outflow;
mod removal;
mod seq;
mod slots;
mod trouble;
mod waiting;

pub use flight::{BARRIER_MESSAGES, WINDOW_BYTES, WINDOW_MESSAGES};
pub use metrics::describe;

use super::life::Life;
use super::messages::{
    AreYouThere, ChildExit, Commit, GetQueueStatus, QueueError, Quit, ReadOutbox, Recover, TakeSeq,
};
use crate::model::{QueueStatus, unix_ms};
use crate::store::{Change, Recovered, StoreError};
use actix::prelude::*;
use backlog::Backlog;
use eviction::Evicting;
use link::Link;
use notice::Notice;
use removal::Removal;
use seq::SeqSource;
use slots::Slots;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;
use trouble::Trouble;
use waiting::{Entrant, Ephemeral, Senders, Storing};

/// Messages in the mailbox before senders are pushed back.
const MAILBOX: usize = 256;

/// After an error of the store that was no refusal, the same is tried again after so long.
const RETRY: Duration = Duration::from_secs(5);

/// What a Queue is made of.
#[derive(Debug)]
pub struct QueueDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// `state.max_queue_bytes`: what the messages need on disk.
    pub max_queue_bytes: u64,
    /// No seq of this life is lower: unix milliseconds. A state directory that was lost must not bring
    /// seqs back that the server has seen: it would take new messages for old ones.
    pub first_seq: u64,
}

/// The StateStore, given at start and after it was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct QueueNeighbours {
    /// To make messages durable.
    pub commit: Recipient<Commit>,
    /// To read them back.
    pub read: Recipient<ReadOutbox>,
    /// To go on where an earlier life ended.
    pub recover: Recipient<Recover>,
}

/// Let in what waits, let out what can go.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct GoOn;

/// The actor.
pub struct Queue {
    life: Life,
    max_queue_bytes: u64,
    first_seq: u64,
    /// Why new work is refused now.
    trouble: Option<Trouble>,
    store: Option<QueueNeighbours>,
    /// Counts the stores: what an earlier one answers late is ignored.
    store_epoch: u64,
    /// The store has said what is there.
    ready: bool,
    seqs: SeqSource,
    reserving: bool,
    reserve_error: Option<StoreError>,
    backlog: Backlog,
    /// Durable messages that wait for room or a seq, in the order in which they came.
    entrants: VecDeque<Entrant>,
    /// Given to the store, by seq.
    storing: BTreeMap<u64, Storing>,
    /// Room is being made.
    evicting: Option<Evicting>,
    /// Why no room could be made, for the first that waits.
    no_room: Option<QueueError>,
    link: Option<Link>,
    links: u64,
    next_token: u64,
    slots: Slots,
    ephemerals: VecDeque<Ephemeral>,
    /// Who waits for the `Transmit` that the link has not answered.
    in_transit: Senders,
    removal: Removal,
    /// Messages that the server refused for good, since the start.
    refused: u64,
    refusals_logged: u64,
    notice: Notice,
    notice_timer: bool,
    /// A `GoOn` is on its way.
    going_on: bool,
    quitters: Vec<oneshot::Sender<()>>,
}

impl Queue {
    /// Answers [`QueueError::StoreGone`] until its neighbours are known.
    pub fn new(deps: QueueDeps) -> Self {
        Self {
            life: deps.life,
            max_queue_bytes: deps.max_queue_bytes,
            first_seq: deps.first_seq,
            trouble: None,
            store: None,
            store_epoch: 0,
            ready: false,
            seqs: SeqSource::default(),
            reserving: false,
            reserve_error: None,
            backlog: Backlog::default(),
            entrants: VecDeque::new(),
            storing: BTreeMap::new(),
            evicting: None,
            no_room: None,
            link: None,
            links: 0,
            // The pong of a barrier that an earlier life asked for on the same link means nothing here.
            next_token: unix_ms() << 16,
            slots: Slots::default(),
            ephemerals: VecDeque::new(),
            in_transit: Senders::new(),
            removal: Removal::default(),
            refused: 0,
            refusals_logged: 0,
            notice: Notice::default(),
            notice_timer: false,
            going_on: false,
            quitters: Vec::new(),
        }
    }

    /// Asks the store what is there and reserves the first seqs; nothing else is done meanwhile.
    fn recover(&mut self, ctx: &mut Context<Self>) {
        let Some(store) = self.store.clone() else {
            return;
        };
        let epoch = self.store_epoch;
        // What the server has and an earlier store did not remove is not to be counted as waiting.
        let changes = self.removal.begin();
        let recovering = async move {
            let removed = match changes {
                Some(changes) => matches!(store.commit.send(Commit(changes)).await, Ok(Ok(()))),
                None => false,
            };
            (removed, store.recover.send(Recover).await)
        };
        ctx.wait(recovering.into_actor(self).map(move |(removed, answer), act, ctx| {
            if removed {
                act.take_in_removed();
            } else {
                act.removal.failed();
            }
            match answer {
                Ok(Ok(recovered)) => act.recovered(&recovered, ctx),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the queue cannot be read, and is tried again");
                    ctx.run_later(RETRY, move |act, ctx| {
                        if act.store_epoch == epoch {
                            act.recover(ctx);
                        }
                    });
                }
                // The Supervisor brings the next store.
                Err(_) => {}
            }
        }));
    }

    fn recovered(&mut self, recovered: &Recovered, ctx: &mut Context<Self>) {
        self.backlog.begin(&recovered.outbox);
        self.seqs.begin(recovered.next_seq.max(self.first_seq));
        self.notice.recovered(recovered.dropped);
        self.removal.paused = false;
        self.ready = true;
        self.observe();
        self.go_on(ctx);
        // Who asks for a seq or sends a message before the first reservation is on disk waits for it.
        if let Some(reserving) = self.reserve() {
            ctx.wait(reserving);
        }
        tracing::info!(
            waiting = self.backlog.depth(),
            next_seq = self.seqs.next(),
            "the queue goes on where it was"
        );
    }

    /// Nothing that was asked of the earlier store will be answered.
    fn forget_store(&mut self) {
        self.ready = false;
        self.reserving = false;
        self.removal.failed();
        self.evicting = None;
        for (_, storing) in std::mem::take(&mut self.storing) {
            self.answer(storing.from, Err(QueueError::StoreGone));
        }
        if let Some(link) = &mut self.link {
            link.flight.stop_reading();
        }
    }

    /// Takes a seq and sees to it that there are more.
    fn take_seq(&mut self, ctx: &mut Context<Self>) -> Option<u64> {
        let seq = self.seqs.take(unix_ms());
        if let Some(reserving) = self.reserve() {
            ctx.spawn(reserving);
        }
        seq
    }

    /// Writes a reservation where too few seqs are in hand.
    fn reserve(&mut self) -> Option<ResponseActFuture<Self, ()>> {
        let until = self.seqs.wanted().filter(|_| !self.reserving && self.ready)?;
        let request = self.store.as_ref()?.commit.send(Commit(vec![Change::ReserveSeq(until)]));
        self.reserving = true;
        let epoch = self.store_epoch;
        Some(Box::pin(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch != act.store_epoch {
                return;
            }
            act.reserving = false;
            match answer {
                Ok(Ok(())) => {
                    act.seqs.reserved(until);
                    act.reserve_error = None;
                }
                Ok(Err(error)) => {
                    act.seqs.refused();
                    act.reserve_error = Some(error);
                }
                Err(_) => {}
            }
            act.go_on(ctx);
        })))
    }

    /// Why no seq is in hand.
    fn no_seq(&self) -> QueueError {
        self.reserve_error.clone().map_or(QueueError::StoreGone, QueueError::Store)
    }

    fn observe(&self) {
        metrics::pending(self.backlog.depth(), self.backlog.bytes());
    }

    /// Something changed: everybody looks what there is to do, once, after what waits in the mailbox.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.going_on, true) {
            ctx.notify(GoOn);
        }
    }

    /// The end, once nothing is on its way to the disk.
    fn quit_when_done(&mut self, ctx: &mut Context<Self>) {
        let busy = !self.entrants.is_empty() || !self.storing.is_empty() || self.removal.is_on_its_way();
        if self.quitters.is_empty() || busy {
            return;
        }
        self.life.ends_as(ChildExit::Stopped);
        for quitter in self.quitters.drain(..) {
            let _ = quitter.send(());
        }
        ctx.stop();
    }
}

impl Actor for Queue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.tell();
    }
}

impl Handler<GoOn> for Queue {
    type Result = ();

    fn handle(&mut self, _: GoOn, ctx: &mut Self::Context) {
        self.going_on = false;
        self.tell_evicted(ctx);
        self.admit(ctx);
        self.remove(ctx);
        self.pump(ctx);
        self.quit_when_done(ctx);
    }
}

impl Handler<QueueNeighbours> for Queue {
    type Result = ();

    fn handle(&mut self, neighbours: QueueNeighbours, ctx: &mut Self::Context) {
        self.store = Some(neighbours);
        self.store_epoch += 1;
        self.forget_store();
        self.recover(ctx);
    }
}

impl Handler<TakeSeq> for Queue {
    type Result = Result<u64, QueueError>;

    fn handle(&mut self, _: TakeSeq, ctx: &mut Self::Context) -> Self::Result {
        self.take_seq(ctx).ok_or_else(|| self.no_seq())
    }
}

impl Handler<GetQueueStatus> for Queue {
    type Result = MessageResult<GetQueueStatus>;

    fn handle(&mut self, _: GetQueueStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(QueueStatus {
            depth: self.backlog.depth(),
            bytes: self.backlog.bytes(),
            in_flight: self.link.as_ref().map_or(0, |link| link.flight.in_flight()),
            last_seq: self.seqs.last(),
            evicted: self.notice.total,
            refused: self.refused,
        })
    }
}

impl Handler<AreYouThere> for Queue {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl Handler<Quit> for Queue {
    type Result = ResponseFuture<()>;

    /// Answered when every message that was submitted is on disk or refused.
    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) -> Self::Result {
        let (quitter, done) = oneshot::channel();
        self.quitters.push(quitter);
        self.tell_evicted_now(ctx);
        self.go_on(ctx);
        Box::pin(async move {
            // An actor that ended without saying so has finished as well.
            let _ = done.await;
        })
    }
}
