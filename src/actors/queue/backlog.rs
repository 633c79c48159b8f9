//! The durable messages in numbers: never the messages themselves, whatever waits.

use crate::model::MessageKind;
use crate::store::{MESSAGE_OVERHEAD_BYTES, OutboxRecord, OutboxTotals, SetAside};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that go when the queue is full, in this order. Results of runs never go (behaviour section 2).
const EVICTABLE: [MessageKind; 2] = [MessageKind::Log, MessageKind::HealthResult];

/// A message as far as bounds and confirmation must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) kind: MessageKind,
    pub(super) bytes: u64,
}

impl From<&OutboxRecord> for Entry {
    fn from(record: &OutboxRecord) -> Self {
        Self { seq: record.seq, kind: record.kind, bytes: record.envelope.len() as u64 }
    }
}

impl From<SetAside> for Entry {
    fn from(record: SetAside) -> Self {
        Self { seq: record.seq, kind: record.kind, bytes: record.bytes }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    messages: u64,
    bytes: u64,
}

/// What is on disk, and what is on its way there.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    on_disk: BTreeMap<MessageKind, Count>,
    /// Given to the store, not answered yet. Bounded by the senders that may wait.
    arriving: BTreeMap<u64, Entry>,
    arriving_bytes: u64,
    /// The newest seq that was committed.
    last_seq: u64,
}

impl Backlog {
    /// Begins with what the store found. What was on its way to an earlier store is either among it or
    /// was never stored.
    pub(super) fn begin(&mut self, totals: &OutboxTotals) {
        self.arriving.clear();
        self.arriving_bytes = 0;
        self.on_disk = totals
            .by_kind
            .iter()
            .map(|(kind, messages, bytes)| (*kind, Count { messages: *messages, bytes: *bytes }))
            .collect();
        self.last_seq = totals.last_seq.unwrap_or(0);
    }

    /// This one goes to the store.
    pub(super) fn arrives(&mut self, entry: Entry) {
        self.arriving_bytes += entry.bytes;
        self.arriving.insert(entry.seq, entry);
    }

    /// It is there.
    pub(super) fn arrived(&mut self, seq: u64) {
        let Some(entry) = self.no_longer_arriving(seq) else {
            return;
        };
        let count = self.on_disk.entry(entry.kind).or_default();
        count.messages += 1;
        count.bytes += entry.bytes;
        self.last_seq = self.last_seq.max(seq);
    }

    /// The store refused it.
    pub(super) fn refused(&mut self, seq: u64) {
        self.no_longer_arriving(seq);
    }

    fn no_longer_arriving(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.arriving.remove(&seq)?;
        self.arriving_bytes -= entry.bytes;
        Some(entry)
    }

    /// These are no longer on disk.
    pub(super) fn left(&mut self, entries: &[Entry]) {
        for entry in entries {
            let count = self.on_disk.entry(entry.kind).or_default();
            count.messages = count.messages.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(entry.bytes);
        }
    }

    /// None of that kind is on disk after all.
    pub(super) fn none_of(&mut self, kind: MessageKind) {
        self.on_disk.remove(&kind);
    }

    /// Messages of that kind on disk.
    pub(super) fn messages_of(&self, kind: MessageKind) -> u64 {
        self.on_disk.get(&kind).map_or(0, |count| count.messages)
    }

    /// Messages on disk.
    pub(super) fn depth(&self) -> u64 {
        self.on_disk.values().map(|count| count.messages).sum()
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.on_disk.values().map(|count| count.bytes).sum()
    }

    /// What the file needs for the messages on disk and on their way there: more than their bytes, and for
    /// small ones far more.
    pub(super) fn need(&self) -> u64 {
        let messages = self.depth() + self.arriving.len() as u64;
        self.bytes() + self.arriving_bytes + messages * MESSAGE_OVERHEAD_BYTES
    }

    /// What of it may go to make room.
    pub(super) fn evictable(&self) -> u64 {
        let need = |count: &Count| count.bytes + count.messages * MESSAGE_OVERHEAD_BYTES;
        EVICTABLE.iter().filter_map(|kind| self.on_disk.get(kind)).map(need).sum()
    }

    /// The kind whose oldest goes next to make room.
    pub(super) fn first_to_go(&self) -> Option<MessageKind> {
        EVICTABLE.into_iter().find(|kind| self.messages_of(*kind) > 0)
    }

    /// Up to here every seq is decided: on disk or never there. A reader who stops here passes over
    /// nothing that is still on its way.
    pub(super) fn readable_until(&self) -> u64 {
        let decided = self.arriving.first_key_value().map_or(u64::MAX, |(seq, _)| seq.saturating_sub(1));
        self.last_seq.min(decided)
    }
}

pub(super) fn seqs_of(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

/// Takes the entries with these seqs out of a list.
pub(super) fn take_out(list: &mut Vec<Entry>, gone: &[Entry]) {
    if !gone.is_empty() && !list.is_empty() {
        let gone: BTreeSet<_> = gone.iter().map(|entry| entry.seq).collect();
        list.retain(|entry| !gone.contains(&entry.seq));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry { seq, kind: MessageKind::Log, bytes: 10 }
    }

    #[test]
    fn a_reader_stops_before_the_first_undecided_message() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.readable_until(), 0);
        (1..=3).for_each(|seq| backlog.arrives(entry(seq)));
        backlog.arrived(2);
        assert_eq!(backlog.readable_until(), 0, "1 may still come");
        backlog.refused(1);
        assert_eq!(backlog.readable_until(), 2);
        backlog.arrived(3);
        assert_eq!(backlog.readable_until(), 3);
    }

    #[test]
    fn what_is_on_its_way_counts_for_the_bound_and_not_for_the_depth() {
        let mut backlog = Backlog::default();
        backlog.arrives(entry(1));
        backlog.arrives(entry(2));
        backlog.arrived(1);
        let need = |messages| messages * (10 + MESSAGE_OVERHEAD_BYTES);
        assert_eq!((backlog.depth(), backlog.bytes(), backlog.need()), (1, 10, need(2)));
        backlog.left(&[entry(1)]);
        assert_eq!((backlog.depth(), backlog.bytes(), backlog.need()), (0, 0, need(1)));
    }
}
