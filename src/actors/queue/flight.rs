//! The rolling window of one link: what was read ahead, what is in flight, which barriers are out. Pure:
//! the Queue reads, writes and removes as it says.

use super::backlog::Entry;
use crate::actors::messages::{Confirms, Outgoing, Proof, Transmit};
use crate::store::OutboxRecord;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Durable messages in flight at most: what the server has not confirmed (behaviour section 2).
pub const WINDOW_MESSAGES: usize = 256;

/// And their bytes, where messages are large; one larger message still goes alone.
pub const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// A barrier follows after so many messages: four in a window, so that while one is on its way back the
/// next ones are being written.
pub const BARRIER_MESSAGES: usize = WINDOW_MESSAGES / 4;

/// Or after so many bytes.
const BARRIER_BYTES: usize = WINDOW_BYTES / 4;

/// What is written at once: a heartbeat on a slow link waits for so much, and not for a window.
pub(super) const PART_BYTES: usize = 256 * 1024;

/// What the Queue is to read next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) after: u64,
    pub(super) max_count: usize,
    pub(super) max_bytes: usize,
}

/// Every message of a link: read once, in the order of seq, and never twice.
#[derive(Debug)]
pub(super) struct Flight {
    confirms: Confirms,
    /// The last seq that was read for this link.
    cursor: u64,
    reading: bool,
    /// What left the disk while a page was being read, which may still show it.
    left_meanwhile: BTreeSet<u64>,
    /// Read, not written yet.
    ahead: VecDeque<OutboxRecord>,
    ahead_bytes: usize,
    /// Written, not confirmed.
    in_flight: BTreeMap<u64, Entry>,
    in_flight_bytes: usize,
    /// Since the last barrier.
    unbarred: usize,
    unbarred_bytes: usize,
    /// Barriers on their way, and the last seq before each.
    barriers: VecDeque<(u64, u64)>,
}

impl Flight {
    pub(super) fn new(confirms: Confirms) -> Self {
        Self {
            confirms,
            cursor: 0,
            reading: false,
            left_meanwhile: BTreeSet::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            unbarred: 0,
            unbarred_bytes: 0,
            barriers: VecDeque::new(),
        }
    }

    /// What to read now, given up to where the disk is readable. Reads are a barrier's worth at least:
    /// one message a confirmation would keep the store busy with nothing else.
    pub(super) fn wanted(&self, readable_until: u64) -> Option<Wanted> {
        if self.reading || self.cursor >= readable_until {
            return None;
        }
        let max_count = WINDOW_MESSAGES.saturating_sub(self.in_flight.len() + self.ahead.len());
        let max_bytes = WINDOW_BYTES.saturating_sub(self.in_flight_bytes + self.ahead_bytes);
        let worth_it = max_count >= BARRIER_MESSAGES && max_bytes >= BARRIER_BYTES;
        worth_it.then_some(Wanted { after: self.cursor, max_count, max_bytes })
    }

    /// That is being read.
    pub(super) fn begins_reading(&mut self) {
        self.reading = true;
    }

    /// It will not come.
    pub(super) fn stop_reading(&mut self) {
        self.reading = false;
        self.left_meanwhile.clear();
    }

    /// It came: these, of which the disk was readable up to `until`, and `newest` is the last that was
    /// looked at.
    pub(super) fn read(&mut self, records: Vec<OutboxRecord>, newest: Option<u64>, until: u64) {
        self.cursor = newest.unwrap_or(until).min(until).max(self.cursor);
        let gone = std::mem::take(&mut self.left_meanwhile);
        self.reading = false;
        for record in records {
            if record.seq <= until && !gone.contains(&record.seq) {
                self.ahead_bytes += record.envelope.len();
                self.ahead.push_back(record);
            }
        }
    }

    /// The next part to write. None where nothing is there, or the window is full.
    pub(super) fn next_part(&mut self, next_token: &mut u64) -> Option<Transmit> {
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        while let Some(size) = self.next_size()
            && (envelopes.is_empty() || bytes + size <= PART_BYTES)
            && !self.barrier_is_due()
            && let Some(OutboxRecord { seq, kind, envelope }) = self.ahead.pop_front()
        {
            bytes += size;
            self.ahead_bytes -= size;
            self.in_flight_bytes += size;
            self.in_flight.insert(seq, Entry { seq, kind, bytes: size as u64 });
            self.unbarred += 1;
            self.unbarred_bytes += size;
            envelopes.push(Outgoing { seq, envelope });
        }
        let last = envelopes.last()?.seq;
        let proof = match self.confirms {
            Confirms::Acks => {
                (self.unbarred, self.unbarred_bytes) = (0, 0);
                Proof::Acks
            }
            // Where nothing can follow now, the barrier must not wait for what comes some day.
            Confirms::Pongs if self.barrier_is_due() || self.next_size().is_none() => {
                *next_token += 1;
                self.barriers.push_back((*next_token, last));
                (self.unbarred, self.unbarred_bytes) = (0, 0);
                Proof::Barrier(*next_token)
            }
            Confirms::Pongs => Proof::None,
        };
        Some(Transmit { envelopes, proof })
    }

    /// The size of the next message, where it may go into the window.
    fn next_size(&self) -> Option<usize> {
        let size = self.ahead.front()?.envelope.len();
        let fits = self.in_flight.len() < WINDOW_MESSAGES && self.in_flight_bytes + size <= WINDOW_BYTES;
        (fits || self.in_flight.is_empty()).then_some(size)
    }

    fn barrier_is_due(&self) -> bool {
        self.unbarred >= BARRIER_MESSAGES || self.unbarred_bytes >= BARRIER_BYTES
    }

    /// What the barrier proves that came back: everything before it that was not proved. An unknown one
    /// proves nothing.
    pub(super) fn barrier_passed(&mut self, token: u64) -> Vec<Entry> {
        let Some(at) = self.barriers.iter().position(|(known, _)| *known == token) else {
            return Vec::new();
        };
        let Some((_, last)) = self.barriers.drain(..=at).next_back() else {
            return Vec::new();
        };
        let later = self.in_flight.split_off(&last.saturating_add(1));
        let confirmed: Vec<_> = std::mem::replace(&mut self.in_flight, later).into_values().collect();
        self.in_flight_bytes -= bytes_of(&confirmed);
        confirmed
    }

    /// The message that the server answered; None where it is not in flight.
    pub(super) fn acked(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.in_flight.remove(&seq)?;
        self.in_flight_bytes -= bytes_of(&[entry]);
        Some(entry)
    }

    /// These have left the disk: what is not written yet of them will not be, and the confirmation of
    /// the others means nothing more.
    pub(super) fn left(&mut self, gone: &[Entry]) {
        for entry in gone {
            if let Some(entry) = self.in_flight.remove(&entry.seq) {
                self.in_flight_bytes -= bytes_of(&[entry]);
            }
        }
        let gone: BTreeSet<_> = gone.iter().map(|entry| entry.seq).collect();
        self.ahead.retain(|record| !gone.contains(&record.seq));
        self.ahead_bytes = self.ahead.iter().map(|record| record.envelope.len()).sum();
        if self.reading {
            self.left_meanwhile.extend(gone);
        }
    }

    /// Messages that were written and not confirmed.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.len() as u64
    }
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| usize::try_from(entry.bytes).unwrap_or(usize::MAX)).sum()
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
