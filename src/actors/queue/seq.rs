//! Where seqs come from: reserved on disk in blocks before any is used, so that none is used twice,
//! whatever kills the agent, and without a write a message.

/// Seqs that one write reserves.
pub(super) const BLOCK: u64 = 1_024;

/// Seqs in hand beyond which no more are reserved. While the disk is full none can be: heartbeats every
/// 30 s go on for more than five days with these. A restart skips what was not used, out of 2^64.
pub(super) const AHEAD: u64 = 16 * 1_024;

/// The seqs of one life.
///
/// While the disk takes no reservation, seqs are given without one: each life begins at the clock's
/// milliseconds at least, and what is given without a reservation stays below the clock, so that no life
/// meets what another gave. No agent sends a thousand messages a second for long, which is what would
/// make the reserved ones overtake the clock; then the next one waits until the clock is there.
#[derive(Debug, Default)]
pub(super) struct SeqSource {
    next: u64,
    /// The first that is not reserved.
    reserved: u64,
    /// The disk did not take the last reservation.
    refused: bool,
}

impl SeqSource {
    /// Goes on from what the store says no life has used; nothing is in hand yet. A life that goes on
    /// with a new store never goes back.
    pub(super) fn begin(&mut self, next_seq: u64) {
        self.next = self.next.max(next_seq);
        self.reserved = self.next;
    }

    /// The seq that [`SeqSource::take`] gives next; None where none is in hand.
    pub(super) fn peek(&self, now_ms: u64) -> Option<u64> {
        let unreserved = self.refused && self.next < now_ms;
        (self.next < self.reserved || unreserved).then_some(self.next)
    }

    /// A seq that nobody has used.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<u64> {
        let seq = self.peek(now_ms)?;
        self.next += 1;
        Some(seq)
    }

    /// The reservation that a durable message with the next seq must bring along, where there is none.
    pub(super) fn missing(&self) -> Option<u64> {
        (self.next >= self.reserved).then(|| self.next.saturating_add(AHEAD))
    }

    /// The disk did not take a reservation.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// The reservation to write now, where too few are in hand.
    pub(super) fn wanted(&self) -> Option<u64> {
        let in_hand = self.reserved.saturating_sub(self.next);
        (in_hand <= AHEAD - BLOCK).then(|| self.next.saturating_add(AHEAD))
    }

    /// That reservation is on disk.
    pub(super) fn reserved(&mut self, until: u64) {
        self.reserved = self.reserved.max(until);
        self.refused = false;
    }

    /// The seq that comes next, reserved or not.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The last seq given out; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that says nothing.
    const NOW: u64 = 0;

    #[test]
    fn no_seq_is_given_before_it_is_reserved() {
        let mut seqs = SeqSource::default();
        assert_eq!(seqs.take(NOW), None);
        seqs.begin(7);
        assert_eq!(seqs.take(NOW), None);
        let until = seqs.wanted().unwrap();
        seqs.reserved(until);
        let given: Vec<_> = std::iter::from_fn(|| seqs.take(NOW)).collect();
        assert_eq!(given, (7..until).collect::<Vec<_>>());
    }

    #[test]
    fn a_block_is_used_before_the_next_is_asked_for() {
        let mut seqs = SeqSource::default();
        seqs.begin(1);
        seqs.reserved(seqs.wanted().unwrap());
        let writes = (0..10 * BLOCK).filter(|_| {
            seqs.take(NOW).unwrap();
            seqs.wanted().inspect(|until| seqs.reserved(*until)).is_some()
        });
        assert_eq!(writes.count(), 10);
    }

    #[test]
    fn a_new_store_never_brings_an_old_seq_back() {
        let mut seqs = SeqSource::default();
        seqs.begin(100);
        seqs.reserved(200);
        (100..150).for_each(|seq| assert_eq!(seqs.take(NOW), Some(seq)));
        seqs.begin(120);
        seqs.reserved(300);
        assert_eq!(seqs.take(NOW), Some(150));
    }

    #[test]
    fn while_the_disk_takes_no_reservation_seqs_stay_below_the_clock() {
        let mut seqs = SeqSource::default();
        seqs.begin(1_000);
        assert_eq!(seqs.take(5_000), None, "a reservation may still come");
        seqs.refused();
        assert_eq!(seqs.missing(), Some(1_000 + AHEAD));
        assert_eq!((seqs.take(1_001), seqs.take(1_001), seqs.take(1_002)), (Some(1_000), None, Some(1_001)));
        // The next life begins at its clock, which is past all of them.
        let mut next = SeqSource::default();
        next.begin(1_002);
        next.refused();
        assert_eq!(next.take(1_003), Some(1_002));
        seqs.reserved(2_000);
        assert_eq!((seqs.take(0), seqs.missing()), (Some(1_002), None));
    }
}
