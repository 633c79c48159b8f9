//! What the server answered leaves the disk: what it has is removed, what it refuses for good goes to
//! the quarantine.

use super::backlog::{Entry, take_out};
use super::{Queue, RETRY, metrics};
use crate::actors::messages::{Acked, BarrierPassed, Commit};
use crate::model::MessageKind;
use crate::store::StoreError;
use actix::prelude::*;

/// Refusals of one link that are logged one by one: a server that refuses everything must not fill the
/// journal. The metric counts all.
const LOUD_REFUSALS: u64 = 10;

impl Handler<BarrierPassed> for Queue {
    type Result = ();

    fn handle(&mut self, BarrierPassed { generation, token }: BarrierPassed, ctx: &mut Self::Context) {
        if !self.is_link(generation) {
            return;
        }
        self.slots.proven(token);
        if let Some(link) = &mut self.link {
            self.removal.confirm(link.flight.barrier_passed(token));
        }
        self.go_on(ctx);
    }
}

impl Handler<Acked> for Queue {
    type Result = ();

    fn handle(&mut self, Acked { generation, seq, refused }: Acked, ctx: &mut Self::Context) {
        let link = self.link.as_mut().filter(|link| link.generation == generation);
        let Some(entry) = link.and_then(|link| link.flight.acked(seq)) else {
            return;
        };
        match refused {
            None => self.removal.confirm([entry]),
            Some(reason) => {
                self.log_refusal(entry, &reason);
                self.removal.refuse(entry);
            }
        }
        self.go_on(ctx);
    }
}

impl Queue {
    fn log_refusal(&mut self, entry: Entry, reason: &str) {
        let Entry { seq, kind, bytes } = entry;
        self.refusals_logged += 1;
        if self.refusals_logged > LOUD_REFUSALS {
            return tracing::debug!(
                seq,
                ?kind,
                bytes,
                reason,
                "the control plane refuses a message for good"
            );
        }
        match kind {
            MessageKind::Run => tracing::error!(
                seq,
                bytes,
                reason,
                "the control plane refuses the result of a run for good: it is kept in the quarantine of the state file. Compare the versions of agent and control plane"
            ),
            MessageKind::HealthResult | MessageKind::Log => tracing::warn!(
                seq,
                ?kind,
                bytes,
                reason,
                "the control plane refuses a message for good: it is kept in the quarantine of the state file"
            ),
        }
    }

    /// Removes what was answered since the last time, in one transaction.
    pub(super) fn remove(&mut self, ctx: &mut Context<Self>) {
        if !self.ready {
            return;
        }
        let (Some(store), Some(changes)) = (&self.store, self.removal.begin()) else {
            return;
        };
        let request = store.commit.send(Commit(changes));
        let epoch = self.store_epoch;
        ctx.spawn(request.into_actor(self).map(move |answer, act, ctx| {
            if epoch == act.store_epoch {
                act.removed(answer, ctx);
            }
        }));
    }

    fn removed(&mut self, answer: Result<Result<(), StoreError>, MailboxError>, ctx: &mut Context<Self>) {
        match answer {
            Ok(Ok(())) => {
                let entries = self.take_in_removed();
                self.backlog.left(&entries);
                if let Some(evicting) = &mut self.evicting {
                    take_out(&mut evicting.gone, &entries);
                }
                self.observe();
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "confirmed messages cannot be removed, and are tried again");
                self.removal.failed();
                self.removal.paused = true;
                ctx.run_later(RETRY, |act, ctx| {
                    act.removal.paused = false;
                    act.go_on(ctx);
                });
            }
            // The next store is asked again, not this one.
            Err(_) => {
                self.removal.failed();
                self.removal.paused = true;
            }
        }
        self.go_on(ctx);
    }

    /// Counts what has left the disk. A page that is being read may still show it.
    pub(super) fn take_in_removed(&mut self) -> Vec<Entry> {
        let removed = self.removal.done();
        if let Some(link) = &mut self.link {
            link.flight.left(&removed.entries);
        }
        metrics::confirmed(removed.confirmed);
        metrics::refused(removed.refused);
        self.refused += removed.refused;
        removed.entries
    }
}
