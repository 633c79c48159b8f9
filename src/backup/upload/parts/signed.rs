//! The signed URLs of an upload in parts, renewed when they run out.

use super::super::fresh::{NEARLY_OVER_MS, NoneCame, fresh_urls};
use super::super::place::Place;
use super::super::retry::MAX_AGE_REFUSALS;
use super::super::{Options, UploadError};
use super::size::MAX_PARTS;
use crate::backup::deadline::expiry_text;
use crate::backup::progress::Progress;
use crate::backup::urls::{FreshUrls, UrlsWanted};
use crate::model::{Multipart, Secret, unix_ms};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// Asked for at once: a message holds some thousands.
const ASKED_AT_ONCE: u32 = 1_000;

/// Of one part. It is used until its own end, also where others came since: those of a later window say nothing of it.
struct PartUrl {
    url: Secret,
    /// Unix milliseconds.
    until_ms: u64,
    /// How often there were fresh ones before it.
    renewals: u64,
    /// The store has the part: needed only by a dump that begins again, and kept for it until fresh ones come.
    stored: bool,
}

/// What there is now.
pub struct Signed {
    upload_id: RefCell<String>,
    /// The store has a part of it: another upload could not take its place.
    begun: Cell<bool>,
    parts: RefCell<BTreeMap<u32, PartUrl>>,
    complete: RefCell<Secret>,
    abort: RefCell<Secret>,
    head: RefCell<Secret>,
    /// Of the last ones that came.
    deadline_ms: Cell<u64>,
    options: Options,
    progress: Progress,
    /// One asks; the others wait for its answer.
    asking: Mutex<()>,
    renewals: Cell<u64>,
    /// So many when the upload was last replaced, as far as it can be told.
    replaced: Cell<u64>,
    /// So many when the store last took a part.
    took: Cell<u64>,
    /// The server gives URLs of parts: it is believed to give more of them.
    offers_parts: bool,
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
    /// So often.
    pub times: u32,
    /// It was not the URL's age: every try with it failed until its end.
    pub used_up: bool,
}

/// A URL, and how often there were fresh ones before it.
pub struct Found {
    pub place: Place,
    pub deadline_ms: u64,
    /// No try begins later.
    pub tries_until_ms: u64,
    pub renewals: u64,
}

impl Found {
    /// This one was refused, after the earlier ones.
    pub fn refusal(&self, why: UploadError, earlier: Option<Refusal>) -> Refusal {
        let times = earlier.map_or(0, |refusal| refusal.times) + 1;
        Refusal { renewals: self.renewals, why, times, used_up: false }
    }

