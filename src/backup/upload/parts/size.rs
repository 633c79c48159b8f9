//! How large parts are, how many go up at once, and where they wait.

use crate::model::Compression;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// S3's number (AWS: "Amazon S3 multipart upload limits").
pub const MAX_PARTS: u64 = 10_000;

const MIB: u64 = 1024 * 1024;

/// Where the server leaves it to us: the smallest that S3 takes, so that several fit into memory.
const DEFAULT_PART_BYTES: u64 = 5 * MIB;

/// S3 takes no larger part.
const MAX_PART_BYTES: u64 = 5 * 1024 * MIB;

/// What parts and compressors may hold of memory, beside what the agent and the first buffers of zstd take: with data that
/// does not compress, 39 MiB beside the parts at two workers and 44 at four, so that the whole is about 60.
const MEMORY_BYTES: u64 = 24 * MIB;

/// What each of zstd's workers takes of it: its job, the job's output, its tables.
const WORKER_BYTES: u64 = 2 * MIB;

/// Who asks for more workers than these wants speed, not a small agent.
const COUNTED_WORKERS: u64 = 4;

/// Connections that carry parts at once. Two fill a line whose store answers slowly; more only share it.
const MAX_PARALLEL: usize = 4;

/// Of an estimate: engines tell what the data takes now, and it grows while it is read.
const GROWTH_PERCENT: u64 = 5;

/// From here on, of the numbers, parts are twice as large after each [`STEPS`]th of them: late, because larger ones wait on
/// the disk and not every store takes parts of different sizes (Cloudflare's R2 does not), and fast, so that the last
/// eighth of ten thousand numbers has parts of 5 GiB, and 5 TiB fit.
const KEPT_QUARTERS: u64 = 3;
const STEPS: u64 = 80;

/// What parts may hold of memory beside the compressors.
pub fn memory_bytes(compression: Compression, threads: u32) -> u64 {
    let workers = match compression {
        Compression::Zstd => u64::from(threads).clamp(1, COUNTED_WORKERS),
        Compression::Gzip | Compression::None => 0,
    };
    MEMORY_BYTES - workers * WORKER_BYTES
}

/// How many parts there may be, as far as it is known: the order's URLs, until the server has given more.
#[derive(Clone, Debug)]
pub struct Numbers(Arc<AtomicU64>);

impl Numbers {
    /// So many signed URLs came; 0 where they are all to be asked for.
    pub fn new(url_count: usize) -> Self {
        let urls = u64::try_from(url_count).unwrap_or(u64::MAX);
        Self(Arc::new(AtomicU64::new(if urls == 0 { MAX_PARTS } else { urls.min(MAX_PARTS) })))
    }

    /// How many.
    pub fn most(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// It is time to ask for more, before parts must grow.
    pub fn is_nearly_used_up(&self, number: u32) -> bool {
        self.most() < MAX_PARTS && u64::from(number) > self.most() * 5 / 8
    }

    /// The server gives more where it is asked.
    pub fn more(&self) {
        self.0.store(MAX_PARTS, Ordering::SeqCst);
    }
}

/// The plan of an upload in parts.
#[derive(Clone, Debug)]
pub struct Plan {
    first_bytes: u64,
    memory_bytes: u64,
    numbers: Numbers,
}

/// What the plan says of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of it; only the last of an object has fewer.
    pub part_bytes: u64,
    /// Parts that are on their way at once.
    pub parallel: usize,
    /// Such parts are held in memory; else in unlinked files of the spool's directory, a few at a time.
    pub in_memory: bool,
    /// What all parts may hold of memory.
    pub memory_bytes: u64,
}

/// Of so many numbers, those whose parts do not grow.
fn kept(most: u64) -> u64 {
    most - most / 4 * (4 - KEPT_QUARTERS)
}

/// Bytes of each part: what the server wishes (0 leaves it to us), or more, where an object of so many bytes would need
/// more parts than `most`.
pub fn part_bytes(offered_bytes: u64, most: u64, object_bytes: u64) -> u64 {
    let needed = object_bytes.div_ceil(most).div_ceil(MIB).saturating_mul(MIB);
    let wished = if offered_bytes == 0 { DEFAULT_PART_BYTES } else { offered_bytes };
    let fits = wished.saturating_mul(most) >= object_bytes;
    if fits { wished } else { needed.max(wished) }.clamp(1, MAX_PART_BYTES)
}

impl Plan {
    /// For an object of about so many bytes (before compression: it is what an engine can tell; 0 where it cannot), of
    /// whose parts so many bytes may be in memory.
    pub fn new(offered_bytes: u64, numbers: &Numbers, estimate_bytes: u64, memory_bytes: u64) -> Self {
        let grown = estimate_bytes.saturating_add(estimate_bytes / 100 * GROWTH_PERCENT);
        // What was estimated well must not come to where parts grow.
        let first_bytes = part_bytes(offered_bytes, kept(numbers.most()), grown);
        Self { first_bytes, memory_bytes, numbers: numbers.clone() }
    }

    /// For that part, from 1. They grow as the numbers are used up: estimates can be wrong.
    pub fn of(&self, number: u32) -> Sizes {
        let most = self.numbers.most();
        let doublings = u64::from(number).saturating_sub(kept(most)).div_ceil((most / STEPS).max(1)).min(32);
        let part_bytes = self.first_bytes.saturating_mul(1 << doublings).min(MAX_PART_BYTES);
        // One is being filled, so it needs two at least.
        let held = usize::try_from(self.memory_bytes / part_bytes).unwrap_or(usize::MAX);
        let in_memory = held >= 2;
        let parallel = if in_memory { (held - 1).min(MAX_PARALLEL) } else { 2 };
        Sizes { part_bytes, parallel, in_memory, memory_bytes: self.memory_bytes }
    }
}

