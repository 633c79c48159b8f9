//! Asking the server for fresh URLs, through whoever looks after the run.

use super::Timing;
use crate::backup::progress::Progress;
use crate::backup::urls::{FreshUrls, UrlsWanted};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The desk is also looked at without a sign.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The fresh URLs; None where none came. A server that does not know the question ignores it, so the wait for the
/// answer is short; the wait for a link to the server is not.
pub async fn fresh_urls(progress: &Progress, wanted: UrlsWanted, timing: &Timing) -> Option<FreshUrls> {
    let desk = progress.urls();
    // What came by itself, with a repeated order, may do.
    if let Some(urls) = desk.take() {
        return Some(urls);
    }
    desk.ask(wanted);
    let offline_until = Instant::now() + timing.offline;
    let mut answer_until = None;
    loop {
        if let Some(urls) = desk.take() {
            return Some(urls);
        }
        let now = Instant::now();
        if desk.is_sent() {
            answer_until.get_or_insert(now + timing.fresh_urls);
        }
        let until = answer_until.unwrap_or(offline_until);
        if now >= until {
            return None;
        }
        // Whether it changed or not: the next look tells.
        let _ = timeout_at(until.min(now + LOOK_AGAIN), desk.changed()).await;
    }
}
