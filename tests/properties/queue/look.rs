//! The real thing held against the model.

use super::world::World;
use crate::bench::{Wire, crashed_copy, key};
use backupy_agent::actors::messages::GetQueueStatus;
use backupy_agent::actors::queue::WINDOW_MESSAGES;
use backupy_agent::model::MessageKind;
use backupy_agent::store::{OutboxRecord, Store};
use backupy_agent::wire::{self, Payload};
use bytes::Bytes;
use std::collections::BTreeSet;

/// How many a LogEvent of the queue's own tells of.
pub(super) fn told_by(envelope: &[u8]) -> Option<u64> {
    let Some(Payload::Log(event)) = wire::decode(envelope).unwrap().payload else { return None };
    let field = |name: &str| event.fields.get(name)?.parse::<u64>().ok();
    Some(field("dropped_log_events")? + field("dropped_health_results")?)
}

impl World {
    /// What a crash would leave now: the outbox, and how many evicted messages are still to be told.
    pub(super) fn on_disk(&self) -> (Vec<OutboxRecord>, u64) {
        let copy = crashed_copy(self.bench.dir.path());
        let (mut store, recovered) = Store::open_read_only(copy.path(), &key()).unwrap();
        let page = store.read_outbox(None, 0, usize::MAX, usize::MAX).unwrap();
        (page.records, recovered.dropped.logs + recovered.dropped.health_results)
    }

    /// The durable messages that the present link was given since the last look.
    fn newly_given(&mut self) -> Vec<(u64, Bytes)> {
        let told = self.wire.as_ref().map(Wire::told).unwrap_or_default();
        let given = told.into_iter().flat_map(|part| part.envelopes).skip(self.looked).collect::<Vec<_>>();
        self.looked += given.len();
        let is_durable = |envelope: &Bytes| match wire::decode(envelope).unwrap().payload {
            Some(Payload::Heartbeat(_)) => false,
            Some(Payload::JobUpdate(update)) => update.run_id != "goes on",
            _ => true,
        };
        given.into_iter().map(|out| (out.seq, out.envelope)).filter(|(_, bytes)| is_durable(bytes)).collect()
    }

    pub(super) async fn look(&mut self) {
        let (records, untold) = self.on_disk();
        // The queue's own events, which nobody submitted.
        for record in &records {
            if !self.waiting.contains_key(&record.seq)
                && let Some(told) = told_by(&record.envelope)
            {
                self.told += told;
                self.waiting.insert(record.seq, record.kind);
                self.highest = self.highest.max(record.seq);
            }
        }
        let there: BTreeSet<_> = records.iter().map(|record| record.seq).collect();
        assert!(there.iter().all(|seq| self.waiting.contains_key(seq)), "confirmed, and still there");
        self.look_at_evictions(&there, untold);
        self.look_at_the_link().await;
        let status = self.bench.queue.send(GetQueueStatus).await.unwrap();
        assert_eq!(status.depth, self.waiting.len() as u64);
        assert!(status.bytes <= self.max_bytes);
        assert_eq!(status.in_flight, self.in_flight.len() as u64);
        if self.wire.is_some() {
            assert_eq!(status.in_flight > 0, !self.waiting.is_empty(), "a link that is up is used");
        }
    }

    fn look_at_evictions(&mut self, there: &BTreeSet<u64>, untold: u64) {
        let gone: Vec<_> = self
            .waiting
            .iter()
            .filter(|(seq, _)| !there.contains(seq))
            .map(|(seq, kind)| (*seq, *kind))
            .collect();
        for (seq, kind) in gone {
            assert_ne!(kind, MessageKind::Run, "{seq}: a run's is never evicted");
            let oldest = self.waiting.iter().find(|(seq, other)| **other == kind && there.contains(seq));
            assert!(oldest.is_none_or(|(oldest, _)| *oldest > seq), "{seq} went before {oldest:?}");
            self.waiting.remove(&seq);
            self.in_flight.remove(&seq);
            self.evicted += 1;
        }
        assert_eq!(self.told + untold, self.evicted, "told {} and still to tell {untold}", self.told);
    }

    async fn look_at_the_link(&mut self) {
        let mut last = self.in_flight.last().copied().unwrap_or(0);
        for (seq, envelope) in self.newly_given() {
            assert!(seq > last, "{seq} after {last}");
            last = seq;
            let before = self.seen.entry(seq).or_insert_with(|| envelope.clone());
            assert_eq!(*before, envelope, "{seq} is not what it was");
            if self.waiting.contains_key(&seq) {
                self.in_flight.insert(seq);
            }
        }
        assert!(self.in_flight.len() <= WINDOW_MESSAGES);
    }
}
