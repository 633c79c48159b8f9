//! Room for new messages, where the queue is full: the oldest LogEvents go, then the oldest results of
//! health checks (behaviour section 2). What went is on disk until the server was told.

use super::backlog::{Entry, seqs_of};
use super::waiting::refusal;
use super::{Queue, metrics};
use crate::actors::messages::{Commit, QueueError, ReadOutbox};
use crate::model::MessageKind;
use crate::store::{Change, OutboxPage, StoreError};
use actix::prelude::*;

/// Messages that one step of making room chooses at most.
const EVICT_MESSAGES: usize = 256;

/// Chosen to make room; empty while they are being chosen.
#[derive(Debug, Default)]
pub(super) struct Evicting {
    pub(super) gone: Vec<Entry>,
    /// What of it the server does not have.
    dropped: Vec<MessageKind>,
}

impl Queue {
    /// Makes room for so many bytes, a step at a time: the oldest of the kind that goes first.
    pub(super) fn evict(&mut self, bytes: u64, ctx: &mut Context<Self>) {
        let (Some(store), Some(kind)) = (&self.store, self.backlog.first_to_go()) else {
            self.no_room = Some(QueueError::StoreGone);
            return;
        };
        self.evicting = Some(Evicting::default());
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
        let gone: Vec<_> = page.records.iter().map(Entry::from).collect();
        let Some(store) = self.store.as_ref().filter(|_| !gone.is_empty()) else {
            return self.evicted(Ok(Ok(())), ctx);
        };
        // What the server has already is leaving anyway: none of that is dropped.
        let dropped: Vec<_> =
            gone.iter().filter(|entry| !self.removal.contains(entry.seq)).map(|entry| entry.kind).collect();
        let untold = self.notice.with(dropped.iter().copied());
        let changes = vec![Change::Remove(seqs_of(&gone)), Change::PutDropped(untold)];
        let request = store.commit.send(Commit(changes));
        self.evicting = Some(Evicting { gone, dropped });
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch == act.store_epoch {
                act.evicted(answer, ctx);
            }
        }));
    }

    fn evicted(&mut self, answer: Result<Result<(), StoreError>, MailboxError>, ctx: &mut Context<Self>) {
        let Evicting { gone, dropped } = self.evicting.take().unwrap_or_default();
        if let Ok(Ok(())) = answer {
            self.backlog.left(&gone);
            if let Some(link) = &mut self.link {
                link.flight.left(&gone);
            }
            self.removal.take_out(&gone);
            for kind in dropped {
                metrics::evicted(kind);
                self.notice.count(kind);
            }
        } else {
            self.no_room = Some(refusal(answer));
        }
        self.observe();
        self.go_on(ctx);
    }
}