/// Parts of a spool that go up at once: they are read from it, and hold no memory.
pub const SPOOL_PARALLEL: usize = MAX_PARALLEL;

impl Sizes {
    /// Parts that there may be at once: the ones on their way and the one that is filled.
    pub fn buffers(&self) -> usize {
        self.parallel + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1024 * MIB;
    const TIB: u64 = 1024 * GIB;

    fn plan(offered_bytes: u64, url_count: usize, estimate_bytes: u64) -> Plan {
        Plan::new(offered_bytes, &Numbers::new(url_count), estimate_bytes, MEMORY_BYTES)
    }

    fn first(offered_bytes: u64, url_count: usize, estimate_bytes: u64) -> u64 {
        plan(offered_bytes, url_count, estimate_bytes).of(1).part_bytes
    }

    #[test]
    fn the_servers_size_is_kept_while_its_urls_are_enough() {
        assert_eq!(first(0, 0, GIB), DEFAULT_PART_BYTES);
        assert_eq!(first(8 * MIB, 0, GIB), 8 * MIB);
        assert_eq!(first(64 * 1024, 100, MIB), 64 * 1024);
        assert_eq!(first(5 * MIB, 10, 300 * MIB), 40 * MIB);
    }

    #[test]
    fn ten_thousand_parts_are_enough_for_every_database() {
        for tib in [1, 4, 40] {
            let sizes = plan(0, 0, tib * TIB).of(1);
            assert!(sizes.part_bytes * MAX_PARTS >= tib * TIB, "{tib}");
            assert!(sizes.part_bytes.is_multiple_of(MIB) && !sizes.in_memory);
        }
    }

    /// How many parts an object has; None where the numbers are not enough for it.
    fn parts_of(plan: &Plan, object_bytes: u64) -> Option<u32> {
        let most = u32::try_from(plan.numbers.most()).unwrap();
        let mut left = object_bytes;
        (1..=most).find(|number| {
            left = left.saturating_sub(plan.of(*number).part_bytes);
            left == 0
        })
    }

    proptest! {
        #[test]
        fn an_object_of_any_size_fits_whatever_was_expected_of_it(
            object_bytes in 1..=5 * TIB,
            estimate_bytes in prop_oneof![Just(0), 0..=5 * TIB],
            offered_bytes in prop_oneof![Just(0), 5 * MIB..=5 * GIB],
        ) {
            let plan = plan(offered_bytes, 0, estimate_bytes);
            prop_assert!(parts_of(&plan, object_bytes).is_some());
        }

        #[test]
        fn an_object_that_was_estimated_well_has_parts_of_one_size(
            object_bytes in 1..=5 * TIB, urls in prop_oneof![Just(0), 1_000..10_000_usize],
        ) {
            let plan = plan(5 * MIB, urls, object_bytes);
            if let Some(last) = parts_of(&plan, object_bytes + object_bytes / 100 * GROWTH_PERCENT) {
                let whole = plan.first_bytes < MAX_PART_BYTES;
                prop_assert!(!whole || plan.of(last).part_bytes == plan.of(1).part_bytes, "{last}");
            }
        }

        #[test]
        fn parts_only_grow_and_stay_as_they_are_while_there_are_numbers_enough(
            urls in 0..20_000_usize, number in 1..10_000_u32,
        ) {
            let plan = plan(8 * MIB, urls, 0);
            let (this, next) = (plan.of(number).part_bytes, plan.of(number + 1).part_bytes);
            prop_assert!((8 * MIB..=MAX_PART_BYTES).contains(&this) && this <= next);
            prop_assert!(this == 8 * MIB || u64::from(number) > plan.numbers.most() * 3 / 4);
        }
    }

    #[test]
    fn five_tebibytes_that_nobody_expected_fit_and_a_thousand_urls_last_for_longer_than_their_size_says() {
        assert!(parts_of(&plan(0, 0, 0), 5 * TIB).is_some());
        let short = plan(8 * MIB, 1_000, 0);
        assert!(parts_of(&short, 100 * GIB).is_some());
        // The server gave more in time: parts are as small as ever.
        short.numbers.more();
        assert_eq!(short.of(1_001).part_bytes, 8 * MIB);
    }

    #[test]
    fn memory_is_bounded_whatever_the_parts_size() {
        for threads in [1, 2, 4, 64] {
            let memory_bytes = memory_bytes(Compression::Zstd, threads);
            assert!(memory_bytes + u64::from(threads.min(4)) * WORKER_BYTES <= MEMORY_BYTES);
            for part_mib in [1, 5, 8, 10, 16, 17, 64, 5000] {
                let sizes = Plan::new(part_mib * MIB, &Numbers::new(0), GIB, memory_bytes).of(1);
                let held = sizes.part_bytes * sizes.buffers() as u64;
                assert!(!sizes.in_memory || held <= memory_bytes, "{part_mib}: {sizes:?}");
                assert!(sizes.parallel >= 1 && sizes.parallel <= MAX_PARALLEL);
                assert!(part_mib > 8 || sizes.in_memory, "{part_mib} MiB at {threads}");
            }
        }
    }
}
