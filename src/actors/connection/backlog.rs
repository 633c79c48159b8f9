//! What the server asked and a neighbour has not taken yet: in order, bounded. While it is full the
//! connection reads no further, and TCP tells the server to wait.

use super::shared::Shared;
use crate::actors::messages::{Command, QueueError, ServerCommand, Submit};
use crate::channel::LinkDown;
use crate::channel::limits::NEIGHBOUR_TIMEOUT;
use crate::wire::{MAX_MESSAGE_BYTES, Payload, v1};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Commands come one by one and are taken at once; more than these wait only when something is wrong.
const MAX_WAITING: usize = 64;

/// What they hold in memory: one of the heaviest may wait, and then nothing more is read.
const MAX_WAITING_BYTES: usize = MAX_MESSAGE_BYTES;

/// What waits.
#[expect(clippy::large_enum_variant, reason = "at most 64 wait, and most of them are commands")]
pub(super) enum Delivery {
    /// For the Dispatcher, answered by it.
    Command { correlation_id: String, command: Command },
    /// After RegisterAck's configuration: the listeners hear that the link is up.
    LinkUp { heartbeat_interval: Duration },
    /// For the Queue, now or never.
    Ack(v1::Ack),
}

/// Two lanes, so that a Ping is answered while a command is being taken.
#[derive(Default)]
pub(super) struct Backlog {
    commands: Lane,
    acks: Lane,
    room: Notify,
}

#[derive(Default)]
struct Lane {
    waiting: RefCell<VecDeque<(Delivery, usize)>>,
    /// The one in hand included.
    count: Cell<usize>,
    bytes: Cell<usize>,
    wake: Notify,
}

impl Lane {
    fn push(&self, delivery: Delivery, bytes: usize) {
        self.waiting.borrow_mut().push_back((delivery, bytes));
        self.count.set(self.count.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.wake.notify_one();
    }

    /// A configuration that nobody waits for replaces the whole one before it, so that one need not be
    /// applied any more while it waits: a flood of versions costs the last one. Gives the delivery back
    /// where there is none to replace.
    fn renew(&self, delivery: Delivery, bytes: usize) -> Option<Delivery> {
        let newer = match delivery {
            Delivery::Command { command: Command::Configure(newer), correlation_id }
                if correlation_id.is_empty() =>
            {
                newer
            }
            other @ (Delivery::Command { .. } | Delivery::LinkUp { .. } | Delivery::Ack(_)) => {
                return Some(other);
            }
        };
        if let Some((Delivery::Command { command: Command::Configure(older), correlation_id }, held)) =
            self.waiting.borrow_mut().back_mut()
            && correlation_id.is_empty()
            && newer.version >= older.version
        {
            *older = newer;
            self.bytes.set(self.bytes.get() - std::mem::replace(held, bytes) + bytes);
            return None;
        }
        Some(Delivery::Command { command: Command::Configure(newer), correlation_id: String::new() })
    }

    async fn next(&self) -> (Delivery, usize) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(next) => return next,
                None => self.wake.notified().await,
            }
        }
    }

    fn done(&self, bytes: usize) {
        self.count.set(self.count.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
    }

    fn has_room(&self) -> bool {
        self.count.get() < MAX_WAITING && self.bytes.get() < MAX_WAITING_BYTES
    }
}

impl Backlog {
    /// `bytes` is what it holds in memory.
    pub(super) fn push(&self, delivery: Delivery, bytes: usize) {
        let lane = match delivery {
            Delivery::Ack(_) => &self.acks,
            Delivery::Command { .. } | Delivery::LinkUp { .. } => &self.commands,
        };
        if let Some(delivery) = lane.renew(delivery, bytes) {
            lane.push(delivery, bytes);
        }
    }

    /// Whether the connection may read on.
    pub(super) fn has_room(&self) -> bool {
        self.commands.has_room() && self.acks.has_room()
    }

    /// Completes when something was taken since the last time.
    pub(super) async fn shrunk(&self) {
        self.room.notified().await;
    }

    /// Delivers until a neighbour is gone, and says which.
    pub(super) async fn deliver(&self, shared: &Shared) -> LinkDown {
        tokio::select! {
            down = self.deliver_lane(&self.commands, shared) => down,
            down = self.deliver_lane(&self.acks, shared) => down,
        }
    }

    async fn deliver_lane(&self, lane: &Lane, shared: &Shared) -> LinkDown {
        loop {
            let (delivery, bytes) = lane.next().await;
            let outcome = match delivery {
                Delivery::Command { correlation_id, command } => {
                    command_taken(shared, ServerCommand { correlation_id, command }).await
                }
                Delivery::LinkUp { heartbeat_interval } => {
                    shared.link_up(heartbeat_interval);
                    Ok(())
                }
                Delivery::Ack(ack) => ack_taken(shared, ack).await,
            };
            if let Err(down) = outcome {
                return down;
            }
            lane.done(bytes);
            self.room.notify_one();
        }
    }
}

async fn command_taken(shared: &Shared, command: ServerCommand) -> Result<(), LinkDown> {
    let dispatcher = shared.neighbours().commands;
    answered("dispatcher", dispatcher.send(command)).await
}

async fn ack_taken(shared: &Shared, ack: v1::Ack) -> Result<(), LinkDown> {
    let correlation_id = ack.correlation_id.clone();
    let queue = shared.neighbours().submit;
    match answered("queue", queue.send(Submit::ephemeral(Payload::Ack(ack), correlation_id))).await? {
        Ok(_) | Err(QueueError::NotConnected) => {}
        Err(error) => tracing::warn!(%error, "the ack of a ping was not sent"),
    }
    Ok(())
}

/// A neighbour's answer, or that it is gone.
pub(super) async fn answered<T, E>(
    who: &'static str,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, LinkDown> {
    match timeout(NEIGHBOUR_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(LinkDown::NeighbourGone(who)),
    }
}
