//! End-to-end acks (protocol section 5): which durable messages of this link wait for theirs.

use super::action::Moment;
use super::limits::ACK_TIMEOUT;
use std::collections::BTreeMap;

/// Messages that left through the socket and were not acknowledged, oldest first. The Queue's window
/// bounds them.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// By seq; the correlation_id that the message carries as its own, where it carries one.
    sent: BTreeMap<u64, Option<Box<str>>>,
    /// When the oldest must be acknowledged.
    due: Moment,
}

impl Awaited {
    /// This one left. A seq that left already, on this link, changes nothing.
    pub(super) fn sent(&mut self, now: Moment, seq: u64, own_id: Option<Box<str>>) {
        if self.sent.is_empty() {
            self.due = now + ACK_TIMEOUT;
        }
        self.sent.entry(seq).or_insert(own_id);
    }

    /// The message that an Ack with this correlation_id is about, which then waits no longer. A decimal
    /// number is a seq and nothing else; another text is the message's own correlation_id, and means the
    /// oldest that carries it. None where nothing waits for such an Ack: it came twice, or is nobody's.
    pub(super) fn acked(&mut self, now: Moment, correlation_id: &str) -> Option<u64> {
        let is_number = correlation_id.bytes().all(|byte| byte.is_ascii_digit());
        let seq = if is_number {
            // The empty text and a number past 64 bits are nobody's.
            correlation_id.parse().ok()?
        } else {
            *self.sent.iter().find(|(_, own_id)| own_id.as_deref() == Some(correlation_id))?.0
        };
        let oldest = self.oldest();
        self.sent.remove(&seq)?;
        // Only the oldest counts: a server that forgot one goes on with the others.
        if oldest == Some(seq) {
            self.due = now + ACK_TIMEOUT;
        }
        Some(seq)
    }

    /// When the peer counts as dead; None while nothing is waited for.
    pub(super) fn due(&self) -> Option<Moment> {
        (!self.sent.is_empty()).then_some(self.due)
    }

    /// What time has passed does not count.
    pub(super) fn wait_anew(&mut self, now: Moment) {
        self.due = now + ACK_TIMEOUT;
    }

    fn oldest(&self) -> Option<u64> {
        self.sent.first_key_value().map(|(seq, _)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn s(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn awaited(seqs: impl IntoIterator<Item = u64>) -> Awaited {
        let mut awaited = Awaited::default();
        seqs.into_iter().for_each(|seq| awaited.sent(s(0), seq, None));
        awaited
    }

    #[test]
    fn acks_may_come_in_any_order_and_twice_and_for_nobody() {
        let mut awaited = awaited([3, 4, 5]);
        for (id, expected) in [
            ("5", Some(5)),
            ("5", None),
            ("3", Some(3)),
            ("6", None),
            ("", None),
            ("18446744073709551616", None),
            ("+4", None),
            ("-4", None),
            ("4", Some(4)),
            ("4", None),
        ] {
            assert_eq!(awaited.acked(s(1), id), expected, "{id:?}");
        }
        assert_eq!(awaited.due(), None);
    }

    #[test]
    fn a_number_is_always_a_seq_and_another_text_the_oldest_message_of_that_id() {
        let mut awaited = Awaited::default();
        for (seq, id) in [(10, "11"), (11, "x"), (12, "x"), (13, "cmd")] {
            awaited.sent(s(0), seq, Some(id.into()));
        }
        assert_eq!(awaited.acked(s(0), "11"), Some(11), "not 10, which has the id 11");
        assert_eq!(awaited.acked(s(0), "11"), None, "an ack that came twice confirms nothing else");
        assert_eq!(awaited.acked(s(0), "cmd"), Some(13));
        assert_eq!(awaited.acked(s(0), "x"), Some(12));
        assert_eq!(awaited.acked(s(0), "x"), None);
        assert_eq!(awaited.acked(s(0), "10"), Some(10));
    }

    #[test]
    fn the_oldest_has_30_s_from_when_it_became_the_oldest() {
        let mut awaited = awaited([1, 2, 3]);
        assert_eq!(awaited.due(), Some(s(30)));
        awaited.acked(s(20), "1");
        assert_eq!(awaited.due(), Some(s(50)), "a slow server in order lives");
        awaited.acked(s(40), "3");
        assert_eq!(awaited.due(), Some(s(50)), "one that forgot a message does not");
        awaited.acked(s(45), "2");
        assert_eq!(awaited.due(), None);
        awaited.sent(s(60), 4, None);
        assert_eq!(awaited.due(), Some(s(90)));
    }
}
