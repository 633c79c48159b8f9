//! What one link has been given: a cursor, and one window that waits for its barrier.

use super::backlog::{Entry, take_out};
use crate::actors::messages::{Generation, Outgoing, Transmit};
use crate::store::OutboxRecord;
use actix::prelude::*;
use std::collections::VecDeque;

/// Durable messages in flight at most: what a server's reader has not taken off the wire for sure.
pub const WINDOW_MESSAGES: usize = 256;

/// And their bytes, where messages are large; one larger message still goes alone.
pub const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// A window of large messages is written in parts of about so many bytes, so that a heartbeat on a slow
/// link waits for one part and not for 4 MiB.
pub(super) const PART_BYTES: usize = 256 * 1024;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: Generation,
    pub(super) transmit: Recipient<Transmit>,
    /// Told apart from a link of the same generation that came before.
    pub(super) epoch: u64,
    /// The last seq that was put in a window of this link.
    pub(super) cursor: u64,
    /// A `Transmit` is not answered yet: the next one waits, so that the order is ours.
    pub(super) writing: bool,
    /// Something urgent went last: the window has its turn.
    pub(super) window_next: bool,
    pub(super) stage: Stage,
}

/// What the durable messages do on this link.
#[derive(Debug)]
pub(super) enum Stage {
    /// The next window can be read.
    Idle,
    /// It is being read.
    Reading,
    /// It is being written, or waits for its barrier.
    Window(Window),
}

/// Messages between their first byte on the wire and the barrier behind the last.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) token: u64,
    unwritten: VecDeque<OutboxRecord>,
    /// Given to the link.
    pub(super) written: Vec<Entry>,
}

impl Link {
    pub(super) fn new(generation: Generation, transmit: Recipient<Transmit>, epoch: u64) -> Self {
        Self {
            generation,
            transmit,
            epoch,
            cursor: 0,
            writing: false,
            window_next: false,
            stage: Stage::Idle,
        }
    }

    /// Whether the next window may be read, given up to where the disk is readable.
    pub(super) fn can_read(&self, readable_until: u64) -> bool {
        matches!(self.stage, Stage::Idle) && self.cursor < readable_until
    }

    /// What is being read will not come.
    pub(super) fn stop_reading(&mut self) {
        if matches!(self.stage, Stage::Reading) {
            self.stage = Stage::Idle;
        }
    }

    /// Takes the window in whose barrier came back.
    pub(super) fn barrier_passed(&mut self, generation: Generation, token: u64) -> Option<Vec<Entry>> {
        let Stage::Window(window) = &mut self.stage else {
            return None;
        };
        if self.generation != generation || window.token != token || !window.unwritten.is_empty() {
            return None;
        }
        let confirmed = std::mem::take(&mut window.written);
        self.stage = Stage::Idle;
        Some(confirmed)
    }

    /// Messages given to the link and not confirmed.
    pub(super) fn in_flight(&self) -> u64 {
        match &self.stage {
            Stage::Window(window) => window.written.len() as u64,
            Stage::Idle | Stage::Reading => 0,
        }
    }

    /// These have left the disk: they are not to be removed again.
    pub(super) fn forget(&mut self, gone: &[Entry]) {
        if let Stage::Window(window) = &mut self.stage {
            take_out(&mut window.written, gone);
        }
    }
}

impl Window {
    /// A window of these, in their order; there is at least one.
    pub(super) fn new(token: u64, records: Vec<OutboxRecord>) -> Self {
        Self { token, unwritten: records.into(), written: Vec::new() }
    }

    /// The next part to write; the last one carries the barrier. None where all is written.
    pub(super) fn next_part(&mut self) -> Option<Transmit> {
        let mut bytes = 0;
        let mut envelopes = Vec::new();
        while let Some(record) = self.unwritten.front()
            && (envelopes.is_empty() || bytes + record.envelope.len() <= PART_BYTES)
            && let Some(OutboxRecord { seq, kind, envelope }) = self.unwritten.pop_front()
        {
            bytes += envelope.len();
            self.written.push(Entry { seq, kind, bytes: envelope.len() as u64 });
            envelopes.push(Outgoing { seq, envelope });
        }
        let barrier = self.unwritten.is_empty().then_some(self.token);
        (!envelopes.is_empty()).then_some(Transmit { envelopes, barrier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MessageKind;
    use bytes::Bytes;

    fn record(seq: u64, bytes: usize) -> OutboxRecord {
        OutboxRecord { seq, kind: MessageKind::Run, envelope: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_window_is_written_in_parts_and_the_barrier_follows_the_last() {
        let sizes = [100, PART_BYTES - 100, 1, 2 * PART_BYTES, 5];
        let records = (1..).zip(sizes).map(|(seq, bytes)| record(seq, bytes)).collect();
        let mut window = Window::new(9, records);
        let parts: Vec<_> = std::iter::from_fn(|| window.next_part())
            .map(|part| (part.envelopes.iter().map(|out| out.seq).collect::<Vec<_>>(), part.barrier))
            .collect();
        assert_eq!(parts, [(vec![1, 2], None), (vec![3], None), (vec![4], None), (vec![5], Some(9))]);
        assert_eq!(window.written.len(), 5);
    }
}
