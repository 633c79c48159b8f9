//! Fresh URLs for a run that is uploading: asked for here, fetched by whoever looks after the run, brought back here.

use super::deadline::upload_deadline_ms;
use crate::model::{Multipart, RunOrder, Secret};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlsWanted {
    /// From this part on; 0 where no part's URL is needed.
    pub first_part: u32,
    /// So many are of use.
    pub part_count: u32,
}

/// What the server gave.
#[derive(Clone, Debug)]
pub struct FreshUrls {
    /// For a single PUT.
    pub put_url: Secret,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
    /// For an upload in parts.
    pub multipart: Option<Multipart>,
}

impl FreshUrls {
    /// Those of an order that came at that moment, unix milliseconds.
    pub fn of(order: &RunOrder, now_ms: u64) -> Self {
        Self {
            put_url: order.put_url.clone(),
            expires_at_ms: upload_deadline_ms(order, now_ms),
            multipart: order.multipart.clone(),
        }
    }
}

/// Between a run and whoever talks to the server for it.
#[derive(Debug, Default)]
pub struct UrlDesk {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    question: Option<UrlsWanted>,
    asked: u64,
    sent: u64,
    answer: Option<FreshUrls>,
}

impl UrlDesk {
    /// The run needs URLs. May be said again while no answer came: a question can get lost, and so can its answer.
    pub fn ask(&self, wanted: UrlsWanted) {
        let mut held = self.lock();
        held.question = Some(wanted);
        held.asked += 1;
    }

    /// What is asked and not on its way yet.
    pub fn question(&self) -> Option<UrlsWanted> {
        self.lock().question
    }

    /// The question went to the server.
    pub fn sent(&self) {
        let mut held = self.lock();
        held.question = None;
        held.sent = held.asked;
        drop(held);
        self.changed.notify_waiters();
    }

    /// Whether the last question went to the server.
    pub fn is_sent(&self) -> bool {
        let held = self.lock();
        held.sent == held.asked
    }

    /// The server gave these, asked or not.
    pub fn give(&self, urls: FreshUrls) {
        let mut held = self.lock();
        held.question = None;
        held.sent = held.asked;
        held.answer = Some(urls);
        drop(held);
        self.changed.notify_waiters();
    }

    /// What came, once.
    pub fn take(&self) -> Option<FreshUrls> {
        self.lock().answer.take()
    }

    /// Ends when something changed after the call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // No step inside leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
