//! What a run is offered to upload with: one signed PUT always; parts beside it where the agent can and the settings
//! allow them (protocol section 5).
//!
//! An upload in parts is begun with the run's first dispatch, and every later one has fresh URLs of the same upload.
//! It ends with its run: put together, given up by the agent, or removed here.

use super::keys;
use super::object_parts::MAX_PARTS;
use super::plane::Plane;
use super::presign::{self, Scope};
use super::records::{Run, Upload};
use crate::model::unix_ms;
use crate::wire::v1;
use actix_web::web;
use std::collections::HashSet;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// What an agent says that uploads in parts.
const CAPABILITY: &str = "multipart_upload";
/// Of the signed URLs of parts in one message, together: it must stay under 4 MiB, whatever `public_url` is.
const MAX_URLS_BYTES: usize = 2 * 1024 * 1024;
/// How long an upload whose URLs have all expired is kept: an agent without a link asks for fresh ones that much later
/// at most (it waits 15 minutes), and parts that are gone cannot be asked back.
const UPLOAD_GRACE_MS: u64 = 60 * 60 * 1000;
/// How often uploads are looked for that nobody will end.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The parts whose URLs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From 1.
    pub first: u32,
    /// None leaves it to us.
    pub count: Option<u32>,
}

impl Window {
    /// What a run begins with.
    pub const START: Self = Self { first: 1, count: None };

    /// What an agent asks for.
    pub fn of(request: &v1::UploadUrlsRequest) -> Self {
        Self { first: request.first_part_number.max(1), count: Some(request.part_count) }
    }
}

impl Plane {
    /// The upload that a run's next order names, valid until then; None for one PUT. One that is gone, or was put
    /// together where parts are wanted, is followed by another.
    pub fn upload_for(&self, run: &Run, expires_at_ms: u64, window: Window) -> io::Result<Option<Upload>> {
        let capable = self.store.read(|state| {
            let register = state.agents.get(&run.agent_id).and_then(|agent| agent.register.as_ref());
            register.is_some_and(|register| register.capabilities.iter().any(|what| what == CAPABILITY))
        });
        // An upload that goes on is not cut off by a setting.
        if !capable || !(self.limits.multipart || run.upload.is_some()) {
            return Ok(None);
        }
        let usable = |id: &str| match window.count {
            Some(0) => self.objects.has_upload(id),
            Some(_) | None => self.objects.takes_parts(id),
        };
        let known = run.upload.as_ref().filter(|upload| usable(&upload.id));
        let id = match known {
            Some(upload) => upload.id.clone(),
            None => keys::random_hex::<16>()?,
        };
        Ok(Some(Upload { id, expires_at_ms }))
    }

    /// Makes room for the upload that a run names.
    pub async fn begin_upload(&self, run: &Run) -> io::Result<()> {
        let Some(Upload { id, .. }) = run.upload.clone() else { return Ok(()) };
        let objects = self.objects.clone();
        web::block(move || objects.begin_upload(&id)).await.map_err(io::Error::other)?
    }

    /// The signed URLs of a run: one to PUT the object, and those of its upload in parts.
    pub fn creds(&self, run: &Run, base: &str, expires_at_ms: u64, window: Window) -> v1::S3UploadCreds {
        let base = self.object_base(base);
        let sign = |method: &str, scope: Scope<'_>| {
            let url = presign::url(self.keys.urls(), &base, method, &run.s3_key, scope, expires_at_ms);
            url.expose().to_owned()
        };
        let one = v1::S3UploadCreds {
            presigned_put_url: sign("PUT", Scope::Object),
            expires_at_ms,
            final_s3_key: run.s3_key.clone(),
            ..v1::S3UploadCreds::default()
        };
        let Some(Upload { id, .. }) = &run.upload else { return one };
        v1::S3UploadCreds {
            part_size_bytes: self.limits.part_size_bytes,
            presigned_part_urls: bounded(
                self.numbers(window).map(|number| sign("PUT", Scope::Part(id, number))),
            ),
            presigned_complete_url: sign("POST", Scope::Upload(id)),
            presigned_abort_url: sign("DELETE", Scope::Upload(id)),
            presigned_head_url: sign("HEAD", Scope::Object),
            multipart_upload_id: id.clone(),
            first_part_number: window.first,
            ..one
        }
    }

    fn numbers(&self, window: Window) -> RangeInclusive<u32> {
        let most = self.limits.part_urls;
        let count = window.count.map_or(most, |count| count.min(most));
        window.first..=window.first.saturating_add(count).saturating_sub(1).min(MAX_PARTS)
    }

    /// Removes the uploads that nobody will end any more: their run is over, or their URLs have long expired.
    pub async fn sweep_uploads(self: Arc<Self>) {
        let swept = web::block(move || self.sweep(unix_ms())).await;
        match swept {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::info!(count, "uploads in parts that nobody will end were removed"),
            Ok(Err(error)) => tracing::error!(%error, "uploads that nobody will end stay: look at the disk"),
            // The server is ending: the next start looks again.
            Err(_) => {}
        }
    }

    /// The same, blocking. Answers how many there were.
    pub fn sweep(&self, now_ms: u64) -> io::Result<usize> {
        // First what is there, then what is wanted: an upload is claimed before it is made.
        let there = self.objects.uploads()?;
        let claimed: HashSet<String> = self.store.read(|state| {
            let open = state.runs.values().filter(|run| !run.status.is_terminal());
            let uploads = open.filter_map(|run| run.upload.as_ref());
            let alive =
                uploads.filter(|upload| now_ms < upload.expires_at_ms.saturating_add(UPLOAD_GRACE_MS));
            alive.map(|upload| upload.id.clone()).collect()
        });
        let mut removed = 0;
        for id in there.iter().filter(|id| !claimed.contains(*id)) {
            self.objects.forget_upload(id)?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// The first of them, as many as one message can carry.
fn bounded(urls: impl Iterator<Item = String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = urls.take_while(|url| {
        bytes += url.len();
        bytes <= MAX_URLS_BYTES
    });
    fits.collect()
}

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
