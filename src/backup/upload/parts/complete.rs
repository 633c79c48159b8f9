//! The end of an upload in parts: the store puts them together, and says what it has.

use super::super::UploadError;
use super::super::answer::{NO_SUCH_UPLOAD, Tried, element, error_code, is_passing, judge, no_such_upload};
use super::super::http::{Body, Request, Source};
use super::super::place::Place;
use super::super::retry::{MAX_MISMATCHES, Tries};
use super::signed::{Refusal, Which};
use super::{Parts, Stored};
use crate::backup::error::RunError;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use std::cell::Cell;

impl Parts {
    /// Has the store put the parts together to an object of that size, and holds its answer against them.
    ///
    /// # Errors
    /// [`RunError::Upload`]: the object is not in the store, or it cannot be told.
    pub async fn complete(&self, parts: &[Stored], size_bytes: u64) -> Result<(), RunError> {
        let source = Source::Memory(Bytes::from(list(parts)));
        let mut tries = Tries::new(&self.options.timing, &self.progress);
        let (mut refused, mut unclear): (Option<Refusal>, _) = (None, 0);
        // The store had the whole request once, and what it made of it is not known.
        let mut in_doubt = false;
        loop {
            let found = match self.signed.find(Which::Complete, refused.as_ref()).await {
                Ok(found) => found,
                // So the server says that this one is over; or nothing can be asked again.
                Err(error) if in_doubt || matches!(error, UploadError::OtherUpload) => {
                    return self.prove(tries.why(error), parts, size_bytes, in_doubt).await;
                }
                Err(error) => return Err(tries.why(error).into()),
            };
            tries.keep_waiting(found.deadline_ms).await;
            tries.count += 1;
            let (tried, mut unknown) = self.ask(&source, &found.place).await;
            let (why, retry_after) = match tried {
                Tried::Done(answer) => match verdict(&answer.body, parts) {
                    Verdict::Complete => return Ok(()),
                    // It did it, and what it has is not what was sent.
                    Verdict::Another => {
                        let what = "its ETag is not that of the parts that were sent".to_owned();
                        return Err(UploadError::NotCompleted { place: found.place.shown, what }.into());
                    }
                    Verdict::Refused(code) if code == NO_SUCH_UPLOAD => {
                        let gone = no_such_upload(&found.place, answer.status);
                        return self.prove(gone, parts, size_bytes, in_doubt).await;
                    }
                    Verdict::Refused(code) => {
                        let what = format!("it answered 200, and in it {code}");
                        let refused = UploadError::NotCompleted { place: found.place.shown, what };
                        if in_doubt {
                            return self.prove(refused, parts, size_bytes, in_doubt).await;
                        }
                        return Err(refused.into());
                    }
                    Verdict::Passing(why) => {
                        // The store says that it did not do it.
                        unknown = false;
                        (why, None)
                    }
                    Verdict::Unclear if unclear + 1 >= MAX_MISMATCHES => {
                        let what = "its answer says neither that it did nor why not".to_owned();
                        let unclear = UploadError::NotCompleted { place: found.place.shown, what };
                        return self.prove(unclear, parts, size_bytes, in_doubt || unknown).await;
                    }
                    Verdict::Unclear => {
                        unclear += 1;
                        ("the store's answer says nothing of the object".to_owned(), None)
                    }
                },
                // Put together, which ends an upload, or lost.
                Tried::Final(gone) if in_doubt || gone.is_no_such_upload() => {
                    return self.prove(gone, parts, size_bytes, in_doubt).await;
                }
                Tried::Final(error) => return Err(error.into()),
                Tried::Expired(why) => {
                    refused = Some(found.refusal(why, refused));
                    continue;
                }
                Tried::Again { why, retry_after, .. } => (why, retry_after),
            };
            in_doubt |= unknown;
            if !tries.pause(&found.place.shown, why, retry_after, found.tries_until_ms).await {
                refused = Some(found.used_up(tries.expired(&found.place.shown, found.deadline_ms)));
            }
        }
    }

