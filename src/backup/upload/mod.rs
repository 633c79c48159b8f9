//! The object's way to the store: one PUT of the spool, tried again until the URL expires.
//!
//! No error here carries the URL's query: it is the authorisation. Host and path are all that is told.

mod answer;
mod attempt;
mod body;
mod client;
mod error;
#[cfg(test)]
mod tests;

pub use error::UploadError;

use super::cancel::Cancel;
use super::deadline::{expiry_text, upload_deadline_ms};
use super::error::RunError;
use super::pack::Packed;
use super::progress::Progress;
use super::rate::Rate;
use super::spool::Spool;
use crate::model::{RunOrder, Secret, unix_ms};
use attempt::{Attempt, Expectation, Tried};
use awc::http::Uri;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How objects go up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `server.allow_insecure`: clear-text URLs may be used.
    pub allow_insecure: bool,
    /// `server.ca_file`: trusted beside the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// How patient.
    pub timing: Timing,
    /// `backup.max_upload_bytes_per_sec`: all runs together.
    pub rate: Rate,
}

/// How patient an upload is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// DNS, TCP and TLS, each.
    pub connect: Duration,
    /// A try during which the store takes nothing for so long has failed.
    pub stall: Duration,
    /// The store's answer once it has everything: large objects are hashed and copied before it comes.
    pub answer: Duration,
    /// The store's word before the body, where it was asked for. Not every store knows the question.
    pub go_ahead: Duration,
    /// The first wait between two tries; each is twice the one before.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            answer: Duration::from_secs(300),
            go_ahead: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// A store that asks for more patience than this gets this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// A store whose checksum differs so often has another idea of the object than we do.
const MAX_MISMATCHES: u32 = 3;

/// An upload that can begin.
pub struct Put {
    url: Secret,
    /// Host and path: what may be shown.
    place: String,
    deadline_ms: u64,
    client: client::Client,
    timing: Timing,
    rate: Rate,
}

impl Put {
    /// Checks the order's URL and gets what its connection needs, before a byte is dumped.
    ///
    /// # Errors
    /// [`UploadError::BadUrl`], [`UploadError::Insecure`], [`UploadError::Roots`], [`UploadError::Expired`].
    pub fn new(order: &RunOrder, options: &Options) -> Result<Self, UploadError> {
        let bad = |reason| UploadError::BadUrl { reason };
        // The parser's own error could quote the URL.
        let uri: Uri = order.put_url.expose().parse().map_err(|_| bad("it cannot be parsed"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let place = format!("{host}{port}{}", uri.path());
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(bad("its scheme is not https")),
        };
        if !secure && !options.allow_insecure {
            return Err(UploadError::Insecure { place });
        }
        let deadline_ms = upload_deadline_ms(order, unix_ms());
        if unix_ms() >= deadline_ms {
            return Err(expired(&place, deadline_ms, 0, ""));
        }
        let client = client::Client::new(secure, options)?;
        Ok(Self {
            url: order.put_url.clone(),
            place,
            deadline_ms,
            client,
            timing: options.timing,
            rate: options.rate.clone(),
        })
    }

    /// Sends the spool until the store has it.
    ///
    /// # Errors
    /// [`RunError::Upload`], [`RunError::Spool`].
    pub async fn send(
        &self,
        spool: &Arc<Spool>,
        packed: &Packed,
        progress: &Progress,
        cancel: &Cancel,
    ) -> Result<(), RunError> {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(self.timing.first_wait)
            .with_max_delay(self.timing.longest_wait)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        let mut expectation = Expectation::None;
        let (mut tries, mut mismatches) = (0_u32, 0_u32);
        loop {
            tries += 1;
            let attempt = Attempt { put: self, spool, packed, progress, cancel, expectation };
            let (why, retry_after) = match attempt.run().await? {
                Tried::Stored => return Ok(()),
                Tried::Final(error) => return Err(error.into()),
                Tried::Mismatch(what) => {
                    mismatches += 1;
                    if mismatches >= MAX_MISMATCHES {
                        return Err(UploadError::Mismatch { place: self.place.clone(), what }.into());
                    }
                    (what, None)
                }
                Tried::Again { why, retry_after, expect } => {
                    expectation = expectation.after(expect);
                    (why, retry_after)
                }
            };
            let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            let wait = waits.next().unwrap_or(self.timing.longest_wait).max(asked);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            if unix_ms().saturating_add(wait_ms) >= self.deadline_ms {
                return Err(expired(&self.place, self.deadline_ms, tries, &why).into());
            }
            tracing::warn!(place = %self.place, tries, wait_ms, error = %why, "upload failed, trying again");
            let fields = vec![("tries", tries.to_string()), ("wait_ms", wait_ms.to_string()), ("error", why)];
            progress.warn("upload failed, trying again", fields);
            tokio::time::sleep(wait).await;
        }
    }
}

fn expired(place: &str, deadline_ms: u64, tries: u32, last: &str) -> UploadError {
    UploadError::Expired {
        place: place.to_owned(),
        at: expiry_text(deadline_ms),
        tries,
        last: last.to_owned(),
    }
}
