//! A message comes in: durable ones take a seq and go to the disk, in order, once there is room.

use super::Queue;
use super::backlog::Entry;
use super::slots::Latest;
use super::waiting::{Answer, Entrant, Ephemeral, Origin, Storing, not_encoded, refusal};
use crate::actors::messages::{Commit, QueueError, Submit, Submitted};
use crate::model::{DeliveryClass, MessageKind, unix_ms};
use crate::store::{Change, MESSAGE_OVERHEAD_BYTES, OutboxRecord, StoreError};
use crate::wire::{self, MAX_MESSAGE_BYTES};
use actix::prelude::*;
use std::future::ready;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Durable messages that wait to be written, at most: each holds its sender, so this is only ever met
/// by a fault, and keeps that fault from filling the memory.
const MAX_ENTRANTS: usize = 4_096;

/// Ephemeral messages that wait for the link, at most: more means that it does not keep up, and a late
/// sign of life is none.
const MAX_EPHEMERALS: usize = 16;

impl Handler<Submit> for Queue {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, submit: Submit, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        if let Err(error) = self.take_in(submit, answer, ctx) {
            return Box::pin(ready(Err(error)));
        }
        Box::pin(async move { answered.await.unwrap_or(Err(QueueError::StoreGone)) })
    }
}

impl Queue {
    fn take_in(
        &mut self,
        submit: Submit,
        answer: oneshot::Sender<Answer>,
        ctx: &mut Context<Self>,
    ) -> Result<(), QueueError> {
        let Submit { payload, correlation_id, with, ephemeral } = submit;
        let class = wire::class_of(&payload).ok_or(QueueError::NotOurs)?;
        let bytes = wire::size_bound(&correlation_id, &payload);
        if bytes > MAX_MESSAGE_BYTES {
            return Err(QueueError::TooLarge { bytes, limit: MAX_MESSAGE_BYTES });
        }
        let class = if ephemeral { DeliveryClass::Ephemeral } else { class };
        match class {
            DeliveryClass::Durable(kind) => {
                let (size, from) = (bytes as u64, Origin::Sender(answer));
                self.enter(Entrant { payload, correlation_id, with, kind, size, from }, ctx);
                Ok(())
            }
            DeliveryClass::Latest(_) | DeliveryClass::Ephemeral if !with.is_empty() => {
                Err(QueueError::NotDurable)
            }
            DeliveryClass::Latest(slot) => {
                self.slots.put(slot, Latest { payload, correlation_id });
                // A sender that went away does not want to know.
                let _ = answer.send(Ok(Submitted::InSlot));
                self.go_on(ctx);
                Ok(())
            }
            DeliveryClass::Ephemeral => self.send_now(Ephemeral { payload, correlation_id, answer }, ctx),
        }
    }

    fn send_now(&mut self, ephemeral: Ephemeral, ctx: &mut Context<Self>) -> Result<(), QueueError> {
        if self.link.is_none() {
            return Err(QueueError::NotConnected);
        }
        if self.ephemerals.len() >= MAX_EPHEMERALS {
            return Err(QueueError::Busy(self.ephemerals.len()));
        }
        self.ephemerals.push_back(ephemeral);
        self.go_on(ctx);
        Ok(())
    }

    pub(super) fn enter(&mut self, entrant: Entrant, ctx: &mut Context<Self>) {
        let waiting = self.entrants.len() + self.storing.len();
        if !self.ready {
            self.answer(entrant.from, Err(QueueError::StoreGone));
        } else if waiting >= MAX_ENTRANTS {
            self.answer(entrant.from, Err(QueueError::Busy(waiting)));
        } else if let Err(error) = self.refuse_new_work(entrant.kind, &entrant.with) {
            self.answer(entrant.from, Err(error));
        } else {
            self.entrants.push_back(entrant);
            self.admit(ctx);
        }
    }

    /// Lets the messages that wait in, in their order, as far as there is room.
    pub(super) fn admit(&mut self, ctx: &mut Context<Self>) {
        while self.evicting.is_none()
            && let Some(size) = self.entrants.front().map(|entrant| entrant.size)
        {
            if let Some(error) = self.no_room.take() {
                self.refuse_first(error);
                continue;
            }
            if !self.ready {
                self.refuse_first(QueueError::StoreGone);
                continue;
            }
            let bytes = self.backlog.need();
            let over = (bytes + size + MESSAGE_OVERHEAD_BYTES).saturating_sub(self.max_queue_bytes);
            if over > 0 {
                if over <= self.backlog.evictable() {
                    self.evict(over, ctx);
                    // What is on its way to the disk may be evicted once it is there.
                    if self.evicting.is_none() {
                        continue;
                    }
                } else if self.storing.is_empty() {
                    self.refuse_first(QueueError::Full { bytes, limit: self.max_queue_bytes });
                    continue;
                }
                return;
            }
            if self.seqs.peek(unix_ms()).is_none() {
                if self.reserving {
                    return;
                }
                self.refuse_first(self.no_seq());
                // The next sender is the next attempt.
                if let Some(reserving) = self.reserve() {
                    ctx.spawn(reserving);
                }
                continue;
            }
            if let Some(entrant) = self.entrants.pop_front() {
                self.store(entrant, ctx);
            }
        }
        if self.entrants.is_empty() {
            self.no_room = None;
        }
    }

