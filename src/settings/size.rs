//! Sizes that people write: `268435456`, `256 MiB`, `2GB`.

/// Units, the longest names first so that `MiB` is not taken for `B`.
const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// What a size may look like, for faults.
pub(super) const EXAMPLES: &str = "a number of bytes or a text such as \"256 MiB\" or \"1 GB\"";

/// The bytes of a size.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim_end(), *factor)))
        .unwrap_or((text, 1));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size as people read it: the largest binary unit that divides it.
pub(super) fn format(bytes: u64) -> String {
    UNITS[..4]
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| format!("{bytes} B"), |(unit, factor)| format!("{} {unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("268435456", 268_435_456),
            ("256 MiB", 268_435_456),
            ("256MiB", 268_435_456),
            (" 1 GB ", 1_000_000_000),
            ("12 B", 12),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5 GiB", "-1", "1 M", "1 mib", "99999999999 TiB", "0x10", "1 2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_loses_nothing() {
        assert_eq!(format(268_435_456), "256 MiB");
        assert_eq!(format(1 << 30), "1 GiB");
        assert_eq!(format(1000), "1000 B");
        for bytes in [0, 1, 1024, 5 << 20, 12345] {
            assert_eq!(parse(&format(bytes)), Some(bytes));
        }
    }
}
