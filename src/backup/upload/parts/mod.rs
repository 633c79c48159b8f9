//! The object in parts (protocol section 5): each goes up by itself, several at once, each tried again by itself;
//! then the store puts them together.
//!
//! Nothing of the object is on the disk while it is made: parts are held in memory only while they go up. Parts
//! that are too large for that wait in unlinked files, a few at a time; and where the store takes nothing for a while,
//! so do all that follow, so that the dump does not stand still. From a spool, its pieces are the parts.

mod abort;
mod complete;
mod places;
mod prove;
mod signed;
mod sink;
#[cfg(test)]
mod sink_tests;
mod size;
#[cfg(test)]
mod test_shop;
#[cfg(test)]
mod tests;

pub use abort::{ABORT_LIMIT_CANCELLED, ABORT_LIMIT_FAILED, give_up};
pub use places::PATIENCE;
pub use sink::{PartSink, PartWriter, SinkOptions};
pub use size::{Numbers, memory_bytes};

use super::answer::{Tried, judge_put, md5_of};
use super::http::{Body, Client, Request, Source};
use super::place::Place;
use super::retry::{MAX_MISMATCHES, Tries, too_late};
use super::{Options, UploadError};
use crate::backup::deadline::upload_deadline_ms;
use crate::backup::error::RunError;
use crate::backup::ledger::{Ledger, Stored};
use crate::backup::progress::Progress;
use crate::model::{RunOrder, unix_ms};
use crate::spool::Spool;
use data_encoding::HEXLOWER;
use futures_util::future::{Fuse, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use md5::{Digest, Md5};
use signed::{Refusal, Signed, Which};
use sink::{Item, Part};
use size::SPOOL_PARALLEL;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An upload in parts that can begin.
pub struct Parts {
    client: Client,
    signed: Signed,
    options: Options,
    progress: Progress,
    offered_bytes: u64,
    numbers: Numbers,
    sent_bytes: Cell<u64>,
    total_bytes: Cell<u64>,
}

impl Parts {
    /// Checks the order's URLs and gets what connections need, before a byte is dumped. None where the server
    /// offers no parts.
    ///
    /// # Errors
    /// [`UploadError::BadUrl`], [`UploadError::Insecure`], [`UploadError::Roots`], [`UploadError::Expired`].
    pub fn new(
        order: &RunOrder,
        options: &Options,
        progress: &Progress,
    ) -> Result<Option<Self>, UploadError> {
        let Some(multipart) = &order.multipart else { return Ok(None) };
        let deadline_ms = upload_deadline_ms(order, unix_ms());
        let place = Place::new(&multipart.complete_url, options.allow_insecure)?;
        if unix_ms() >= deadline_ms {
            return Err(too_late(&place.shown, deadline_ms));
        }
        let mut secure = place.secure;
        for url in &multipart.part_urls {
            secure |= Place::new(url, options.allow_insecure)?.secure;
        }
        Ok(Some(Self {
            client: Client::new(secure, options)?,
            signed: Signed::new(multipart, deadline_ms, options, progress)?,
            options: options.clone(),
            progress: progress.clone(),
            offered_bytes: multipart.part_size_bytes,
            // A server that gave those from a later part on gives more when it is asked.
            numbers: Numbers::new(if multipart.first_part > 1 { 0 } else { multipart.part_urls.len() }),
            sent_bytes: Cell::new(0),
            total_bytes: Cell::new(0),
        }))
    }

    /// What the server wishes of parts: bytes of each (0 leaves it to us), and how many there may be.
    pub fn offer(&self) -> (u64, Numbers) {
        (self.offered_bytes, self.numbers.clone())
    }

    /// Sends what comes, until the object is whole or void. None where the dump ended before its end. Takes what comes at
    /// once, also where the store takes nothing: the dump never waits for this.
    ///
    /// # Errors
    /// [`RunError::Upload`]
    pub async fn send_all(&self, mut items: mpsc::Receiver<Item>) -> Result<Option<Vec<Stored>>, RunError> {
        let mut going = FuturesUnordered::new();
        let mut waiting = VecDeque::<Arc<Part>>::new();
        let mut stored = Vec::new();
        let (mut open, mut asked) = (true, false);
        let mut asking = std::pin::pin!(Fuse::terminated());
        loop {
            while let Some(part) = waiting.pop_front_if(|part| going.len() < part.parallel) {
                going.push(self.send_part(part));
            }
            if !open && going.is_empty() {
                return Ok(Some(in_order(stored)));
            }
            tokio::select! {
                biased;
                done = going.next(), if !going.is_empty() => if let Some(done) = done {
                    stored.push(done?);
                },
                () = asking.as_mut() => {}
                item = items.recv(), if open => match item {
                    Some(Item::Part(part)) => {
                        // Now, and not when it goes: parts grow by what is made, also where the store takes nothing.
                        if !asked && self.numbers.is_nearly_used_up(part.number) {
                            asked = true;
                            asking.set(self.ask_for_more().fuse());
                        }
                        // What holds a place goes first: the dump waits for it.
                        if part.is_waited_for() { waiting.push_front(part) } else { waiting.push_back(part) }
                    }
                    Some(Item::Restart) => {
                        going = FuturesUnordered::new();
                        waiting.clear();
                        stored.clear();
                    }
                    Some(Item::End) => open = false,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Before the signed URLs are used up: whether the server gives more decides how large the next parts must be.
    async fn ask_for_more(&self) {
        let beyond = u32::try_from(self.numbers.most() + 1).unwrap_or(u32::MAX);
        if self.signed.ask_ahead(beyond).await {
            self.numbers.more();
        } else {
            tracing::info!("the server gives no more URLs of parts for now: the next ones grow");
        }
    }

    /// Sends the spool's pieces, but for those that the ledger has.
    ///
    /// # Errors
    /// [`RunError::Upload`], [`RunError::Spool`].
    pub async fn send_spool(
        &self,
        spool: &Spool,
        size_bytes: u64,
        ledger: &mut Ledger,
    ) -> Result<Vec<Stored>, RunError> {
        let part_bytes = size::part_bytes(self.offered_bytes, self.numbers.most(), size_bytes);
        let part_bytes = ledger.begin_upload(&self.upload_id(), part_bytes);
        let file = Arc::new(spool.reader()?);
        let mut stored = ledger.stored();
        if !stored.is_empty() {
            self.signed.begin();
        }
        self.total_bytes.set(size_bytes);
        let count = u32::try_from(size_bytes.div_ceil(part_bytes)).unwrap_or(u32::MAX);
        let mut waiting = (1..=count)
            .filter(|number| !stored.iter().any(|part| part.number == *number))
            .collect::<Vec<_>>()
            .into_iter();
        if !stored.is_empty() {
            tracing::info!(parts = stored.len(), "parts that the store has already are not sent again");
        }
        self.sent_bytes.set(part_bytes.saturating_mul(stored.len() as u64));
        let mut going = FuturesUnordered::new();
        loop {
            while going.len() < SPOOL_PARALLEL
                && let Some(number) = waiting.next()
            {
                let offset = u64::from(number - 1) * part_bytes;
                let len = part_bytes.min(size_bytes - offset);
                let source = Source::File { file: Arc::clone(&file), offset, len };
                going.push(self.send_part(Arc::new(Part::of_spool(number, source, SPOOL_PARALLEL))));
            }
            let Some(done) = going.next().await else { return Ok(in_order(stored)) };
            let part = done?;
            ledger.note(&part);
            stored.push(part);
        }
    }

    /// The store has lost the upload: the next parts go to another one, from the first on.
    ///
    /// # Errors
    /// `lost`, where the server gives no other one.
    pub async fn begin_another(&self, lost: &UploadError) -> Result<(), UploadError> {
        self.signed.replace(lost).await
    }

    /// The store's name of the upload; may be empty.
    pub fn upload_id(&self) -> String {
        self.signed.upload_id()
    }

    /// One part, until the store has it.
    async fn send_part(&self, part: Arc<Part>) -> Result<Stored, RunError> {
        let mut tries = Tries::new(&self.options.timing, &self.progress);
        let mut refused: Option<Refusal> = None;
        loop {
            let found = self.signed.find(Which::Part(part.number), refused.as_ref()).await;
            let found = found.map_err(|error| tries.why(error))?;
            tries.keep_waiting(found.deadline_ms).await;
            tries.count += 1;
            let (why, retry_after) = match self.attempt(&part, &found.place, tries.unasked).await {
                Ok(stored) => {
                    self.signed.took_part(part.number);
                    return Ok(stored);
                }
                // A life that was killed when the store had put its parts together comes back to an upload that is over.
                Err(Tried::Final(gone))
                    if gone.is_no_such_upload() && self.signed.is_replaceable(found.renewals) =>
                {
                    refused = Some(found.refusal(gone, refused));
                    continue;
                }
                Err(Tried::Final(UploadError::Mismatch { place, what })) => {
                    tries.mismatches += 1;
                    if tries.mismatches >= MAX_MISMATCHES {
                        return Err(UploadError::Mismatch { place, what }.into());
                    }
                    (what, None)
                }
                Err(Tried::Final(error)) => return Err(error.into()),
                Err(Tried::Expired(why)) => {
                    tracing::info!(part = part.number, place = %found.place.shown, "a part's URL is too old");
                    refused = Some(found.refusal(why, refused));
                    continue;
                }
                Err(Tried::Again { why, retry_after, unasked }) => {
                    tries.unasked |= unasked;
                    (why, retry_after)
                }
                Err(Tried::Done(_)) => ("the store's answer could not be used".to_owned(), None),
            };
            if !tries.pause(&found.place.shown, why, retry_after, found.tries_until_ms).await {
                // Fresh URLs, or the reason of the last try.
                refused = Some(found.used_up(tries.expired(&found.place.shown, found.deadline_ms)));
            }
        }
    }

    async fn attempt(&self, part: &Part, place: &Place, unasked: bool) -> Result<Stored, Tried> {
        let mut hash = Md5::new();
        let mine = Cell::new(0);
        let moved = |bytes| {
            mine.set(mine.get() + bytes);
            self.sent_bytes.set(self.sent_bytes.get() + bytes);
            if self.total_bytes.get() > 0 {
                self.progress.uploading(self.sent_bytes.get(), self.total_bytes.get());
            }
        };
        let body = Body::new(&part.source, self.options.rate.clone(), &moved).hashed(&mut hash);
        let content_type = place.signs_content_type.then_some("application/octet-stream");
        let request = Request { method: "PUT", place, content_type, unasked, body };
        let sent = self.client.send(request).await;
        let sent = sent.map_err(|broken| Tried::broken(broken, place));
        let answer = match sent.map(|answer| judge_put(answer, place)) {
            Ok(Tried::Done(answer)) if mine.get() == part.source.len() => answer,
            other => {
                self.sent_bytes.set(self.sent_bytes.get().saturating_sub(mine.get()));
                return Err(match other {
                    Ok(Tried::Done(_)) => Tried::again("the store said that it has everything before it had"),
                    Ok(tried) | Err(tried) => tried,
                });
            }
        };
        // What compresses on the way makes it weak; the store knows it as it was.
        let etag = answer.header("etag").map(|etag| etag.trim_start_matches("W/"));
        let Some(etag) = etag.filter(|etag| !etag.is_empty()).map(str::to_owned) else {
            let what = "it gave no ETag for a part, without which no upload can be completed; let what stands before the store pass it".into();
            return Err(Tried::Final(UploadError::NotCompleted { place: place.shown.clone(), what }));
        };
        let sum: [u8; 16] = hash.finalize().into();
        let md5 = match md5_of(&answer) {
            Some(md5) if md5 != HEXLOWER.encode(&sum) => {
                let what = format!("the ETag of part {} is not the MD5 of what was sent", part.number);
                return Err(Tried::Final(UploadError::Mismatch { place: place.shown.clone(), what }));
            }
            Some(_) => Some(sum),
            None => None,
        };
        Ok(Stored { number: part.number, etag, md5 })
    }
}

fn in_order(mut stored: Vec<Stored>) -> Vec<Stored> {
    stored.sort_by_key(|part| part.number);
    stored
}
