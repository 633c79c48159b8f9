//! Which seqs of an agent have been taken: how a replayed message is recognised (protocol section 4,
//! rule 6). Ranges, because an agent counts upwards and replays in order, while new messages of higher
//! seqs flow between.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seqs that were sent and got lost leave gaps. Past this number of ranges the oldest is forgotten: a
/// message of a distant past might then be taken twice, which is better than one not being taken at all.
const MAX_RANGES: usize = 4096;

/// A set of seqs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen {
    /// First -> last, both inside; ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
}

impl Seen {
    /// Whether the seq was taken.
    pub fn contains(&self, seq: u64) -> bool {
        self.ranges.range(..=seq).next_back().is_some_and(|(_, last)| *last >= seq)
    }

    /// The highest seq that was taken; 0 where there is none.
    pub fn highest(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, last)| *last)
    }

    /// Takes the seq in.
    pub fn insert(&mut self, seq: u64) {
        if self.contains(seq) {
            return;
        }
        let before = self.ranges.range(..seq).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((first, last)) if last + 1 == seq => first,
            _ => seq,
        };
        let last = seq.checked_add(1).and_then(|next| self.ranges.remove(&next)).unwrap_or(seq);
        self.ranges.insert(first, last);
        if self.ranges.len() > MAX_RANGES {
            self.ranges.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_say_the_same_as_a_set() {
        let mut seen = Seen::default();
        let mut model = BTreeSet::new();
        // A walk over 0..211 that jumps back and forth.
        for step in 0..140_u64 {
            let seq = step * 97 % 211;
            seen.insert(seq);
            model.insert(seq);
            assert_eq!(seen.highest(), *model.last().unwrap());
            for probe in 0..215 {
                assert_eq!(seen.contains(probe), model.contains(&probe), "{probe} after {step}");
            }
        }
        (0..=215).for_each(|seq| seen.insert(seq));
        assert_eq!(seen.ranges, BTreeMap::from([(0, 215)]));
        seen.insert(u64::MAX);
        assert!(seen.contains(u64::MAX) && !seen.contains(u64::MAX - 1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        let many = 2 * (MAX_RANGES as u64 + 10);
        (0..many).step_by(2).for_each(|seq| seen.insert(seq));
        assert_eq!(seen.ranges.len(), MAX_RANGES);
        assert!(!seen.contains(0));
        assert!(seen.contains(many - 2));
    }
}
