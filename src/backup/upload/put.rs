//! One PUT of the whole spool, tried again until the URL's life is over, and with a fresh URL after it.

use super::answer::{Tried, judge_put, md5_of};
use super::fresh::fresh_urls;
use super::http::{Body, Client, Request, Source};
use super::place::Place;
use super::retry::{MAX_AGE_REFUSALS, MAX_MISMATCHES, Tries, too_late};
use super::sum::Md5Sum;
use super::{Options, UploadError};
use crate::backup::deadline::upload_deadline_ms;
use crate::backup::dumped::Packed;
use crate::backup::error::RunError;
use crate::backup::progress::Progress;
use crate::backup::urls::{FreshUrls, UrlsWanted};
use crate::model::{RunOrder, unix_ms};
use crate::spool::Spool;
use data_encoding::BASE64;
use std::cell::Cell;
use std::sync::Arc;
use tokio::time::{Duration, Instant};

/// What a single PUT is signed for.
const CONTENT_TYPE: &str = "application/octet-stream";

/// A try that the store took part in. One that stands still is given up sooner.
const LONG_TRY: Duration = Duration::from_secs(120);

/// Lives of fresh URLs that may end without the object where their last try was a long one; of any other, one.
const MAX_FRUITLESS: u32 = 5;

/// An upload by one PUT that can begin.
pub struct Put {
    order: RunOrder,
    place: Place,
    client: Client,
    options: Options,
    /// There were fresh URLs before this one: the server gives some.
    renewed: bool,
}

impl Put {
    /// Checks the order's URL and gets what its connection needs, before a byte is dumped.
    ///
    /// # Errors
    /// [`UploadError::BadUrl`], [`UploadError::Insecure`], [`UploadError::Roots`], [`UploadError::Expired`].
    pub fn new(order: &RunOrder, options: &Options) -> Result<Self, UploadError> {
        let place = Place::new(&order.put_url, options.allow_insecure)?;
        let deadline_ms = upload_deadline_ms(order, unix_ms());
        if unix_ms() >= deadline_ms {
            return Err(too_late(&place.shown, deadline_ms));
        }
        let client = Client::new(place.secure, options)?;
        Ok(Self { order: order.clone(), place, client, options: options.clone(), renewed: false })
    }

    /// Sends the spool until the store has it.
    ///
    /// # Errors
    /// [`RunError::Upload`], [`RunError::Spool`].
    pub async fn send(mut self, spool: &Spool, packed: &Packed, progress: &Progress) -> Result<(), RunError> {
        let begun_ms = unix_ms();
        let mut deadline_ms = upload_deadline_ms(&self.order, begun_ms);
        let file = Arc::new(spool.reader()?);
        let source = Source::File { file, offset: 0, len: packed.size_bytes };
        let mut sum = Md5Sum::of(&source)?;
        let mut tries = Tries::new(&self.options.timing, progress);
        let mut too_old = 0;
        let mut fruitless = 0;
        loop {
            tries.keep_waiting(deadline_ms).await;
            tries.count += 1;
            let begun = Instant::now();
            let over = match self.attempt(&source, &mut sum, packed, progress, tries.unasked).await {
                Tried::Done(_) => return Ok(()),
                Tried::Final(UploadError::Mismatch { place, what }) => {
                    tries.mismatches += 1;
                    if tries.mismatches >= MAX_MISMATCHES {
                        return Err(UploadError::Mismatch { place, what }.into());
                    }
                    let in_time = tries.pause(&self.place.shown, what, None, deadline_ms).await;
                    (!in_time).then(|| tries.expired(&self.place.shown, deadline_ms))
                }
                Tried::Final(error) => return Err(error.into()),
                Tried::Expired(error) if too_old >= MAX_AGE_REFUSALS => return Err(error.into()),
                Tried::Expired(error) => {
                    too_old += 1;
                    Some(error)
                }
                Tried::Again { why, retry_after, unasked } => {
                    tries.unasked |= unasked;
                    let in_time = tries.pause(&self.place.shown, why, retry_after, deadline_ms).await;
                    (!in_time).then(|| tries.expired(&self.place.shown, deadline_ms))
                }
            };
            let Some(error) = over else { continue };
            if self.renewed && too_old == 0 {
                // A try of minutes moved something; one of seconds met a store that takes nothing.
                fruitless += if begun.elapsed() > LONG_TRY { 1 } else { MAX_FRUITLESS };
                if fruitless >= MAX_FRUITLESS {
                    return Err(error.into());
                }
            }
            deadline_ms = self.renew(progress, error).await?;
        }
    }

    /// Another URL for the same object, or the reason why the upload is over.
    async fn renew(&mut self, progress: &Progress, error: UploadError) -> Result<u64, RunError> {
        let wanted = UrlsWanted { first_part: 0, part_count: 0 };
        let covers = |urls: &FreshUrls, _| !urls.put_url.expose().is_empty();
        let fresh = fresh_urls(progress, wanted, covers, self.renewed, &self.options.timing).await;
        let fresh = fresh.map_err(|none| none.after(error))?;
        self.renewed = true;
        self.order.put_url = fresh.put_url;
        progress.hide_url(&self.order.put_url);
        self.order.expires_at_ms = fresh.expires_at_ms;
        let place = Place::new(&self.order.put_url, self.options.allow_insecure)?;
        if place.secure != self.place.secure {
            self.client = Client::new(place.secure, &self.options)?;
        }
        tracing::info!(place = %place.shown, "upload goes on with a fresh URL");
        self.place = place;
        Ok(self.order.expires_at_ms)
    }

    async fn attempt(
        &self,
        source: &Source,
        sum: &mut Md5Sum,
        packed: &Packed,
        progress: &Progress,
        unasked: bool,
    ) -> Tried {
        let sent = Cell::new(0);
        let moved = |bytes| {
            sent.set(sent.get() + bytes);
            progress.uploading(sent.get(), packed.size_bytes);
        };
        let body = Body::new(source, self.options.rate.clone(), &moved);
        let content_type = Some(CONTENT_TYPE);
        let request = Request { method: "PUT", place: &self.place, content_type, unasked, body };
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            Err(broken) => return Tried::broken(broken, &self.place),
        };
        let answer = match judge_put(answer, &self.place) {
            Tried::Done(answer) => answer,
            other @ (Tried::Final(_) | Tried::Expired(_) | Tried::Again { .. }) => return other,
        };
        if sent.get() < packed.size_bytes {
            return Tried::again("the store said that it has everything before it had");
        }
        let mismatch = |what: &str| {
            Tried::Final(UploadError::Mismatch { place: self.place.shown.clone(), what: what.into() })
        };
        let given = answer.header("x-amz-checksum-sha256");
        let given = given.and_then(|value| BASE64.decode(value.as_bytes()).ok());
        if let Some(given) = given.filter(|given| given.len() == packed.sha256.len()) {
            return if given == packed.sha256 {
                Tried::Done(answer)
            } else {
                mismatch("its SHA-256 differs")
            };
        }
        let Some(theirs) = md5_of(&answer) else { return Tried::Done(answer) };
        match sum.get().await {
            Ok(ours) if ours == theirs => Tried::Done(answer),
            Ok(_) => mismatch("its ETag is not the MD5 of what was sent"),
            Err(why) => Tried::again(why),
        }
    }
}