    /// How it ended, and whether the store had all of the request while nothing tells what it made of it.
    async fn ask(&self, source: &Source, place: &Place) -> (Tried, bool) {
        let sent = Cell::new(0);
        let count = |bytes| sent.set(sent.get() + bytes);
        let body = Body::new(source, self.options.rate.clone(), &count);
        let content_type = place.signs_content_type.then_some("application/xml");
        let request = Request { method: "POST", place, content_type, unasked: true, body };
        let (tried, told) = match self.client.send(request).await {
            Ok(answer) => {
                // A store that did not know what it did, or something before it that did not hear it.
                let told = !matches!(answer.status, 200 | 500 | 502 | 504);
                (judge(answer, place), told)
            }
            Err(broken) => (Tried::broken(broken, place), false),
        };
        (tried, !told && sent.get() == source.len())
    }
}

/// What CompleteMultipartUpload takes.
fn list(parts: &[Stored]) -> String {
    let mut xml = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        let etag = part.etag.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let number = part.number;
        xml.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    }
    xml.push_str("</CompleteMultipartUpload>");
    xml
}

/// What the body of a 200 means: S3 begins to answer before it knows the end, so an error can come under it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Complete,
    Another,
    /// Its code.
    Refused(String),
    Passing(String),
    Unclear,
}

fn verdict(body: &[u8], parts: &[Stored]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    if text.contains("<Error>") {
        let code = error_code(body).unwrap_or_else(|| "an error without a code".into());
        return if is_passing(&code) {
            Verdict::Passing(format!("the store answered 200, and in it {code}"))
        } else {
            Verdict::Refused(code)
        };
    }
    if !text.contains("CompleteMultipartUploadResult") {
        return Verdict::Unclear;
    }
    match (element(body, "ETag").and_then(|etag| composite(&etag)), etag_of(parts)) {
        (Some(given), Some(ours)) if given != ours => Verdict::Another,
        (Some(_) | None, Some(_) | None) => Verdict::Complete,
    }
}

/// The ETag of an object in parts, where it looks like S3's: MD5, a dash, how many.
pub(super) fn composite(etag: &str) -> Option<String> {
    let value = etag.trim().trim_matches('"').to_ascii_lowercase();
    let (md5, count) = value.split_once('-')?;
    let plain = md5.len() == 32 && HEXLOWER.decode(md5.as_bytes()).is_ok() && count.parse::<u32>().is_ok();
    plain.then_some(value)
}

/// What it must be; None where a part's ETag was no MD5.
pub(super) fn etag_of(parts: &[Stored]) -> Option<String> {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part.md5?);
    }
    Some(format!("{}-{}", HEXLOWER.encode(&hash.finalize()), parts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Stored> {
        let md5 = |byte: u8| -> [u8; 16] { Md5::digest([byte]).into() };
        let part = |number: u32| Stored { number, etag: "\"e&\"".into(), md5: Some(md5(number as u8)) };
        vec![part(1), part(2)]
    }

    #[test]
    fn the_list_names_every_part_in_order() {
        let xml = list(&parts());
        assert!(
            xml.contains(
                "<Part><PartNumber>1</PartNumber><ETag>\"e&amp;\"</ETag></Part><Part><PartNumber>2<"
            )
        );
    }

    #[test]
    fn a_200_is_a_success_only_where_it_says_so() {
        let result = |etag: &str| {
            format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")
        };
        let right = etag_of(&parts()).unwrap();
        for etag in [format!("&quot;{right}&quot;"), right, "\"opaque\"".into(), String::new()] {
            assert_eq!(verdict(result(&etag).as_bytes(), &parts()), Verdict::Complete, "{etag}");
        }
        let wrong = format!("{}-2", "0".repeat(32));
        assert_eq!(verdict(result(&wrong).as_bytes(), &parts()), Verdict::Another);
        let error = |code: &str| format!("<?xml?>\n<Error><Code>{code}</Code></Error>");
        assert!(matches!(verdict(error("InternalError").as_bytes(), &parts()), Verdict::Passing(_)));
        let refused = Verdict::Refused("InvalidPart".into());
        assert_eq!(verdict(error("InvalidPart").as_bytes(), &parts()), refused);
        assert_eq!(verdict(b"", &parts()), Verdict::Unclear);
    }
}
