//! Which of zstd's searches a dump is worth, found by trying them on the dump itself.
//!
//! What a database gives is rows of hashes in one table, long texts in the next and pages of an index behind them. No
//! one search suits all: a small table is in the processor's nearest cache and finds all that there is in rows, at half
//! the work of a large one, without which pages come out a quarter larger. So every few dozen mebibytes a sample of the
//! stream is compressed once by each, and the lightest that costs next to no size goes on. The choice depends on the
//! data alone, never on the clock: the same dump gives the same object.

use std::io;
use zeroize::Zeroizing;
use zstd::zstd_safe::{CCtx, CParameter, ParamSwitch, Strategy};

/// log2 of zstd's window: within one job. A window beyond its job reaches only into the overlap, and costs 4 %
/// of the time for 1 % of the size.
pub const WINDOW_LOG: u32 = 20;

/// Long enough to tell rows from pages, and still only some ten milliseconds of work for all three.
const SAMPLE_LEN: usize = 512 * 1024;

/// Between two samples at first; a dump's beginning is seldom like its bulk.
const FIRST_GAP: u64 = 8 * 1024 * 1024;

/// The gap doubles up to this: what the samples cost is then 2 to 3 % of the compressing.
const LONGEST_GAP: u64 = 128 * 1024 * 1024;

/// Zstd's quickest strategy with another table and shortest match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Search {
    /// log2 of the table.
    hash_log: u32,
    min_match: u32,
    /// How far it steps where it finds nothing.
    step: u32,
    /// Taken where it makes the sample smaller than the lighter ones by this many thousandths.
    gain_permille: usize,
}

/// From the lightest on: for what has little in it but single characters that are more frequent than others (hashes,
/// keys, numbers); for rows and texts; for pages and what repeats itself at a distance.
const SEARCHES: [Search; 3] = [
    Search { hash_log: 14, min_match: 7, step: 4, gain_permille: 0 },
    Search { hash_log: 15, min_match: 7, step: 0, gain_permille: 40 },
    Search { hash_log: 17, min_match: 6, step: 0, gain_permille: 40 },
];

/// What a stream begins with: good for all, until the first sample has told.
const FIRST: usize = SEARCHES.len() - 1;

impl Search {
    /// Those that may change while zstd works.
    fn parameters(&self) -> [CParameter; 3] {
        [
            CParameter::HashLog(self.hash_log),
            CParameter::MinMatch(self.min_match),
            CParameter::TargetLength(self.step),
        ]
    }
}

/// What stays the same for all of them. A search with steps would leave single characters as they are: they are what it
/// is there for.
pub fn begin() -> impl Iterator<Item = CParameter> {
    let fixed =
        [CParameter::Strategy(Strategy::ZSTD_fast), CParameter::LiteralCompressionMode(ParamSwitch::Enable)];
    fixed.into_iter().chain(SEARCHES.into_iter().nth(FIRST).into_iter().flat_map(|first| first.parameters()))
}

/// Looks at a stream on its way to zstd.
pub struct Tuner {
    sample: Zeroizing<Vec<u8>>,
    out: Vec<u8>,
    /// Bytes until the next sample begins.
    wait: u64,
    gap: u64,
    chosen: usize,
}

impl Tuner {
    /// At the stream's beginning.
    pub fn new() -> Self {
        Self { sample: Zeroizing::default(), out: Vec::new(), wait: 0, gap: FIRST_GAP, chosen: FIRST }
    }

    /// The next bytes. What zstd is to be told, where another search suits them better.
    ///
    /// # Errors
    /// What zstd says of a sample.
    pub fn take(&mut self, mut bytes: &[u8]) -> io::Result<Option<[CParameter; 3]>> {
        let skipped = self.wait.min(bytes.len() as u64);
        self.wait -= skipped;
        bytes = bytes.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let missing = SAMPLE_LEN - self.sample.len();
        let fits = bytes.len().min(missing);
        self.sample.reserve_exact(missing);
        self.sample.extend_from_slice(bytes.get(..fits).unwrap_or_default());
        if self.sample.len() < SAMPLE_LEN {
            return Ok(None);
        }
        let best = self.try_all()?;
        // Given back in between: a plain megabyte less for all but a moment.
        (self.sample, self.out) = Default::default();
        (self.wait, self.gap) = (self.gap, LONGEST_GAP.min(self.gap * 2));
        if best == self.chosen {
            return Ok(None);
        }
        self.chosen = best;
        Ok(SEARCHES.get(best).map(Search::parameters))
    }

