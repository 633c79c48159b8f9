//! Messages that the server answered and that are still on the disk: they leave it in one transaction a
//! time, which takes everything that was answered while the one before was on its way.

use super::backlog::{Entry, seqs_of};
use crate::store::Change;

/// Answered and not removed: past it no more is read for a link. A store that is so far behind would let
/// a crash send all of these again.
const MAX_WAITING: usize = 4_096;

/// What leaves, and where to.
#[derive(Debug, Default)]
struct Batch {
    /// The server has them.
    confirmed: Vec<Entry>,
    /// The server refuses them for good: the quarantine keeps them.
    refused: Vec<Entry>,
}

impl Batch {
    fn len(&self) -> usize {
        self.confirmed.len() + self.refused.len()
    }

    fn contains(&self, seq: u64) -> bool {
        self.confirmed.iter().chain(&self.refused).any(|entry| entry.seq == seq)
    }

    fn append(&mut self, later: &mut Self) {
        self.confirmed.append(&mut later.confirmed);
        self.refused.append(&mut later.refused);
    }

    fn take_out(&mut self, gone: &[Entry]) {
        super::backlog::take_out(&mut self.confirmed, gone);
        super::backlog::take_out(&mut self.refused, gone);
    }
}

/// What has left.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) entries: Vec<Entry>,
    pub(super) confirmed: u64,
    pub(super) refused: u64,
}

/// The messages on their way off the disk.
#[derive(Debug, Default)]
pub(super) struct Removal {
    waiting: Batch,
    /// Given to the store, which has not answered.
    sent: Option<Batch>,
    /// The store refused the last: it is tried again at its time, not at every confirmation.
    pub(super) paused: bool,
}

impl Removal {
    pub(super) fn confirm(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.waiting.confirmed.extend(entries);
    }

    pub(super) fn refuse(&mut self, entry: Entry) {
        self.waiting.refused.push(entry);
    }

    /// The changes to commit now: all that waits, unless some are on their way.
    pub(super) fn begin(&mut self) -> Option<Vec<Change>> {
        if self.sent.is_some() || self.paused || self.waiting.len() == 0 {
            return None;
        }
        let batch = std::mem::take(&mut self.waiting);
        let mut changes = Vec::with_capacity(2);
        if !batch.confirmed.is_empty() {
            changes.push(Change::Remove(seqs_of(&batch.confirmed)));
        }
        if !batch.refused.is_empty() {
            changes.push(Change::SetAside(seqs_of(&batch.refused)));
        }
        self.sent = Some(batch);
        Some(changes)
    }

    /// They are off the disk.
    pub(super) fn done(&mut self) -> Removed {
        let Batch { mut confirmed, mut refused } = self.sent.take().unwrap_or_default();
        let (confirmed_count, refused_count) = (confirmed.len() as u64, refused.len() as u64);
        confirmed.append(&mut refused);
        Removed { entries: confirmed, confirmed: confirmed_count, refused: refused_count }
    }

    /// They are not, as far as is known.
    pub(super) fn failed(&mut self) {
        if let Some(mut batch) = self.sent.take() {
            batch.append(&mut self.waiting);
            self.waiting = batch;
        }
    }

    /// Evicted meanwhile: counted once.
    pub(super) fn take_out(&mut self, gone: &[Entry]) {
        self.waiting.take_out(gone);
        if let Some(sent) = &mut self.sent {
            sent.take_out(gone);
        }
    }

    /// Whether the server has answered it already.
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.waiting.contains(seq) || self.sent.as_ref().is_some_and(|sent| sent.contains(seq))
    }

    /// Whether the store is too far behind for more to be sent.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.len() + self.sent.as_ref().map_or(0, Batch::len) >= MAX_WAITING
    }

    /// Whether the store has not answered.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.sent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MessageKind;

    fn entry(seq: u64) -> Entry {
        Entry { seq, kind: MessageKind::Run, bytes: 1 }
    }

    #[test]
    fn what_is_answered_meanwhile_goes_with_the_next_transaction() {
        let mut removal = Removal::default();
        assert_eq!(removal.begin(), None);
        removal.confirm([entry(1), entry(2)]);
        assert_eq!(removal.begin(), Some(vec![Change::Remove(vec![1, 2])]));
        removal.confirm([entry(3)]);
        removal.refuse(entry(4));
        removal.confirm([entry(5)]);
        assert_eq!(removal.begin(), None, "one at a time");
        assert!((1..=5).all(|seq| removal.contains(seq)));
        let removed = removal.done();
        assert_eq!((removed.entries.len(), removed.confirmed, removed.refused), (2, 2, 0));
        assert_eq!(removal.begin(), Some(vec![Change::Remove(vec![3, 5]), Change::SetAside(vec![4])]));
        removal.take_out(&[entry(5)]);
        assert_eq!((removal.done().confirmed, removal.contains(3)), (1, false));
    }

    #[test]
    fn a_failed_transaction_is_tried_again_whole_and_with_what_came_since() {
        let mut removal = Removal::default();
        removal.confirm([entry(1)]);
        removal.begin();
        removal.confirm([entry(2)]);
        removal.failed();
        removal.paused = true;
        assert_eq!(removal.begin(), None);
        removal.paused = false;
        assert_eq!(removal.begin(), Some(vec![Change::Remove(vec![1, 2])]));
    }
}
