//! The signed URLs of an upload in parts, renewed when they run out.

use super::super::fresh::fresh_urls;
use super::super::place::Place;
use super::super::retry::MAX_AGE_REFUSALS;
use super::super::{Options, UploadError};
use super::size::MAX_PARTS;
use crate::backup::deadline::{UNDATED_LIFE, expiry_text};
use crate::backup::progress::Progress;
use crate::backup::urls::{FreshUrls, UrlsWanted};
use crate::model::{Multipart, Secret, unix_ms};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// Asked for at once: a message holds some thousands.
const ASKED_AT_ONCE: u32 = 1_000;

/// A URL that ends so soon is renewed before it is used, in milliseconds: the request must have begun by then.
const NEARLY_OVER_MS: u64 = 2_000;

/// What there is now.
pub struct Signed {
    upload_id: RefCell<String>,
    /// The store has a part of it: another upload could not take its place.
    begun: Cell<bool>,
    parts: RefCell<BTreeMap<u32, Secret>>,
    complete: RefCell<Secret>,
    abort: RefCell<Secret>,
    deadline_ms: Cell<u64>,
    options: Options,
    progress: Progress,
    /// One asks; the others wait for its answer.
    asking: Mutex<()>,
    renewals: Cell<u64>,
}

/// Which URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// That part's.
    Part(u32),
    /// The one that completes.
    Complete,
}

/// The store refused a URL for its age.
pub struct Refusal {
    /// Of the URL.
    pub renewals: u64,
    /// What it said.
    pub why: UploadError,
    /// So often in a row.
    pub times: u32,
}

/// A URL, and how often there were fresh ones before it.
pub struct Found {
    pub place: Place,
    pub deadline_ms: u64,
    pub renewals: u64,
}

impl Found {
    /// This one was refused, after the earlier ones.
    pub fn refusal(&self, why: UploadError, earlier: Option<Refusal>) -> Refusal {
        let times = earlier.map_or(0, |refusal| refusal.times) + 1;
        Refusal { renewals: self.renewals, why, times }
    }
}

impl Signed {
    /// What the order brought.
    ///
    /// # Errors
    /// [`UploadError::BadUrl`], [`UploadError::Insecure`], of the completing URL.
    pub fn new(
        multipart: &Multipart,
        deadline_ms: u64,
        options: &Options,
        progress: &Progress,
    ) -> Result<Self, UploadError> {
        Place::new(&multipart.complete_url, options.allow_insecure)?;
        let signed = Self {
            upload_id: RefCell::new(multipart.upload_id.clone()),
            begun: Cell::new(false),
            parts: RefCell::default(),
            complete: RefCell::new(multipart.complete_url.clone()),
            abort: RefCell::new(multipart.abort_url.clone()),
            deadline_ms: Cell::new(deadline_ms),
            options: options.clone(),
            progress: progress.clone(),
            asking: Mutex::new(()),
            renewals: Cell::new(0),
        };
        signed.add(multipart);
        Ok(signed)
    }

    fn add(&self, multipart: &Multipart) {
        let numbers = multipart.first_part.max(1)..;
        self.parts.borrow_mut().extend(numbers.zip(multipart.part_urls.iter().cloned()));
    }

    /// What the abort goes to; None where the server gave nothing that can be used.
    pub fn abort(&self) -> Option<Place> {
        Place::new(&self.abort.borrow(), self.options.allow_insecure).ok()
    }

    /// The store's name of the upload; may be empty.
    pub fn upload_id(&self) -> String {
        self.upload_id.borrow().clone()
    }

    /// The store has a part of this upload.
    pub fn begin(&self) {
        self.begun.set(true);
    }

    /// Whether the upload of a URL that was found after so many renewals may be replaced by another one, or was.
    pub fn is_replaceable(&self, renewals: u64) -> bool {
        !self.begun.get() || renewals < self.renewals.get()
    }

    fn look(&self, which: Which) -> Option<Secret> {
        if unix_ms().saturating_add(NEARLY_OVER_MS) >= self.deadline_ms.get() {
            return None;
        }
        match which {
            Which::Part(number) => self.parts.borrow().get(&number).cloned(),
            Which::Complete => Some(self.complete.borrow().clone()),
        }
    }

