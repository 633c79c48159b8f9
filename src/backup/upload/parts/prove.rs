//! Whether an object is in the store whose upload in parts is there no more: it was put together and the answer was
//! lost, or the store lost its parts. Only the object itself can tell.

use super::super::UploadError;
use super::super::answer::{Tried, judge};
use super::super::http::{Answer, Body, Request, Source};
use super::super::place::Place;
use super::super::retry::{MAX_MISMATCHES, Tries};
use super::complete::{composite, etag_of};
use super::{Parts, Stored};
use crate::backup::error::RunError;

/// What the store says of the object.
enum Found {
    There,
    Missing,
    /// It cannot be told, or is not ours; why.
    Unknown(String),
}

impl Parts {
    /// The object is there, whole, although the store knows its upload no more.
    ///
    /// # Errors
    /// `gone`; [`UploadError::Unproven`] where the store may have put it together and nothing tells.
    pub(super) async fn prove(
        &self,
        gone: UploadError,
        parts: &[Stored],
        size_bytes: u64,
        in_doubt: bool,
    ) -> Result<(), RunError> {
        let Some(place) = self.signed.head() else {
            let why = "the server gave no URL to ask for it (presigned_head_url)".to_owned();
            return Err(self.not_proven(gone, in_doubt, why));
        };
        match self.look_for(&place, parts, size_bytes, in_doubt).await {
            Found::There => {
                tracing::warn!(place = %place.shown, size_bytes, "the store had put the parts together already, as the object itself shows: the answer was lost");
                Ok(())
            }
            Found::Missing => Err(gone.into()),
            Found::Unknown(why) => Err(self.not_proven(gone, in_doubt, why)),
        }
    }

    fn not_proven(&self, gone: UploadError, in_doubt: bool, why: String) -> RunError {
        if !in_doubt {
            return gone.into();
        }
        UploadError::Unproven { place: self.signed.shown(), why }.into()
    }

    async fn look_for(&self, place: &Place, parts: &[Stored], size_bytes: u64, in_doubt: bool) -> Found {
        let mut tries = Tries::new(&self.options.timing, &self.progress);
        let mut missing = 0;
        loop {
            tries.count += 1;
            let source = Source::Memory(Default::default());
            let body = Body::new(&source, self.options.rate.clone(), &|_| {});
            let request = Request { method: "HEAD", place, content_type: None, unasked: true, body };
            let tried = match self.client.send(request).await {
                Ok(answer) if answer.status == 404 => {
                    missing += 1;
                    // A store that is still at it may show the object in a moment.
                    if !in_doubt || missing >= MAX_MISMATCHES {
                        return Found::Missing;
                    }
                    Tried::again("the object is not there")
                }
                Ok(answer) => judge(answer, place),
                Err(broken) => Tried::broken(broken, place),
            };
            let (why, retry_after) = match tried {
                Tried::Done(answer) => {
                    return match differs(&answer, parts, size_bytes) {
                        None => Found::There,
                        Some(what) => Found::Unknown(format!("what is there {what}")),
                    };
                }
                Tried::Final(error) | Tried::Expired(error) => return Found::Unknown(unanswered(&error)),
                Tried::Again { why, retry_after, .. } => (why, retry_after),
            };
            let last = why.clone();
            if !tries.pause(&place.shown, why, retry_after, self.signed.deadline_ms()).await {
                return Found::Unknown(format!("it could not be asked for ({last})"));
            }
        }
    }
}

/// Why the store does not say what it has. Of an object that is not there some say 403 to whoever may not list them.
fn unanswered(error: &UploadError) -> String {
    if let UploadError::Refused { answer, .. } | UploadError::TooOld { answer, .. } = error {
        return format!("the question whether it is there was answered {answer}");
    }
    error.to_string()
}

/// How the object is another one than was sent.
fn differs(answer: &Answer, parts: &[Stored], size_bytes: u64) -> Option<String> {
    let bytes = answer.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let etag = answer.header("etag").and_then(composite);
    match (bytes, etag, etag_of(parts)) {
        (None, _, _) => Some("has no length that the store tells".into()),
        (Some(bytes), _, _) if bytes != size_bytes => {
            Some(format!("has {bytes} bytes, and {size_bytes} were sent"))
        }
        (Some(_), Some(theirs), Some(ours)) if theirs != ours => {
            Some("has another ETag than the parts that were sent".into())
        }
        (Some(_), _, _) => None,
    }
}
