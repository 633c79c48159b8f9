//! Not faster than the host's owner allows: a bucket that all runs of the agent share.

use crate::process::Cancel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may go through at once after a pause: this much of a second's worth. Small, so that a limited disk or link
/// is never busy for long.
const BURST: Duration = Duration::from_millis(100);

/// A waiting thread looks at the run's switch this often.
const SLICE: Duration = Duration::from_millis(100);

/// A limit in bytes a second, or none. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Rate(Option<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    bytes_per_sec: u64,
    /// When everything that was let through so far would have gone through evenly.
    paid_until: Mutex<Option<Instant>>,
}

impl Rate {
    /// 0 means no limit.
    pub fn new(bytes_per_sec: u64) -> Self {
        if bytes_per_sec == 0 {
            return Self(None);
        }
        Self(Some(Arc::new(Bucket { bytes_per_sec, paid_until: Mutex::new(None) })))
    }

    /// How many bytes should go through at once: what is asked, or as much as the limit lets through in a
    /// burst.
    pub fn portion(&self, asked: usize) -> usize {
        let Some(bucket) = &self.0 else { return asked };
        let burst = u128::from(bucket.bytes_per_sec) * BURST.as_millis() / 1000;
        asked.min(usize::try_from(burst).unwrap_or(usize::MAX)).max(1)
    }

    /// Takes that many bytes; gives the moment until which the taker should wait.
    pub fn take(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let bucket = self.0.as_ref()?;
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bucket.bytes_per_sec);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid_until = bucket.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let free_from = now.checked_sub(BURST).unwrap_or(now);
        let begin = paid_until.map_or(free_from, |paid| paid.max(free_from));
        // A limit so low that the clock ends is one that waits for ever, a day at a time.
        let until = begin.checked_add(cost).unwrap_or(now + Duration::from_secs(86_400));
        *paid_until = Some(until);
        (until > now).then_some(until)
    }

    /// Takes the bytes and waits; ends early once the run is stopped.
    pub fn wait(&self, bytes: u64, cancel: &Cancel) {
        let Some(until) = self.take(bytes, Instant::now()) else { return };
        while !cancel.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Virtual time: a taker that waits as it is told.
    fn seconds_for(rate: &Rate, pieces: u64, piece: u64) -> f64 {
        let start = Instant::now();
        let mut now = start;
        for _ in 0..pieces {
            now = rate.take(piece, now).unwrap_or(now);
        }
        (now - start).as_secs_f64()
    }

    #[test]
    fn no_more_than_the_limit_goes_through_whatever_the_pieces() {
        for (pieces, piece) in [(1_000, 1_000), (10, 100_000), (1, 1_000_000)] {
            let took = seconds_for(&Rate::new(100_000), pieces, piece);
            assert!((9.89..=10.0).contains(&took), "{pieces} x {piece}: {took} s");
        }
        assert_eq!(seconds_for(&Rate::new(0), 1_000, 1_000_000), 0.0);
    }

    #[test]
    fn runs_share_a_limit_and_a_pause_saves_up_little() {
        let rate = Rate::new(1_000);
        let now = Instant::now();
        rate.clone().take(500, now);
        let until = rate.take(500, now).unwrap();
        assert_eq!(until - now, Duration::from_millis(900));
        let later = now + Duration::from_secs(60);
        assert_eq!(rate.take(1_100, later).unwrap() - later, Duration::from_secs(1));
        assert_eq!((rate.portion(1_000_000), Rate::new(0).portion(7)), (100, 7));
    }

    #[test]
    fn a_stopped_run_does_not_wait() {
        let cancel = Cancel::new();
        cancel.cancel();
        let start = Instant::now();
        Rate::new(1).wait(1_000_000, &cancel);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