    fn refuse_first(&mut self, error: QueueError) {
        if let Some(entrant) = self.entrants.pop_front() {
            self.answer(entrant.from, Err(error));
        }
    }

    pub(super) fn answer(&mut self, from: Origin, answer: Answer) {
        match (from, answer) {
            (Origin::Sender(sender), answer) => {
                // A sender that went away does not want to know.
                let _ = sender.send(answer);
            }
            (Origin::Notice(told), Ok(_)) => self.notice.told(told),
            (Origin::Notice(told), Err(error)) => {
                tracing::debug!(%error, "dropped messages are told later");
                self.notice.put_back(told);
            }
        }
    }

    /// Gives the message its seq and its time, for good, and brings it to the disk.
    fn store(&mut self, entrant: Entrant, ctx: &mut Context<Self>) {
        let Entrant { payload, correlation_id, with, kind, size: _, from } = entrant;
        let (Some(store), Some(seq)) = (&self.store, self.seqs.peek(unix_ms())) else {
            return self.answer(from, Err(QueueError::StoreGone));
        };
        let ended = wire::ended_run(&payload);
        let envelope = match wire::encode(seq, unix_ms(), &correlation_id, payload) {
            Ok(envelope) => envelope,
            Err(error) => return self.answer(from, Err(not_encoded(&error))),
        };
        let bytes = envelope.len() as u64;
        let reservation = self.seqs.missing();
        let mut changes = Vec::with_capacity(3 + with.len());
        changes.extend(reservation.map(Change::ReserveSeq));
        changes.push(Change::Append(OutboxRecord { seq, kind, envelope }));
        changes.extend(with);
        if let Origin::Notice(_) = &from {
            changes.push(Change::PutDropped(self.notice.left_to_tell()));
        }
        let request = store.commit.send(Commit(changes));
        self.take_seq(ctx);
        self.backlog.arrives(Entry { seq, kind, bytes });
        self.storing.insert(seq, Storing { from, ended, reservation });
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch == act.store_epoch {
                act.stored(seq, answer, ctx);
            }
        }));
    }

    fn stored(
        &mut self,
        seq: u64,
        answer: Result<Result<(), StoreError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(Storing { from, ended, reservation }) = self.storing.remove(&seq) else {
            return;
        };
        match answer {
            Ok(Ok(())) => {
                if let Some(until) = reservation {
                    self.seqs.reserved(until);
                }
                self.backlog.arrived(seq);
                if let Some(run_id) = &ended {
                    self.slots.run_ended(run_id);
                }
                // What was promised, for whoever must prove that it was kept: before anybody acts on it.
                tracing::trace!(seq, "a durable message is on disk");
                self.answer(from, Ok(Submitted::OnDisk(seq)));
            }
            refused => {
                self.backlog.refused(seq);
                self.answer(from, Err(refusal(refused)));
            }
        }
        self.observe();
        self.go_on(ctx);
    }

    /// Tells the server what was dropped, when it can hear it and has not heard it just now.
    pub(super) fn tell_evicted(&mut self, ctx: &mut Context<Self>) {
        if self.link.is_none() || self.notice_timer {
            return;
        }
        match self.notice.due_in(Instant::now()) {
            None => {}
            Some(wait) if wait.is_zero() => self.tell_evicted_now(ctx),
            Some(wait) => {
                self.notice_timer = true;
                ctx.run_later(wait, |act, ctx| {
                    act.notice_timer = false;
                    act.tell_evicted(ctx);
                });
            }
        }
    }

    pub(super) fn tell_evicted_now(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if self.notice.due_in(now).is_none() {
            return;
        }
        let (told, payload) = self.notice.take(now);
        let size = wire::size_bound("", &payload) as u64;
        // Not a LogEvent to the bounds: what tells of the evicted must not be evicted.
        let (kind, from) = (MessageKind::Run, Origin::Notice(told));
        let entrant = Entrant { payload, correlation_id: String::new(), with: Vec::new(), kind, size, from };
        self.enter(entrant, ctx);
    }
}
