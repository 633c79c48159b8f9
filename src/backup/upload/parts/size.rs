//! How large parts are, how many go up at once, and where they wait.

/// S3's number (AWS: "Amazon S3 multipart upload limits").
pub const MAX_PARTS: u64 = 10_000;

const MIB: u64 = 1024 * 1024;

/// Where the server leaves it to us: large enough for 80 GB, small enough for two on their way and one that is filled.
const DEFAULT_PART_BYTES: u64 = 8 * MIB;

/// S3 takes no larger part.
const MAX_PART_BYTES: u64 = 5 * 1024 * MIB;

/// What parts may hold of memory, all together: the whole agent, with 10 MiB of its own, four compressors and the
/// buffers of a run, stays under 64 MiB.
pub const MEMORY_BYTES: u64 = 24 * MIB;

/// Connections that carry parts at once. Two fill a line whose store answers slowly; more only share it.
const MAX_PARALLEL: usize = 4;

/// Of an estimate: engines tell what the data takes now, and it grows while it is read.
const GROWTH_PERCENT: u64 = 5;

/// The plan of an upload in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// Parts that are on their way at once.
    pub parallel: usize,
    /// Parts are held in memory; else in unlinked files of the spool's directory, a few at a time.
    pub in_memory: bool,
}

impl Sizes {
    /// For an object of about so many bytes (before compression: it is what an engine can tell), with so many
    /// signed URLs (0 where none came yet).
    pub fn new(offered_bytes: u64, url_count: usize, estimate_bytes: u64) -> Self {
        let urls = u64::try_from(url_count).unwrap_or(u64::MAX);
        let most = if urls == 0 { MAX_PARTS } else { urls.min(MAX_PARTS) };
        let grown = estimate_bytes.saturating_add(estimate_bytes / 100 * GROWTH_PERCENT);
        let needed = grown.div_ceil(most).div_ceil(MIB).saturating_mul(MIB);
        let wished = if offered_bytes == 0 { DEFAULT_PART_BYTES } else { offered_bytes };
        let fits = wished.saturating_mul(most) >= grown;
        let part_bytes = if fits { wished } else { needed.max(wished) }.clamp(1, MAX_PART_BYTES);
        // One is being filled, so it needs two at least.
        let held = usize::try_from(MEMORY_BYTES / part_bytes).unwrap_or(usize::MAX);
        let in_memory = held >= 2;
        let parallel = if in_memory { (held - 1).min(MAX_PARALLEL) } else { 2 };
        Self { part_bytes, parallel, in_memory }
    }

    /// Parts that there may be at once: the ones on their way and the one that is filled.
    pub fn buffers(&self) -> usize {
        self.parallel + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    #[test]
    fn the_servers_size_is_kept_while_its_urls_are_enough() {
        assert_eq!(Sizes::new(0, 0, GIB).part_bytes, DEFAULT_PART_BYTES);
        assert_eq!(Sizes::new(5 * MIB, 0, GIB).part_bytes, 5 * MIB);
        assert_eq!(Sizes::new(64 * 1024, 100, MIB).part_bytes, 64 * 1024);
        assert_eq!(Sizes::new(5 * MIB, 10, 300 * MIB).part_bytes, 32 * MIB);
    }

    #[test]
    fn ten_thousand_parts_are_enough_for_every_database() {
        for tib in [1, 4, 40] {
            let sizes = Sizes::new(0, 0, tib * 1024 * GIB);
            assert!(sizes.part_bytes * MAX_PARTS >= tib * 1024 * GIB, "{tib}");
            assert!(sizes.part_bytes.is_multiple_of(MIB) && !sizes.in_memory);
        }
    }

    #[test]
    fn memory_is_bounded_whatever_the_parts_size() {
        for part_mib in [1, 5, 8, 10, 16, 17, 64, 5000] {
            let sizes = Sizes::new(part_mib * MIB, 0, GIB);
            let held = sizes.part_bytes * sizes.buffers() as u64;
            assert!(!sizes.in_memory || held <= MEMORY_BYTES, "{part_mib}: {sizes:?}");
            assert!(sizes.parallel >= 1 && sizes.parallel <= MAX_PARALLEL);
        }
    }
}
