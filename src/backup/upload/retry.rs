//! Trying again: waits that grow, the store's own wishes, the end of the URL's life.

use super::{Timing, UploadError};
use crate::backup::deadline::expiry_text;
use crate::backup::progress::Progress;
use crate::model::unix_ms;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// A store that asks for more patience than this gets this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// A store whose checksum differs so often has another idea of the object than we do.
pub const MAX_MISMATCHES: u32 = 3;

/// Fresh URLs that a store finds too old as well: so often in a row, and the clocks differ by more than they live.
pub const MAX_AGE_REFUSALS: u32 = 3;

/// The URL's life was over before anything began.
pub fn too_late(place: &str, deadline_ms: u64) -> UploadError {
    let (place, at) = (place.to_owned(), expiry_text(deadline_ms));
    UploadError::Expired { place, at, tries: 0, last: String::new() }
}

/// The tries of one request.
pub struct Tries {
    waits: ExponentialBackoff,
    longest: Duration,
    /// Of the store not asked before the body any more.
    pub unasked: bool,
    /// Made so far.
    pub count: u32,
    /// How many of them ended with another checksum than ours.
    pub mismatches: u32,
    last: String,
    /// A wait that the URL did not live for: it is kept with the fresh one.
    owed: Duration,
    progress: Progress,
}

impl Tries {
    /// None made.
    pub fn new(timing: &Timing, progress: &Progress) -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(timing.first_wait)
            .with_max_delay(timing.longest_wait)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        Self {
            waits,
            longest: timing.longest_wait,
            unasked: false,
            count: 0,
            mismatches: 0,
            last: String::new(),
            owed: Duration::ZERO,
            progress: progress.clone(),
        }
    }

    /// Waits before the next try. False where the URL does not live so long.
    pub async fn pause(
        &mut self,
        place: &str,
        why: String,
        retry_after: Option<Duration>,
        deadline_ms: u64,
    ) -> bool {
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let wait = self.waits.next().unwrap_or(self.longest).max(asked);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let in_time = unix_ms().saturating_add(wait_ms) < deadline_ms;
        if in_time {
            tracing::warn!(place, tries = self.count, wait_ms, error = %why, "upload failed, trying again");
            // The server hears of the first, the second, the fourth ...: a store can be away for hours.
            if self.count.is_power_of_two() {
                let fields = vec![("tries", self.count.to_string()), ("error", why.clone())];
                self.progress.warn("the upload failed and is tried again", fields);
            }
        }
        self.last = why;
        if in_time {
            tokio::time::sleep(wait).await;
        } else {
            self.owed = wait;
        }
        in_time
    }

    /// With a fresh URL: the wait that the last one did not live for, but no more than half of this one's life.
    pub async fn keep_waiting(&mut self, deadline_ms: u64) {
        let half = Duration::from_millis(deadline_ms.saturating_sub(unix_ms()) / 2);
        let owed = std::mem::take(&mut self.owed).min(half);
        if !owed.is_zero() {
            tokio::time::sleep(owed).await;
        }
    }

    /// Why there is no next try: where the URLs' time ran out, the last one's reason says more.
    pub fn why(&self, error: UploadError) -> UploadError {
        if self.count == 0 {
            return error;
        }
        if let UploadError::NotRenewed { why, waited } = error {
            return UploadError::NotRenewed { why: Box::new(self.why(*why)), waited };
        }
        if let UploadError::UrlsExpired { place, at } = error {
            return UploadError::Expired { place, at, tries: self.count, last: self.last.clone() };
        }
        error
    }

    /// Why it ends with the life of the URL.
    pub fn expired(&self, place: &str, deadline_ms: u64) -> UploadError {
        UploadError::Expired {
            place: place.to_owned(),
            at: expiry_text(deadline_ms),
            tries: self.count,
            last: self.last.clone(),
        }
    }
}
