//! Where seqs come from: reserved on disk in blocks before any is used, so that none is used twice,
//! whatever kills the agent, and without a write a message.

/// Seqs that one write reserves.
pub(super) const BLOCK: u64 = 1_024;

/// Seqs in hand beyond which no more are reserved. While the disk is full none can be: heartbeats every
/// 30 s go on for more than five days with these. A restart skips what was not used, out of 2^64.
pub(super) const AHEAD: u64 = 16 * 1_024;

/// The seqs of one life.
#[derive(Debug, Default)]
pub(super) struct SeqSource {
    next: u64,
    /// The first that is not reserved.
    reserved: u64,
}

impl SeqSource {
    /// Goes on from what the store says no life has used; nothing is in hand yet. A life that goes on
    /// with a new store never goes back.
    pub(super) fn begin(&mut self, next_seq: u64) {
        self.next = self.next.max(next_seq);
        self.reserved = self.next;
    }

    /// The seq that [`SeqSource::take`] gives next; None where none is in hand.
    pub(super) fn peek(&self) -> Option<u64> {
        (self.next < self.reserved).then_some(self.next)
    }

    /// A seq that nobody has used.
    pub(super) fn take(&mut self) -> Option<u64> {
        let seq = self.peek()?;
        self.next += 1;
        Some(seq)
    }

    /// The reservation to write now, where too few are in hand.
    pub(super) fn wanted(&self) -> Option<u64> {
        let in_hand = self.reserved.saturating_sub(self.next);
        (in_hand <= AHEAD - BLOCK).then(|| self.next.saturating_add(AHEAD))
    }

    /// That reservation is on disk.
    pub(super) fn reserved(&mut self, until: u64) {
        self.reserved = self.reserved.max(until);
    }

    /// The last seq given out; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seq_is_given_before_it_is_reserved() {
        let mut seqs = SeqSource::default();
        assert_eq!(seqs.take(), None);
        seqs.begin(7);
        assert_eq!(seqs.take(), None);
        let until = seqs.wanted().unwrap();
        seqs.reserved(until);
        let given: Vec<_> = std::iter::from_fn(|| seqs.take()).collect();
        assert_eq!(given, (7..until).collect::<Vec<_>>());
    }

    #[test]
    fn a_block_is_used_before_the_next_is_asked_for() {
        let mut seqs = SeqSource::default();
        seqs.begin(1);
        seqs.reserved(seqs.wanted().unwrap());
        let writes = (0..10 * BLOCK).filter(|_| {
            seqs.take().unwrap();
            seqs.wanted().inspect(|until| seqs.reserved(*until)).is_some()
        });
        assert_eq!(writes.count(), 10);
    }

    #[test]
    fn a_new_store_never_brings_an_old_seq_back() {
        let mut seqs = SeqSource::default();
        seqs.begin(100);
        seqs.reserved(200);
        (100..150).for_each(|seq| assert_eq!(seqs.take(), Some(seq)));
        seqs.begin(120);
        seqs.reserved(300);
        assert_eq!(seqs.take(), Some(150));
    }
}
