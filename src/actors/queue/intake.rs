//! A message comes in: durable ones take a seq and go to the disk, in order, once there is room.

use super::backlog::{Entry, take_out};
use super::notice::Evicted;
use super::outflow::Ephemeral;
use super::slots::Latest;
use super::{Queue, metrics, seqs_of};
use crate::actors::messages::{Commit, QueueError, ReadOutbox, Submit, Submitted};
use crate::model::{DeliveryClass, MessageKind, RunId, unix_ms};
use crate::store::{Change, OutboxPage, OutboxRecord, StoreError};
use crate::wire::{self, EnvelopeError, MAX_MESSAGE_BYTES, Payload};
use actix::prelude::*;
use std::future::ready;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Durable messages that wait to be written, at most: each holds its sender, so this is only ever met
/// by a fault, and keeps that fault from filling the memory.
const MAX_ENTRANTS: usize = 4_096;

/// Messages that one step of making room chooses at most.
const EVICT_MESSAGES: usize = 256;

type Answer = Result<Submitted, QueueError>;

/// A durable message that has no seq yet.
#[derive(Debug)]
pub(super) struct Entrant {
    payload: Payload,
    correlation_id: String,
    with: Vec<Change>,
    kind: MessageKind,
    /// At least its bytes on disk.
    size: u64,
    from: Origin,
}

/// A durable message on its way to the disk.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) from: Origin,
    /// The run that it ends.
    ended: Option<RunId>,
}