    /// No try with this one succeeded until its end.
    pub fn used_up(&self, why: UploadError) -> Refusal {
        Refusal { renewals: self.renewals, why, times: 1, used_up: true }
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
            head: RefCell::new(multipart.head_url.clone()),
            deadline_ms: Cell::new(deadline_ms),
            options: options.clone(),
            progress: progress.clone(),
            asking: Mutex::new(()),
            renewals: Cell::new(0),
            replaced: Cell::new(0),
            took: Cell::new(0),
            offers_parts: !multipart.part_urls.is_empty(),
        };
        signed.add(multipart);
        Ok(signed)
    }

    fn add(&self, multipart: &Multipart) {
        let (until_ms, renewals) = (self.deadline_ms.get(), self.renewals.get());
        let urls = multipart.part_urls.iter().cloned();
        let urls = urls.map(|url| PartUrl { url, until_ms, renewals, stored: false });
        self.parts.borrow_mut().extend((multipart.first_part.max(1)..).zip(urls));
    }

    /// What the abort goes to; None where the server gave nothing that can be used.
    pub fn abort(&self) -> Option<Place> {
        Place::new(&self.abort.borrow(), self.options.allow_insecure).ok()
    }

    /// What tells whether the finished object is there; None where the server gave nothing that can be used.
    pub fn head(&self) -> Option<Place> {
        Place::new(&self.head.borrow(), self.options.allow_insecure).ok()
    }

    /// Host and path of the object.
    pub fn shown(&self) -> String {
        let place = Place::new(&self.complete.borrow(), self.options.allow_insecure);
        place.map(|place| place.shown).unwrap_or_default()
    }

    /// Until when the last URLs that came live, unix milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms.get()
    }

    /// The store's name of the upload; may be empty.
    pub fn upload_id(&self) -> String {
        self.upload_id.borrow().clone()
    }

    /// The store has a part of this upload.
    pub fn begin(&self) {
        self.begun.set(true);
    }

    /// The store took that part just now.
    pub fn took_part(&self, number: u32) {
        self.begun.set(true);
        self.took.set(self.renewals.get());
        if let Some(url) = self.parts.borrow_mut().get_mut(&number) {
            url.stored = true;
        }
    }

    /// Whether the upload of a URL that was found after so many renewals may be replaced by another one, or was.
    pub fn is_replaceable(&self, renewals: u64) -> bool {
        !self.begun.get() || renewals < self.replaced.get()
    }

    /// The URL that lives, until when, and how often there were fresh ones before it.
    fn look(&self, which: Which) -> Option<(Secret, u64, u64)> {
        let found = match which {
            Which::Part(number) => {
                let parts = self.parts.borrow();
                let part = parts.get(&number)?;
                (part.url.clone(), part.until_ms, part.renewals)
            }
            Which::Complete => (self.complete.borrow().clone(), self.deadline_ms.get(), self.renewals.get()),
        };
        Some(found).filter(|(_, until_ms, _)| !is_over(*until_ms))
    }

    /// The URL, a fresh one where that is needed.
    ///
    /// # Errors
    /// Why there is none; where the store refused the last one, what it said.
    pub async fn find(&self, which: Which, refused: Option<&Refusal>) -> Result<Found, UploadError> {
        if let Some(hopeless) = refused.filter(|refusal| self.is_hopeless(refusal)) {
            return Err(hopeless.why.clone());
        }
        let usable = |which| {
            let found = self.look(which);
            found.filter(|(_, _, renewals)| refused.is_none_or(|refusal| *renewals > refusal.renewals))
        };
        if usable(which).is_none() {
            let _asking = self.asking.lock().await;
            if usable(which).is_none() {
                let why = || refused.map_or_else(|| self.missing(which), |refusal| refusal.why.clone());
                self.renew(which, why).await?;
            }
        }
        let (url, deadline_ms, renewals) = self.look(which).ok_or_else(|| self.missing(which))?;
        let place = Place::new(&url, self.options.allow_insecure)?;
        let tries_until_ms = deadline_ms.saturating_sub(NEARLY_OVER_MS);
        Ok(Found { place, deadline_ms, tries_until_ms, renewals })
    }

    /// Other URLs would not help: the store finds each of them too old, or took nothing for the whole life of fresh
    /// ones.
    fn is_hopeless(&self, refusal: &Refusal) -> bool {
        let took_nothing = refusal.used_up && refusal.renewals > self.took.get();
        refusal.times > MAX_AGE_REFUSALS || took_nothing
    }

    /// Whether it is of another upload; names that are not told cannot be compared.
    fn is_other(&self, multipart: &Multipart) -> bool {
        let known = self.upload_id.borrow();
        !known.is_empty() && !multipart.upload_id.is_empty() && *known != multipart.upload_id
    }

    /// Whether it is certainly of this one.
    fn is_same(&self, multipart: &Multipart) -> bool {
        !multipart.upload_id.is_empty() && *self.upload_id.borrow() == multipart.upload_id
    }

    /// The store has lost the upload: another one takes its place, from the first part on.
    ///
    /// # Errors
    /// `lost`, where none came.
    pub async fn replace(&self, lost: &UploadError) -> Result<(), UploadError> {
        let _asking = self.asking.lock().await;
        let wanted = UrlsWanted { first_part: 1, part_count: ASKED_AT_ONCE };
        let another =
            |multipart: &Multipart, _| covers(multipart, Which::Part(1)) && self.is_other(multipart);
        let fresh = self.ask(wanted, another).await.map_err(|none| none.after(lost.clone()))?;
        self.begun.set(false);
        self.take(fresh)
    }

    async fn renew(&self, which: Which, why: impl Fn() -> UploadError) -> Result<(), UploadError> {
        let wanted = match which {
            Which::Part(number) if u64::from(number) > MAX_PARTS => {
                return Err(UploadError::TooManyParts { signed: u64::from(number - 1) });
            }
            Which::Part(first_part) => UrlsWanted { first_part, part_count: ASKED_AT_ONCE },
            Which::Complete => UrlsWanted { first_part: 0, part_count: 0 },
        };
        // Another upload says that this one is over, where it answers the question; parts are not given up for an order
        // that only came again.
        let useful = |multipart: &Multipart, asked: bool| {
            if self.begun.get() && self.is_other(multipart) { asked } else { covers(multipart, which) }
        };
        let fresh = self.ask(wanted, useful).await;
        self.take(fresh.map_err(|none| none.after(why()))?)
    }

    async fn ask(
        &self,
        wanted: UrlsWanted,
        covers: impl Fn(&Multipart, bool) -> bool,
    ) -> Result<FreshUrls, NoneCame> {
        let covers = |urls: &FreshUrls, asked| {
            urls.multipart.as_ref().is_some_and(|multipart| covers(multipart, asked))
        };
        // Where nothing is stored yet, there is less to wait for.
        let answers = self.renewals.get() > 0 || self.begun.get() && self.offers_parts;
        fresh_urls(&self.progress, wanted, covers, answers, &self.options.timing).await
    }

    fn take(&self, fresh: FreshUrls) -> Result<(), UploadError> {
        let Some(multipart) = fresh.multipart else { return Ok(()) };
        // Of the object, whichever upload it comes from.
        self.progress.hide_url(&multipart.head_url);
        *self.head.borrow_mut() = multipart.head_url.clone();
        let (other, same) = (self.is_other(&multipart), self.is_same(&multipart));
        if other && self.begun.get() {
            return Err(UploadError::OtherUpload);
        }
        if other {
            tracing::info!("the store has lost the upload: another one begins");
            self.upload_id.replace(multipart.upload_id.clone());
        }
        self.deadline_ms.set(fresh.expires_at_ms);
        self.renewals.set(self.renewals.get() + 1);
        if same {
            // Those of other parts than came now are used to their end; there are as many as parts at most.
            self.parts.borrow_mut().retain(|_, url| !url.stored);
        } else {
            self.parts.borrow_mut().clear();
            self.replaced.set(self.renewals.get());
        }
        self.add(&multipart);
        for url in [&multipart.complete_url, &multipart.abort_url] {
            self.progress.hide_url(url);
        }
        *self.complete.borrow_mut() = multipart.complete_url;
        *self.abort.borrow_mut() = multipart.abort_url;
        tracing::info!(parts = multipart.part_urls.len(), "upload goes on with fresh URLs");
        Ok(())
    }

    /// Asks for URLs from a part on, beyond those that there are. Whether some came.
    pub async fn ask_ahead(&self, beyond: u32) -> bool {
        let _asking = self.asking.lock().await;
        let which = Which::Part(beyond);
        self.renew(which, || self.missing(which)).await.is_ok() && self.look(which).is_some()
    }

    /// Why there is no URL.
    pub fn missing(&self, which: Which) -> UploadError {
        let ended_ms = match which {
            Which::Part(number) => self.parts.borrow().get(&number).map(|part| part.until_ms),
            Which::Complete => None,
        };
        let until_ms = ended_ms.unwrap_or(self.deadline_ms.get());
        match which {
            Which::Part(number) if !is_over(until_ms) => {
                UploadError::TooManyParts { signed: u64::from(number.saturating_sub(1)) }
            }
            Which::Part(_) | Which::Complete => {
                UploadError::UrlsExpired { place: self.shown(), at: expiry_text(until_ms) }
            }
        }
    }
}

/// Too late for a request to begin.
fn is_over(until_ms: u64) -> bool {
    unix_ms().saturating_add(NEARLY_OVER_MS) >= until_ms
}

/// Whether the URL is among them.
fn covers(multipart: &Multipart, which: Which) -> bool {
    match which {
        Which::Part(number) => {
            let first = multipart.first_part.max(1);
            number
                .checked_sub(first)
                .and_then(|at| usize::try_from(at).ok())
                .is_some_and(|at| at < multipart.part_urls.len())
        }
        Which::Complete => true,
    }
}
