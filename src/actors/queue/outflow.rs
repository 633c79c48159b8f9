//! Messages go out. One `Transmit` at a time, so that the order on the wire is the queue's.

use super::backlog::{Entry, take_out};
use super::intake::not_encoded;
use super::link::{Link, PART_BYTES, Stage, WINDOW_BYTES, WINDOW_MESSAGES, Window};
use super::{Queue, RETRY, metrics, seqs_of};
use crate::actors::messages::{
    BarrierPassed, Commit, Generation, LinkGone, LinkLost, LinkUp, Outgoing, QueueError, ReadOutbox,
    Submitted, Transmit,
};
use crate::model::unix_ms;
use crate::store::{Change, OutboxPage, StoreError};
use crate::wire::{self, Payload};
use actix::prelude::*;
use tokio::sync::oneshot;

/// Ephemeral messages that wait for the link, at most: more means that it does not keep up, and a late
/// sign of life is none.
const MAX_EPHEMERALS: usize = 16;

/// A message that is sent now or never.
#[derive(Debug)]
pub(super) struct Ephemeral {
    pub(super) payload: Payload,
    pub(super) correlation_id: String,
    pub(super) answer: oneshot::Sender<Result<Submitted, QueueError>>,
}

/// Senders who hear when what they sent is written.
pub(super) type Senders = Vec<oneshot::Sender<Result<Submitted, QueueError>>>;

impl Queue {
    pub(super) fn send_now(
        &mut self,
        ephemeral: Ephemeral,
        ctx: &mut Context<Self>,
    ) -> Result<(), QueueError> {
        if self.link.is_none() {
            return Err(QueueError::NotConnected);
        }
        if self.ephemerals.len() >= MAX_EPHEMERALS {
            return Err(QueueError::Busy(self.ephemerals.len()));
        }
        self.ephemerals.push_back(ephemeral);
        self.pump(ctx);
        Ok(())
    }