    /// The lightest search that costs next to no size.
    fn try_all(&mut self) -> io::Result<usize> {
        self.out.resize(zstd::zstd_safe::compress_bound(SAMPLE_LEN), 0);
        let mut best = 0;
        let mut bound = usize::MAX;
        for (index, search) in SEARCHES.iter().enumerate() {
            let limit = bound - bound / 1000 * search.gain_permille;
            let len = compressed_len(search, &self.sample, &mut self.out).map_err(io::Error::other)?;
            if len <= limit {
                (best, bound) = (index, len);
            } else {
                // The next one has to make up for this one as well.
                bound = limit;
            }
        }
        Ok(best)
    }
}

fn compressed_len(search: &Search, sample: &[u8], out: &mut [u8]) -> Result<usize, &'static str> {
    let named = zstd::zstd_safe::get_error_name;
    let mut context = CCtx::try_create().ok_or("no memory for a sample")?;
    context.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(named)?;
    for parameter in begin().chain(search.parameters()) {
        context.set_parameter(parameter).map_err(named)?;
    }
    context.compress2(out, sample).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }

        fn word(&mut self) -> String {
            (0..3 + self.roll(7)).map(|_| char::from(b"etaoinshrdlucmfwyp"[self.roll(18) as usize])).collect()
        }
    }

    fn filled(len: usize, mut line: impl FnMut(u64) -> String) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0.. {
            if bytes.len() >= len {
                break;
            }
            bytes.extend(line(number).bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn hashes(len: usize) -> Vec<u8> {
        let mut dice = Dice(1);
        let mut hash = move || (0..8).map(|_| format!("{:04x}", dice.roll(1 << 16))).collect::<String>();
        filled(len, |number| format!("{number}\t{}\t{}\n", hash(), hash()))
    }

    fn rows(len: usize) -> Vec<u8> {
        let mut dice = Dice(2);
        filled(len, |number| {
            let state = ["created", "paid", "shipped", "refunded"][dice.roll(4) as usize];
            let (day, price) = (1 + dice.roll(28), dice.roll(50_000));
            format!(
                "{number}\t{}\t2025-11-{day:02} 12:00:00+00\t{state}\t{{\"agent\": \"Mozilla/5.0 (X11)\", \"price\": {price}}}\n",
                dice.roll(1_000_000)
            )
        })
    }

    /// Long texts out of many words, that come back at a distance.
    fn texts(len: usize) -> Vec<u8> {
        let mut dice = Dice(3);
        let words: Vec<_> = (0..20_000).map(|_| dice.word()).collect();
        filled(len, |_| words[dice.roll(20_000) as usize].clone() + " ")
    }

    #[test]
    fn the_search_follows_the_data() {
        for (name, bytes, expected) in [
            ("hashes", hashes(SAMPLE_LEN), 0),
            (
                "random",
                Vec::from_iter((0..SAMPLE_LEN).map({
                    let mut dice = Dice(4);
                    move |_| dice.roll(256) as u8
                })),
                0,
            ),
            ("rows", rows(SAMPLE_LEN), 1),
            ("texts", texts(SAMPLE_LEN), 2),
        ] {
            let mut tuner = Tuner::new();
            let told = tuner.take(&bytes).unwrap();
            assert_eq!(tuner.chosen, expected, "{name}");
            assert_eq!(told.is_some(), expected != FIRST, "{name}: zstd is told of changes only");
        }
    }

    #[test]
    fn a_stream_that_changes_is_noticed_and_the_gaps_grow() {
        let mut tuner = Tuner::new();
        let mut changes = Vec::new();
        let (first, then) = (hashes(64 * 1024), texts(SAMPLE_LEN));
        let mut taken = 0;
        while taken < 100 * 1024 * 1024 {
            let bytes = if taken < 30 * 1024 * 1024 { &first } else { &then };
            taken += bytes.len() as u64;
            if tuner.take(bytes).unwrap().is_some() {
                changes.push((taken / 1024 / 1024, tuner.chosen));
            }
        }
        // Samples at 0, 8.5, 25 and 57.5 MiB.
        assert_eq!(changes, [(0, 0), (58, 2)]);
        assert_eq!(tuner.gap, LONGEST_GAP);
        assert!(tuner.sample.capacity() == 0 && tuner.out.capacity() == 0, "given back in between");
    }

    #[test]
    fn samples_are_the_same_however_the_stream_is_cut() {
        let bytes = rows(SAMPLE_LEN + 10);
        for cut in [1000, 256 * 1024, SAMPLE_LEN, SAMPLE_LEN + 10] {
            let mut tuner = Tuner::new();
            let told: Vec<_> = bytes.chunks(cut).filter_map(|piece| tuner.take(piece).unwrap()).collect();
            assert_eq!(told.len(), 1, "in pieces of {cut}");
        }
    }
}
