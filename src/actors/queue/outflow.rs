//! Messages go out. One `Transmit` at a time, so that the order on the wire is the queue's.

use super::backlog::Entry;
use super::flight::PART_BYTES;
use super::link::Link;
use super::waiting::{Ephemeral, Senders, not_encoded};
use super::{Queue, RETRY};
use crate::actors::messages::{
    Generation, LinkGone, LinkLost, LinkUp, Outgoing, Proof, QueueError, ReadOutbox, Submitted, Transmit,
};
use crate::model::unix_ms;
use crate::store::{OutboxPage, StoreError};
use crate::wire;
use actix::prelude::*;

impl Queue {
    /// Gives the link the next thing to write, and reads ahead.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        self.read_ahead(ctx);
        let Some(link) = self.link.as_mut().filter(|link| !link.writing) else {
            return;
        };
        // After something urgent the durable messages have their turn.
        if std::mem::take(&mut link.durable_next)
            && let Some(part) = link.flight.next_part(&mut self.next_token)
        {
            return self.transmit(part, Vec::new(), ctx);
        }
        let (urgent, senders) = self.take_urgent(ctx);
        let Some(link) = self.link.as_mut() else {
            return;
        };
        if !urgent.envelopes.is_empty() {
            link.durable_next = true;
            self.transmit(urgent, senders, ctx);
        } else if let Some(part) = link.flight.next_part(&mut self.next_token) {
            self.transmit(part, Vec::new(), ctx);
        }
    }

    /// Ephemeral messages and slots, up to a part's size.
    fn take_urgent(&mut self, ctx: &mut Context<Self>) -> (Transmit, Senders) {
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
        let mut proof = Proof::None;
        while bytes < PART_BYTES
            && !self.slots.is_empty()
            && let Some(seq) = self.take_seq(ctx)
            && let Some(latest) = self.slots.take()
        {
            match wire::encode(seq, unix_ms(), &latest.correlation_id, latest.payload) {
                Ok(envelope) => {
                    bytes += envelope.len();
                    envelopes.push(Outgoing { seq, envelope });
                    if proof == Proof::None {
                        self.next_token += 1;
                        proof = Proof::Probe(self.next_token);
                    }
                }
                Err(error) => tracing::warn!(%error, "a message cannot be sent"),
            }
        }
        (Transmit { envelopes, proof }, senders)
    }

    fn transmit(&mut self, transmit: Transmit, senders: Senders, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.writing = true;
        let (epoch, proof) = (link.epoch, transmit.proof);
        let request = link.transmit.send(transmit);
        self.in_transit = senders;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if act.link.as_ref().is_some_and(|link| link.epoch == epoch) {
                act.written(proof, &answer, ctx);
            }
        }));
    }

    fn written(
        &mut self,
        proof: Proof,
        answer: &Result<Result<(), LinkGone>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
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
        match proof {
            Proof::Probe(token) => self.slots.sent(token),
            Proof::None | Proof::Barrier(_) | Proof::Acks => {}
        }
        self.pump(ctx);
    }

    /// Reads what fits into the window. What is confirmed and still on the disk is passed over.
    fn read_ahead(&mut self, ctx: &mut Context<Self>) {
        let until = self.backlog.readable_until();
        if !self.ready || self.removal.is_behind() {
            return;
        }
        let (Some(store), Some(link)) = (&self.store, &mut self.link) else {
            return;
        };
        let Some(wanted) = link.flight.wanted(until) else {
            return;
        };
        link.flight.begins_reading();
        let epochs = (link.epoch, self.store_epoch);
        let request = store.read.send(ReadOutbox {
            kind: None,
            after: wanted.after,
            max_count: wanted.max_count,
            max_bytes: wanted.max_bytes,
        });
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epochs.1 == act.store_epoch {
                act.page_answered(epochs.0, until, answer, ctx);
            }
        }));
    }

    fn page_answered(
        &mut self,
        epoch: u64,
        until: u64,
        answer: Result<Result<OutboxPage, StoreError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(Ok(page)) => self.page_read(epoch, until, page, ctx),
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

    fn page_read(&mut self, epoch: u64, until: u64, page: OutboxPage, ctx: &mut Context<Self>) {
        let OutboxPage { mut records, set_aside } = page;
        let gone: Vec<_> = set_aside.into_iter().map(Entry::from).collect();
        self.backlog.left(&gone);
        self.observe();
        let Some(link) = self.link.as_mut().filter(|link| link.epoch == epoch) else {
            return;
        };
        let newest = records.last().map(|record| record.seq).max(gone.iter().map(|entry| entry.seq).max());
        records.retain(|record| !self.removal.contains(record.seq));
        link.flight.read(records, newest, until);
        self.pump(ctx);
    }

    fn read_again(&mut self, epoch: u64) {
        if let Some(link) = self.link.as_mut().filter(|link| link.epoch == epoch) {
            link.flight.stop_reading();
        }
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.slots.link_lost();
        let waiting = self.ephemerals.drain(..).map(|ephemeral| ephemeral.answer);
        for sender in self.in_transit.drain(..).chain(waiting) {
            let _ = sender.send(Err(QueueError::NotConnected));
        }
    }

    pub(super) fn is_link(&self, generation: Generation) -> bool {
        self.link.as_ref().is_some_and(|link| link.generation == generation)
    }
}

impl Handler<LinkUp> for Queue {
    type Result = ();

    /// Everything that is not confirmed goes out, from the oldest on.
    fn handle(&mut self, up: LinkUp, ctx: &mut Self::Context) {
        self.lose_link();
        self.links += 1;
        self.refusals_logged = 0;
        self.link = Some(Link::new(up, self.links));
        self.go_on(ctx);
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
