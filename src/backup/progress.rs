//! How far a run is: written by its threads, looked at once a second by whoever reports it.

use super::events::Events;
use super::urls::UrlDesk;
use super::verdict::Verdict;
use crate::model::{EventLevel, RunEvent, RunOrder, Secret, Step};
use crate::process::Mask;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Dumping and uploading share the way to 100: which takes longer, nobody knows before. The upload ends
/// at 99, since only a verified run is done.
const DUMPED_PERCENT: u64 = 70;
const UPLOADED_PERCENT: u64 = 99;

/// Where a run is. Clones are the same run's.
///
/// Nothing is pushed: a run that moves a thousand times a second costs its reader nothing.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    place: AtomicU64,
    events: Events,
    urls: UrlDesk,
    verdict: Verdict,
    mask: Mutex<Mask>,
}

impl Progress {
    /// Not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The step, and percent of the whole run, which never falls.
    pub fn now(&self) -> (Step, u8) {
        let packed = self.0.place.load(Ordering::Relaxed);
        let step = match packed >> 8 {
            0 => Step::PreHooks,
            1 => Step::Dumping,
            2 => Step::Uploading,
            3 => Step::Verifying,
            _ => Step::PostHooks,
        };
        (step, u8::try_from(packed & 0xff).unwrap_or(100))
    }

    /// Whether the store was given all of the object once, whatever it said of it.
    pub fn is_all_sent(&self) -> bool {
        u64::from(self.now().1) >= UPLOADED_PERCENT
    }

    /// The dump gave `bytes` of about `total`.
    pub fn dumping(&self, bytes: u64, total: u64) {
        self.reach(Step::Dumping, part(bytes, total) * DUMPED_PERCENT / 100);
    }

    /// The store took `bytes` of `total`. A second try starts over, the percent does not.
    pub fn uploading(&self, bytes: u64, total: u64) {
        let way = UPLOADED_PERCENT - DUMPED_PERCENT;
        self.reach(Step::Uploading, DUMPED_PERCENT + part(bytes, total) * way / 100);
    }

    /// The stored object is held against the spool.
    pub fn verifying(&self) {
        self.reach(Step::Verifying, UPLOADED_PERCENT);
    }

    /// The hooks after the run: whatever became of it, only they are left.
    pub fn post_hooks(&self) {
        self.reach(Step::PostHooks, UPLOADED_PERCENT.min(u64::from(self.now().1)));
    }

    /// Where the run asks for fresh URLs and gets them.
    pub fn urls(&self) -> &UrlDesk {
        &self.0.urls
    }

    /// How the run ended, as soon as that is known.
    pub fn verdict(&self) -> &Verdict {
        &self.0.verdict
    }

    /// Something that the server should hear of. The run's secrets are taken out of it.
    pub fn info(&self, message: &str, fields: Vec<(&'static str, String)>) {
        self.say(EventLevel::Info, message, fields);
    }

    /// Something that somebody should look at, while the run goes on. The run's secrets are taken out of it.
    pub fn warn(&self, message: &str, fields: Vec<(&'static str, String)>) {
        self.say(EventLevel::Warn, message, fields);
    }

    fn say(&self, level: EventLevel, message: &str, fields: Vec<(&'static str, String)>) {
        let mask = self.mask();
        let fields = fields.into_iter().map(|(name, value)| (name, mask.text(&value))).collect();
        self.0.events.put(level, &mask.text(message), fields);
    }

    /// A secret of the run: from here on nothing that it says shows it.
    pub fn hide(&self, secret: Secret) {
        self.0.mask.lock().unwrap_or_else(PoisonError::into_inner).hide(secret);
    }

    /// The run's order: its URLs and its key are secrets.
    pub fn hide_order(&self, order: &RunOrder) {
        *self.0.mask.lock().unwrap_or_else(PoisonError::into_inner) = Mask::of_order(order);
    }

    /// A URL whose query is a secret of the run.
    pub fn hide_url(&self, url: &Secret) {
        self.0.mask.lock().unwrap_or_else(PoisonError::into_inner).hide_url(url);
    }

    /// What may not be shown of this run.
    pub fn mask(&self) -> Mask {
        self.0.mask.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was said since the last call, oldest first.
    pub fn take_events(&self) -> Vec<RunEvent> {
        self.0.events.take()
    }

    /// How many events were too many since the last call.
    pub fn take_left_out(&self) -> u64 {
        self.0.events.take_left_out()
    }

    fn reach(&self, step: Step, percent: u64) {
        let rank = match step {
            Step::PreHooks => 0,
            Step::Dumping => 1,
            Step::Uploading => 2,
            Step::Verifying => 3,
            Step::PostHooks => 4_u64,
        };
        // Ranks and percents only grow, so the larger number is the later place.
        self.0.place.fetch_max(rank << 8 | percent.min(100), Ordering::Relaxed);
    }
}

/// `bytes` of `total` in percent; an estimate that was too small ends at 100.
fn part(bytes: u64, total: u64) -> u64 {
    (u128::from(bytes) * 100).checked_div(u128::from(total)).map_or(0, |part| part.min(100) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percent_grows_over_the_steps_and_never_falls() {
        let progress = Progress::new();
        assert_eq!(progress.now(), (Step::PreHooks, 0));
        progress.dumping(50, 100);
        assert_eq!(progress.now(), (Step::Dumping, 35));
        progress.dumping(10, 100);
        assert_eq!(progress.now(), (Step::Dumping, 35));
        progress.dumping(500, 100);
        assert_eq!(progress.now(), (Step::Dumping, 70));
        progress.uploading(u64::MAX, u64::MAX);
        assert_eq!(progress.now(), (Step::Uploading, 99));
        progress.uploading(0, 0);
        progress.dumping(1, 1);
        assert_eq!(progress.now(), (Step::Uploading, 99));
        progress.verifying();
        assert_eq!(progress.now(), (Step::Verifying, 99));
        progress.post_hooks();
        assert_eq!(progress.now(), (Step::PostHooks, 99));
        let failed_early = Progress::new();
        failed_early.dumping(1, 2);
        failed_early.post_hooks();
        assert_eq!(failed_early.now(), (Step::PostHooks, 35), "a run that failed did not come far");
    }
}