/// Who hears what became of it.
#[derive(Debug)]
pub(super) enum Origin {
    Sender(oneshot::Sender<Answer>),
    /// The queue itself tells what it dropped.
    Notice(Evicted),
}

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
                self.enter(Entrant { payload, correlation_id, with, kind, size, from }, ctx)
            }
            DeliveryClass::Latest(_) | DeliveryClass::Ephemeral if !with.is_empty() => {
                Err(QueueError::NotDurable)
            }
            DeliveryClass::Latest(slot) => {
                self.slots.put(slot, Latest { payload, correlation_id });
                // A sender that went away does not want to know.
                let _ = answer.send(Ok(Submitted::InSlot));
                self.pump(ctx);
                Ok(())
            }
            DeliveryClass::Ephemeral => self.send_now(Ephemeral { payload, correlation_id, answer }, ctx),
        }
    }

    fn enter(&mut self, entrant: Entrant, ctx: &mut Context<Self>) -> Result<(), QueueError> {
        if !self.ready {
            return Err(QueueError::StoreGone);
        }
        let waiting = self.entrants.len() + self.storing.len();
        if waiting >= MAX_ENTRANTS {
            return Err(QueueError::Busy(waiting));
        }
        self.entrants.push_back(entrant);
        self.admit(ctx);
        Ok(())
    }

    /// Lets the messages that wait in, in their order, as far as there is room.
    pub(super) fn admit(&mut self, ctx: &mut Context<Self>) {
        while self.evicting.is_none()
            && let Some(size) = self.entrants.front().map(|entrant| entrant.size)
        {
            if !self.ready {
                self.refuse_first(QueueError::StoreGone);
                continue;
            }
            let bytes = self.backlog.bytes_to_be();
            let over = (bytes + size).saturating_sub(self.max_queue_bytes);
            if over > 0 {
                if over <= self.backlog.evictable_bytes() {
                    self.evict(over, ctx);
                } else if self.storing.is_empty() {
                    self.refuse_first(QueueError::Full { bytes, limit: self.max_queue_bytes });
                    continue;
                }
                // What is on its way to the disk may be evicted once it is there.
                return;
            }
            if self.seqs.peek().is_none() {
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
        self.quit_when_done(ctx);
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
            (Origin::Notice(_), Ok(_)) => {}
            (Origin::Notice(evicted), Err(error)) => {
                tracing::debug!(%error, "dropped messages are told later");
                self.notice.put_back(evicted);
            }
        }
    }

    /// Gives the message its seq and its time, for good, and brings it to the disk.
    fn store(&mut self, entrant: Entrant, ctx: &mut Context<Self>) {
        let Entrant { payload, correlation_id, with, kind, size: _, from } = entrant;
        let (Some(store), Some(seq)) = (&self.store, self.seqs.peek()) else {
            return self.answer(from, Err(QueueError::StoreGone));
        };
        let ended = wire::ended_run(&payload);
        let envelope = match wire::encode(seq, unix_ms(), &correlation_id, payload) {
            Ok(envelope) => envelope,
            Err(error) => return self.answer(from, Err(not_encoded(&error))),
        };
        let bytes = envelope.len() as u64;
        let mut changes = Vec::with_capacity(1 + with.len());
        changes.push(Change::Append(OutboxRecord { seq, kind, envelope }));
        changes.extend(with);
        let request = store.commit.send(Commit(changes));
        self.take_seq(ctx);
        self.backlog.arrives(Entry { seq, kind, bytes });
        self.storing.insert(seq, Storing { from, ended });
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
        let Some(Storing { from, ended }) = self.storing.remove(&seq) else {
            return;
        };
        match answer {
            Ok(Ok(())) => {
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
        self.admit(ctx);
        self.pump(ctx);
    }

    /// Makes room for so many bytes, a step at a time: the oldest of the kind that goes first.
    fn evict(&mut self, bytes: u64, ctx: &mut Context<Self>) {
        let (Some(store), Some(kind)) = (&self.store, self.backlog.first_to_go()) else {
            return self.refuse_first(QueueError::StoreGone);
        };
        self.evicting = Some(Vec::new());
        let max_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let read = ReadOutbox { kind: Some(kind), after: 0, max_count: EVICT_MESSAGES, max_bytes };
        let request = store.read.send(read);
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| match answer {
            _ if epoch != act.store_epoch => {}
            Ok(Ok(page)) => act.evict_these(kind, page, ctx),
            refused => act.evicted(refused.map(|page| page.map(drop)), ctx),
        }));
    }

    fn evict_these(&mut self, kind: MessageKind, page: OutboxPage, ctx: &mut Context<Self>) {
        let gone: Vec<_> = page.set_aside.into_iter().map(Entry::from).collect();
        self.backlog.left(&gone);
        if page.records.is_empty() && gone.is_empty() {
            self.backlog.none_of(kind);
        }
        let chosen: Vec<_> = page.records.iter().map(entry_of).collect();
        let Some(store) = self.store.as_ref().filter(|_| !chosen.is_empty()) else {
            return self.evicted(Ok(Ok(())), ctx);
        };
        let request = store.commit.send(Commit(vec![Change::Remove(seqs_of(&chosen))]));
        self.evicting = Some(chosen);
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch == act.store_epoch {
                act.evicted(answer, ctx);
            }
        }));
    }

    fn evicted(&mut self, answer: Result<Result<(), StoreError>, MailboxError>, ctx: &mut Context<Self>) {
        let gone = self.evicting.take().unwrap_or_default();
        if let Ok(Ok(())) = answer {
            self.backlog.left(&gone);
            if let Some(link) = &mut self.link {
                link.forget(&gone);
            }
            if let Some(removing) = &mut self.removing {
                take_out(removing, &gone);
            }
            for entry in &gone {
                metrics::evicted(entry.kind);
                self.notice.count(entry.kind);
            }
            self.tell_evicted(ctx);
        } else {
            self.refuse_first(refusal(answer));
        }
        self.observe();
        self.admit(ctx);
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
        let (evicted, payload) = self.notice.take(now);
        let size = wire::size_bound("", &payload) as u64;
        let (kind, from) = (MessageKind::Log, Origin::Notice(evicted));
        let entrant = Entrant { payload, correlation_id: String::new(), with: Vec::new(), kind, size, from };
        if self.enter(entrant, ctx).is_err() {
            self.notice.put_back(evicted);
        }
    }
}

fn entry_of(record: &OutboxRecord) -> Entry {
    Entry { seq: record.seq, kind: record.kind, bytes: record.envelope.len() as u64 }
}

pub(super) fn not_encoded(error: &EnvelopeError) -> QueueError {
    match error {
        EnvelopeError::TooLarge { bytes } => QueueError::TooLarge { bytes: *bytes, limit: MAX_MESSAGE_BYTES },
        EnvelopeError::Undecodable(_) => QueueError::NotOurs,
    }
}

fn refusal(answer: Result<Result<(), StoreError>, MailboxError>) -> QueueError {
    match answer {
        Ok(Err(error)) => QueueError::Store(error),
        Ok(Ok(())) | Err(MailboxError::Closed | MailboxError::Timeout) => QueueError::StoreGone,
    }
}
