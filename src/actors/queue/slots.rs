//! Messages of which only the newest counts: one slot a key.

use crate::model::{RunId, Slot};
use crate::wire::Payload;
use std::collections::BTreeMap;

/// What lies in a slot. Its seq and time are those of its sending.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    pub(super) payload: Payload,
    pub(super) correlation_id: String,
}

/// The slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    waiting: BTreeMap<Slot, Latest>,
    /// Given to the link, which has not answered.
    in_transit: BTreeMap<Slot, Latest>,
    /// Written, and followed by a ping with this token that has not come back: a link that breaks may
    /// have taken them with it.
    unproven: BTreeMap<Slot, (Latest, u64)>,
}

impl Slots {
    /// The newest wins.
    pub(super) fn put(&mut self, slot: Slot, latest: Latest) {
        self.waiting.insert(slot, latest);
    }

    /// The run is over: nothing of its progress is told any more.
    pub(super) fn run_ended(&mut self, run_id: &RunId) {
        let slot = Slot::Progress(run_id.clone());
        self.waiting.remove(&slot);
        self.in_transit.remove(&slot);
        self.unproven.remove(&slot);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One to be sent now.
    pub(super) fn take(&mut self) -> Option<Latest> {
        let (slot, latest) = self.waiting.pop_first()?;
        self.in_transit.insert(slot, latest.clone());
        Some(latest)
    }

    /// What was taken is written, and a ping with this token follows it.
    pub(super) fn sent(&mut self, token: u64) {
        for (slot, latest) in std::mem::take(&mut self.in_transit) {
            self.unproven.insert(slot, (latest, token));
        }
    }

    /// The pong of that ping, or of a later one, came back.
    pub(super) fn proven(&mut self, token: u64) {
        self.unproven.retain(|_, (_, waits_for)| *waits_for > token);
    }

    /// What the link is not known to have brought goes back, unless a newer one came.
    pub(super) fn link_lost(&mut self) {
        let unproven = std::mem::take(&mut self.unproven);
        let older = unproven.into_iter().map(|(slot, (latest, _))| (slot, latest));
        for (slot, latest) in std::mem::take(&mut self.in_transit).into_iter().chain(older) {
            self.waiting.entry(slot).or_insert(latest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn latest(number: u64) -> Latest {
        Latest { payload: Payload::Ping(v1::Ping { ts_ms: number }), correlation_id: String::new() }
    }

    fn numbers(slots: &mut Slots) -> Vec<u64> {
        std::iter::from_fn(|| slots.take())
            .map(|latest| {
                let Payload::Ping(ping) = latest.payload else { panic!("{:?}", latest.payload) };
                ping.ts_ms
            })
            .collect()
    }

    #[test]
    fn what_a_lost_link_did_not_write_goes_back_unless_a_newer_one_came() {
        let progress = |run: &str| Slot::Progress(RunId::from(run));
        let mut slots = Slots::default();
        for (slot, number) in [(Slot::Discovery, 1), (progress("a"), 2), (progress("b"), 3)] {
            slots.put(slot, latest(number));
        }
        assert_eq!(numbers(&mut slots), [1, 2, 3]);
        slots.put(progress("a"), latest(4));
        slots.run_ended(&RunId::from("b"));
        slots.link_lost();
        assert_eq!(numbers(&mut slots), [1, 4]);
    }

    #[test]
    fn what_was_written_goes_back_until_a_pong_proves_it_read() {
        let mut slots = Slots::default();
        slots.put(Slot::Discovery, latest(1));
        slots.put(Slot::Progress(RunId::from("a")), latest(2));
        assert_eq!(numbers(&mut slots), [1, 2]);
        slots.sent(7);
        slots.proven(6);
        slots.put(Slot::Discovery, latest(3));
        assert_eq!(numbers(&mut slots), [3]);
        slots.link_lost();
        assert_eq!(numbers(&mut slots), [3, 2], "the newest of each");
        slots.sent(8);
        slots.proven(8);
        slots.link_lost();
        assert_eq!(numbers(&mut slots), [] as [u64; 0]);
    }
}
