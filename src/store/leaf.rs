//! The leaf pages of a redb file, read from its raw bytes: what is left when its trees are not.
//!
//! A leaf begins at a multiple of [`PAGE_BYTES`]: `1`, a reserved byte, the number of entries (u16), the
//! end of every key (u32, only where keys differ in length), the end of every value (u32), the keys, the
//! values; numbers little-endian, ends counted from the page's begin. Nothing here is trusted: whoever
//! reads entries must be able to tell a genuine one, which sealed values are.

use std::ops::Range;

/// redb's smallest page, and what every page is aligned to.
pub(super) const PAGE_BYTES: u64 = 4096;

/// What a leaf begins with.
const LEAF: u8 = 1;

/// Type, reserved byte, count.
const HEAD_BYTES: u64 = 4;

/// Of one end.
const END_BYTES: u64 = 4;

/// No key of ours is longer: run ids come in messages, and are a few dozen bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// No value is longer: a message has at most 4 MiB, a configuration came in one.
const MAX_VALUE_BYTES: u64 = 16 * 1024 * 1024;

/// How the keys of a table lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// All of this many bytes.
    Fixed(u64),
    /// Each has an end.
    Variable,
}

/// An entry: where its key and its value lie in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Range<u64>,
    pub(super) value: Range<u64>,
}

/// The entries of the page at `offset`, were it a leaf of such keys. What is impossible is left out: the
/// others can still be genuine.
pub(super) fn entries(
    offset: u64,
    keys: Keys,
    read: &mut impl FnMut(Range<u64>) -> Option<Vec<u8>>,
) -> Vec<Entry> {
    let Some(head) = read(offset..offset + HEAD_BYTES).filter(|head| head.first() == Some(&LEAF)) else {
        return Vec::new();
    };
    let count = u64::from(u16::from_le_bytes([head[2], head[3]]));
    let arrays = match keys {
        Keys::Fixed(_) => 1,
        Keys::Variable => 2,
    };
    let ends_at = offset + HEAD_BYTES;
    let first_key = HEAD_BYTES + arrays * count * END_BYTES;
    let Some(raw) = read(ends_at..offset + first_key) else {
        return Vec::new();
    };
    let ends: Vec<u64> =
        raw.as_chunks::<4>().0.iter().map(|end| u64::from(u32::from_le_bytes(*end))).collect();
    let (key_ends, value_ends): (Vec<u64>, &[u64]) = match keys {
        Keys::Fixed(width) => ((1..=count).map(|n| first_key + n * width).collect(), &ends[..]),
        Keys::Variable => {
            let (keys, values) = ends.split_at(count as usize);
            (keys.to_vec(), values)
        }
    };
    let first_value = key_ends.last().copied().unwrap_or(first_key);
    let mut found = Vec::new();
    let starts = |first: u64, ends: &[u64]| [&[first], ends].concat();
    let spans = starts(first_key, &key_ends).into_iter().zip(key_ends.iter().copied());
    let values = starts(first_value, value_ends).into_iter().zip(value_ends.iter().copied());
    for ((key_start, key_end), (start, end)) in spans.zip(values) {
        let possible = first_key <= key_start
            && key_start < key_end
            && key_end - key_start <= MAX_KEY_BYTES
            && key_end <= start
            && start < end
            && end - start <= MAX_VALUE_BYTES;
        if possible {
            found.push(Entry {
                key: offset + key_start..offset + key_end,
                value: offset + start..offset + end,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(count: u16, ends: &[u32], rest: &[u8]) -> Vec<u8> {
        let mut page = vec![LEAF, 0];
        page.extend_from_slice(&count.to_le_bytes());
        ends.iter().for_each(|end| page.extend_from_slice(&end.to_le_bytes()));
        page.extend_from_slice(rest);
        page
    }

    fn found(page: &[u8], keys: Keys) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut read = |range: Range<u64>| Some(page.get(range.start as usize..range.end as usize)?.to_vec());
        let entries = entries(0, keys, &mut read);
        entries.into_iter().filter_map(|entry| Some((read(entry.key)?, read(entry.value)?))).collect()
    }

    #[test]
    fn entries_of_both_forms_are_found() {
        let fixed = page(2, &[4 + 8 + 4 + 3, 4 + 8 + 4 + 5], b"aabbxxxyy");
        let expected = [(b"aa".to_vec(), b"xxx".to_vec()), (b"bb".to_vec(), b"yy".to_vec())];
        assert_eq!(found(&fixed, Keys::Fixed(2)), expected);
        let variable = page(2, &[21, 23, 24, 26], b"abcxyz");
        let expected = [(b"a".to_vec(), b"z".to_vec()), (b"bc".to_vec(), b"".to_vec())];
        assert_ne!(found(&variable, Keys::Variable), expected, "an empty value is none");
        assert_eq!(found(&page(1, &[13, 15], b"kvv"), Keys::Variable), [(b"k".to_vec(), b"vv".to_vec())]);
    }

    #[test]
    fn nonsense_is_left_out_and_its_neighbours_stay() {
        assert!(found(&[0; 64], Keys::Variable).is_empty(), "no leaf");
        assert!(found(&page(u16::MAX, &[], b"short"), Keys::Fixed(9)).is_empty(), "ends past the file");
        let fixed = page(3, &[4 + 12 + 3 + 1, u32::MAX, 4 + 12 + 3 + 3], b"abcxyz");
        assert_eq!(found(&fixed, Keys::Fixed(1)), [(b"a".to_vec(), b"x".to_vec())]);
    }
}