    /// The URL, a fresh one where that is needed.
    ///
    /// # Errors
    /// Why there is none; where the store refused the last one, what it said.
    pub async fn find(&self, which: Which, refused: Option<&Refusal>) -> Result<Found, UploadError> {
        if let Some(hopeless) = refused.filter(|refusal| refusal.times > MAX_AGE_REFUSALS) {
            return Err(hopeless.why.clone());
        }
        let fresh = |refusal: &Refusal| self.renewals.get() > refusal.renewals;
        let usable = |which| self.look(which).filter(|_| refused.is_none_or(fresh));
        if usable(which).is_none() {
            let _asking = self.asking.lock().await;
            if usable(which).is_none() {
                self.renew(which).await.map_err(|error| {
                    let none_came =
                        matches!(error, UploadError::UrlsExpired { .. } | UploadError::TooManyParts { .. });
                    refused.filter(|_| none_came).map_or(error, |refusal| refusal.why.clone())
                })?;
            }
        }
        let url = self.look(which).ok_or_else(|| self.missing(which))?;
        let place = Place::new(&url, self.options.allow_insecure)?;
        Ok(Found { place, deadline_ms: self.deadline_ms.get(), renewals: self.renewals.get() })
    }

    async fn renew(&self, which: Which) -> Result<(), UploadError> {
        let wanted = match which {
            Which::Part(number) if u64::from(number) > MAX_PARTS => {
                return Err(UploadError::TooManyParts { signed: u64::from(number - 1) });
            }
            Which::Part(first_part) => UrlsWanted { first_part, part_count: ASKED_AT_ONCE },
            Which::Complete => UrlsWanted { first_part: 0, part_count: 0 },
        };
        let fresh = fresh_urls(&self.progress, wanted, &self.options.timing).await;
        let Some(FreshUrls { expires_at_ms, multipart: Some(multipart), .. }) = fresh else {
            return Err(self.missing(which));
        };
        let other = {
            let known = self.upload_id.borrow();
            !known.is_empty() && !multipart.upload_id.is_empty() && *known != multipart.upload_id
        };
        if other && self.begun.get() {
            return Err(UploadError::OtherUpload);
        }
        if other {
            tracing::info!(
                "the store has lost the upload before a part of it was stored: another one begins"
            );
            self.upload_id.replace(multipart.upload_id.clone());
        }
        let undated = unix_ms() + u64::try_from(UNDATED_LIFE.as_millis()).unwrap_or(0);
        // The old ones end before the fresh ones: none is mixed up with them.
        self.parts.borrow_mut().clear();
        self.add(&multipart);
        *self.complete.borrow_mut() = multipart.complete_url;
        *self.abort.borrow_mut() = multipart.abort_url;
        self.deadline_ms.set(if expires_at_ms == 0 { undated } else { expires_at_ms });
        self.renewals.set(self.renewals.get() + 1);
        tracing::info!(parts = multipart.part_urls.len(), "upload goes on with fresh URLs");
        Ok(())
    }

    /// Asks for URLs from a part on though there are some yet. Whether there are some beyond the last one now.
    pub async fn ask_ahead(&self, first: u32, beyond: u32) -> bool {
        let _asking = self.asking.lock().await;
        self.renew(Which::Part(first)).await.is_ok() && self.look(Which::Part(beyond)).is_some()
    }

    /// Why there is no URL.
    pub fn missing(&self, which: Which) -> UploadError {
        let expired = unix_ms().saturating_add(NEARLY_OVER_MS) >= self.deadline_ms.get();
        match which {
            Which::Part(number) if !expired => {
                UploadError::TooManyParts { signed: u64::from(number.saturating_sub(1)) }
            }
            Which::Part(_) | Which::Complete => {
                let place = Place::new(&self.complete.borrow(), self.options.allow_insecure);
                let place = place.map(|place| place.shown).unwrap_or_default();
                UploadError::UrlsExpired { place, at: expiry_text(self.deadline_ms.get()) }
            }
        }
    }
}