    /// Gives the link the next thing to write, or reads it, where there is one.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = self.link.as_mut().filter(|link| !link.writing) else {
            return;
        };
        // After something urgent a part of the window has its turn.
        let part = |link: &mut Link| match &mut link.stage {
            Stage::Window(window) => window.next_part(),
            Stage::Idle | Stage::Reading => None,
        };
        if std::mem::take(&mut link.window_next)
            && let Some(part) = part(link)
        {
            return self.transmit(part, Vec::new(), ctx);
        }
        let (envelopes, senders) = self.take_urgent(ctx);
        if !envelopes.is_empty() {
            if let Some(link) = &mut self.link {
                link.window_next = true;
            }
            return self.transmit(Transmit { envelopes, barrier: None }, senders, ctx);
        }
        match self.link.as_mut().and_then(part) {
            Some(part) => self.transmit(part, Vec::new(), ctx),
            None => self.read_window(ctx),
        }
    }

    /// Ephemeral messages and slots, up to a part's size.
    fn take_urgent(&mut self, ctx: &mut Context<Self>) -> (Vec<Outgoing>, Senders) {
        let (mut envelopes, mut senders, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(ephemeral) = self.ephemerals.pop_front()
        {
            let Some(seq) = self.take_seq(ctx) else {
                let _ = ephemeral.answer.send(Err(self.no_seq()));
                continue;
            };
            let Ephemeral { payload, correlation_id, answer } = ephemeral;
            match wire::encode(seq, unix_ms(), &correlation_id, payload) {
                Ok(envelope) => {
                    bytes += envelope.len();
                    envelopes.push(Outgoing { seq, envelope });
                    senders.push(answer);
                }
                Err(error) => drop(answer.send(Err(not_encoded(&error)))),
            }
        }
        while bytes < PART_BYTES
            && !self.slots.is_empty()
            && let Some(seq) = self.take_seq(ctx)
            && let Some(latest) = self.slots.take()
        {
            match wire::encode(seq, unix_ms(), &latest.correlation_id, latest.payload) {
                Ok(envelope) => {
                    bytes += envelope.len();
                    envelopes.push(Outgoing { seq, envelope });
                }
                Err(error) => tracing::warn!(%error, "a message cannot be sent"),
            }
        }
        (envelopes, senders)
    }

    fn transmit(&mut self, transmit: Transmit, senders: Senders, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.writing = true;
        let epoch = link.epoch;
        let request = link.transmit.send(transmit);
        self.in_transit = senders;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if act.link.as_ref().is_some_and(|link| link.epoch == epoch) {
                act.written(&answer, ctx);
            }
        }));
    }

    fn written(&mut self, answer: &Result<Result<(), LinkGone>, MailboxError>, ctx: &mut Context<Self>) {
        if !matches!(answer, Ok(Ok(()))) {
            return self.lose_link();
        }
        if let Some(link) = &mut self.link {
            link.writing = false;
        }
        for sender in self.in_transit.drain(..) {
            // A sender that went away does not want to know.
            let _ = sender.send(Ok(Submitted::Sent));
        }
        self.slots.sent();
        self.pump(ctx);
    }

    /// Reads the next window, unless what was confirmed before is still on the disk.
    fn read_window(&mut self, ctx: &mut Context<Self>) {
        let until = self.backlog.readable_until();
        let (Some(store), Some(link)) = (&self.store, &mut self.link) else {
            return;
        };
        if !self.ready || self.removing.is_some() || !link.can_read(until) {
            return;
        }
        link.stage = Stage::Reading;
        let epochs = (link.epoch, self.store_epoch);
        let request = store.read.send(ReadOutbox {
            kind: None,
            after: link.cursor,
            max_count: WINDOW_MESSAGES,
            max_bytes: WINDOW_BYTES,
        });
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epochs.1 == act.store_epoch {
                act.window_answered(epochs.0, until, answer, ctx);
            }
        }));
    }

    fn window_answered(
        &mut self,
        epoch: u64,
        until: u64,
        answer: Result<Result<OutboxPage, StoreError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(Ok(page)) => self.window_read(epoch, until, page, ctx),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the queue cannot be read, and is tried again");
                ctx.run_later(RETRY, move |act, ctx| {
                    act.read_again(epoch);
                    act.pump(ctx);
                });
            }
            // The next store makes the queue go on.
            Err(_) => self.read_again(epoch),
        }
    }

    fn window_read(&mut self, epoch: u64, until: u64, page: OutboxPage, ctx: &mut Context<Self>) {
        let OutboxPage { mut records, set_aside } = page;
        let gone: Vec<_> = set_aside.into_iter().map(Entry::from).collect();
        self.backlog.left(&gone);
        self.observe();
        let reading = |link: &&mut Link| link.epoch == epoch && matches!(link.stage, Stage::Reading);
        let Some(link) = self.link.as_mut().filter(reading) else {
            return;
        };
        // Behind `until`, an older message may still be on its way to the disk.
        records.retain(|record| record.seq <= until);
        let newest = records.last().map(|record| record.seq).max(gone.iter().map(|entry| entry.seq).max());
        link.cursor = newest.unwrap_or(until).min(until).max(link.cursor);
        if records.is_empty() {
            link.stage = Stage::Idle;
        } else {
            self.next_token += 1;
            link.stage = Stage::Window(Window::new(self.next_token, records));
        }
        self.pump(ctx);
    }

    fn read_again(&mut self, epoch: u64) {
        if let Some(link) = self.link.as_mut().filter(|link| link.epoch == epoch) {
            link.stop_reading();
        }
    }

    /// These are with the server: they leave the disk.
    fn confirm(&mut self, confirmed: Vec<Entry>, ctx: &mut Context<Self>) {
        self.removing = Some(confirmed);
        self.remove(ctx);
    }

    pub(super) fn remove(&mut self, ctx: &mut Context<Self>) {
        let (Some(store), Some(confirmed)) = (&self.store, &self.removing) else {
            return;
        };
        if self.remove_sent {
            return;
        }
        let request = store.commit.send(Commit(vec![Change::Remove(seqs_of(confirmed))]));
        self.remove_sent = true;
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch == act.store_epoch {
                act.remove_sent = false;
                act.removed(answer, ctx);
            }
        }));
    }

    fn removed(&mut self, answer: Result<Result<(), StoreError>, MailboxError>, ctx: &mut Context<Self>) {
        match answer {
            Ok(Ok(())) => {
                let confirmed = self.removing.take().unwrap_or_default();
                self.backlog.left(&confirmed);
                if let Some(evicting) = &mut self.evicting {
                    take_out(evicting, &confirmed);
                }
                metrics::confirmed(confirmed.len() as u64);
                self.observe();
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "confirmed messages cannot be removed, and are tried again");
                ctx.run_later(RETRY, Self::remove);
            }
            // The next store is asked again.
            Err(_) => {}
        }
        self.admit(ctx);
        self.pump(ctx);
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.slots.link_lost();
        let waiting = self.ephemerals.drain(..).map(|ephemeral| ephemeral.answer);
        for sender in self.in_transit.drain(..).chain(waiting) {
            let _ = sender.send(Err(QueueError::NotConnected));
        }
    }

    fn is_link(&self, generation: Generation) -> bool {
        self.link.as_ref().is_some_and(|link| link.generation == generation)
    }
}

impl Handler<LinkUp> for Queue {
    type Result = ();

    /// Everything that is not confirmed goes out, from the oldest on.
    fn handle(&mut self, up: LinkUp, ctx: &mut Self::Context) {
        self.lose_link();
        self.links += 1;
        self.link = Some(Link::new(up.generation, up.link, self.links));
        self.tell_evicted(ctx);
        self.pump(ctx);
    }
}

impl Handler<LinkLost> for Queue {
    type Result = ();

    fn handle(&mut self, lost: LinkLost, _: &mut Self::Context) {
        if self.is_link(lost.generation) {
            self.lose_link();
        }
    }
}

impl Handler<BarrierPassed> for Queue {
    type Result = ();

    fn handle(&mut self, BarrierPassed { generation, token }: BarrierPassed, ctx: &mut Self::Context) {
        let Some(link) = &mut self.link else {
            return;
        };
        if let Some(confirmed) = link.barrier_passed(generation, token) {
            self.confirm(confirmed, ctx);
        }
    }
}
