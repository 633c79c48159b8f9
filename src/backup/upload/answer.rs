//! What a store's answer means.

use super::UploadError;
use super::http::{Answer, Broken};
use super::place::Place;
use crate::backup::deadline::expiry_text;
use crate::model::unix_ms;
use data_encoding::HEXLOWER;
use std::time::Duration;

/// S3's longest error code has 40 letters.
const MAX_CODE_LEN: usize = 64;

/// Codes that another try may cure: S3 answers 400 RequestTimeout where the line broke, and 200 with an error.
const PASSING_CODES: [&str; 6] = [
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "OperationAborted",
    "IncompleteBody",
];

/// Codes of URLs whose time is over. AWS has none for most of them, and says it in its text: "Request has expired".
const AGE_CODES: [&str; 3] = ["ExpiredToken", "RequestExpired", "RequestTimeTooSkewed"];

/// What stores say in such a text. The second is about two clocks; of a presigned URL it means its age.
const AGE_WORDS: [&str; 2] = ["expired", "exceeds the maximum allowed"];

/// The code where an upload in parts is over, or never was.
pub const NO_SUCH_UPLOAD: &str = "NoSuchUpload";

/// How a request ended.
#[derive(Debug)]
pub enum Tried {
    /// The store did it.
    Done(Answer),
    /// Another try would end the same.
    Final(UploadError),
    /// The URL's life is over: a fresh one may do.
    Expired(UploadError),
    /// Another try may succeed.
    Again {
        /// For people.
        why: String,
        /// What the store asked.
        retry_after: Option<Duration>,
        /// The store does not know `Expect: 100-continue`.
        unasked: bool,
    },
}

impl Tried {
    /// Another try may succeed.
    pub fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), retry_after: None, unasked: false }
    }

    /// What a request without an answer means.
    pub fn broken(broken: Broken, place: &Place) -> Self {
        match broken {
            Broken::Passing(why) => Self::again(why),
            Broken::Lasting(cause) => {
                Self::Final(UploadError::Unreachable { place: place.shown.clone(), cause })
            }
        }
    }
}

/// Success, another try, or the end.
pub fn judge(answer: Answer, place: &Place) -> Tried {
    if answer.is_success() {
        return Tried::Done(answer);
    }
    let (status, shown) = (answer.status, place.shown.clone());
    if (300..400).contains(&status) {
        let to = redirect_host(&answer).map(|host| format!(" to {host}")).unwrap_or_default();
        return Tried::Final(UploadError::Redirected { place: shown, status, to });
    }
    let code = error_code(&answer.body);
    let said = match &code {
        Some(code) => format!("{status} {code}"),
        None => {
            awc::http::StatusCode::from_u16(status).map_or(status.to_string(), |status| status.to_string())
        }
    };
    let passing = matches!(status, 400 | 409) && code.as_deref().is_some_and(is_passing);
    if status >= 500 || matches!(status, 408 | 417 | 429) || passing {
        return Tried::Again {
            why: format!("the store answered {said}"),
            retry_after: retry_after(&answer),
            unasked: status == 417,
        };
    }
    let code = code.unwrap_or_default();
    if is_too_old(&answer, &code, place) {
        let until = place.signed_until_ms.map(|ms| format!(" (it was signed until {})", expiry_text(ms)));
        let until = until.unwrap_or_default();
        return Tried::Expired(UploadError::TooOld { place: shown, answer: said, until });
    }
    Tried::Final(refused(place, status, said, &code))
}

/// A refusal for good.
fn refused(place: &Place, status: u16, answer: String, code: &str) -> UploadError {
    UploadError::Refused { place: place.shown.clone(), answer, hint: hint(status, code) }
}

/// The store says that it knows no such upload, under whichever status.
pub fn no_such_upload(place: &Place, status: u16) -> UploadError {
    refused(place, status, format!("{status} {NO_SUCH_UPLOAD}"), NO_SUCH_UPLOAD)
}

/// The same for bytes that were put. The answer to those has no words: under a 200, what stands before the store may
/// say that it failed, or show a page of its own.
pub fn judge_put(answer: Answer, place: &Place) -> Tried {
    match judge(answer, place) {
        Tried::Done(answer) => match error_code(&answer.body) {
            Some(code) => Tried::again(format!("the store answered {}, and in it {code}", answer.status)),
            None if is_begun_error(&answer.body) => {
                Tried::again(format!("the store answered {}, and in it an error that was cut", answer.status))
            }
            None if answer.status == 200 && is_page(&answer) => {
                Tried::again("something that is no object store answered with a web page")
            }
            None => Tried::Done(answer),
        },
        other @ (Tried::Final(_) | Tried::Expired(_) | Tried::Again { .. }) => other,
    }
}

/// What there is of a body is, or could still become, an S3 error: its end may be missing where its length was not told.
fn is_begun_error(body: &[u8]) -> bool {
    const BEGIN: &str = "<Error";
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let root = match text.strip_prefix("<?xml") {
        Some(declared) => declared.split_once("?>").map_or("", |(_, root)| root.trim_start()),
        None if text.is_empty() => return false,
        None => text,
    };
    root.starts_with(BEGIN) || BEGIN.starts_with(root)
}

fn is_page(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
}

/// The refusal is for the URL's age: another URL may do.
fn is_too_old(answer: &Answer, code: &str, place: &Place) -> bool {
    if !matches!(answer.status, 400 | 401 | 403) {
        return false;
    }
    let text = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    let over = place.signed_until_ms.is_some_and(|until_ms| until_ms <= unix_ms());
    AGE_CODES.contains(&code)
        || AGE_WORDS.iter().any(|words| text.contains(words))
        // Not every store says why, and the URL itself may.
        || over && matches!(code, "" | "AccessDenied" | "Forbidden")
}

/// What an operator can do about a refusal.
fn hint(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, "SignatureDoesNotMatch") => {
            " (the URL was signed for another request or with another key: method, host and path must be these, and the content type of the PUT, where it is signed, application/octet-stream)"
        }
        (_, "InvalidAccessKeyId") => " (the store does not know the key that signed the URL)",
        (_, "NoSuchBucket") => " (the bucket does not exist)",
        (_, NO_SUCH_UPLOAD) => {
            " (the multipart upload is over: it was put together before the agent was interrupted, or given up, or removed by the store's own rules; another run begins another one)"
        }
        (_, "EntityTooSmall") => " (the store wants larger parts than the server asked for)",
        (_, "EntityTooLarge") | (411 | 413, _) => {
            " (the object is larger than a single PUT may be: the server must offer a multipart upload)"
        }
        (401 | 403, _) => {
            " (the URL may have expired, its signature does not fit, or who signed it may not write there; compare the clocks)"
        }
        (404, _) => " (does the bucket, or the multipart upload, exist?)",
        _ => "",
    }
}

/// The code of an S3 error, `<Code>SignatureDoesNotMatch</Code>`. Nothing else of the body: its text quotes
/// the request, with its signature.
pub fn error_code(body: &[u8]) -> Option<String> {
    let code = element(body, "Code")?;
    let plain = code.len() <= MAX_CODE_LEN && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    (plain && !code.is_empty()).then_some(code)
}

/// Whether an error may pass.
pub fn is_passing(code: &str) -> bool {
    PASSING_CODES.contains(&code)
}

/// The text of an element, with the entities that quotes are written as.
pub fn element(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.replace("&quot;", "\"").replace("&#34;", "\""))
}

fn redirect_host(answer: &Answer) -> Option<String> {
    let location: awc::http::Uri = answer.header("location")?.parse().ok()?;
    location.host().map(str::to_owned)
}

/// Seconds only: no store sends a date here.
fn retry_after(answer: &Answer) -> Option<Duration> {
    Some(Duration::from_secs(answer.header("retry-after")?.parse().ok()?))
}

/// The MD5 that the ETag of a PUT is; None where it is something else. Under a key of the store's own the
/// ETag is no MD5, though it looks like one.
pub fn md5_of(answer: &Answer) -> Option<String> {
    let own_key = answer.header("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
        || answer.header("x-amz-server-side-encryption-customer-algorithm").is_some();
    let etag = answer.header("etag").filter(|_| !own_key)?;
    let value = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    (value.len() == 32 && HEXLOWER.decode(value.as_bytes()).is_ok()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::super::http;
    use super::*;

    fn answer(text: &str) -> Answer {
        http::parsed(text)
    }

    #[test]
    fn of_an_error_only_the_code_is_told() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>no</Message>\
            <StringToSign>AWS4 secret</StringToSign></Error>";
        assert_eq!(error_code(xml).as_deref(), Some("SignatureDoesNotMatch"));
        for body in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>x?sig=1</Code>", "\u{fffd}", "<Code>"] {
            assert_eq!(error_code(body.as_bytes()), None, "{body}");
        }
        let long = format!("<Code>{}</Code>", "a".repeat(MAX_CODE_LEN + 1));
        assert_eq!(error_code(long.as_bytes()), None);
    }

    #[test]
    fn only_an_etag_of_a_single_put_is_an_md5() {
        let md5 = "9E107D9D372BB6826BD81D3542A419D6";
        let of = |etag: &str, more: &str| {
            md5_of(&answer(&format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\n{more}\r\n")))
        };
        assert_eq!(of(&format!("\"{md5}\""), ""), Some(md5.to_ascii_lowercase()));
        assert_eq!(of(&format!("W/\"{md5}\""), ""), Some(md5.to_ascii_lowercase()));
        assert_eq!(of(&format!("\"{md5}\""), "x-amz-server-side-encryption: aws:kms\r\n"), None);
        for other in ["\"abc\"", "\"9e107d9d372bb6826bd81d3542a419d6-3\"", &"z".repeat(32)] {
            assert_eq!(of(other, ""), None, "{other}");
        }
    }

    #[test]
    fn what_a_network_did_is_tried_again_and_a_200_is_believed_only_where_nothing_speaks_against_it() {
        let place = Place::new(&"https://s.test/o?a=SECRET".into(), false).unwrap();
        let of = |head: &str, body: &str| {
            judge_put(
                answer(&format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())),
                &place,
            )
        };
        let xml = |code: &str| format!("<?xml?><Error><Code>{code}</Code></Error>");
        for (head, body) in [
            ("400 Bad Request", xml("RequestTimeout")),
            ("400 Bad Request", xml("IncompleteBody")),
            ("409 Conflict", xml("OperationAborted")),
            ("200 OK", xml("InternalError")),
            ("200 OK", xml("AccessDenied")),
            ("200 OK", "<?xml version=\"1.0\"?>\n<Error><Code>Intern".to_owned()),
            ("200 OK", "<?xml version=\"1.0\"?>".to_owned()),
            ("200 OK", "<Error><Message>no".to_owned()),
            ("200 OK\r\ncontent-type: text/html; charset=utf-8", "<html>Log in</html>".to_owned()),
        ] {
            assert!(matches!(of(head, &body), Tried::Again { .. }), "{head} {body}");
        }
        for (head, code) in [("400 Bad Request", "InvalidArgument"), ("403 Forbidden", "SlowDown")] {
            assert!(matches!(of(head, &xml(code)), Tried::Final(_)), "{head} {code}");
        }
        for head in ["200 OK", "204 No Content", "201 Created\r\ncontent-type: text/html"] {
            for body in ["", " \n", "ok", "<PutObjectResult/>", "<?xml version='1.0'?><PutObjectResult/>"] {
                assert!(matches!(of(head, body), Tried::Done(_)), "{head} {body}");
            }
        }
    }

    #[test]
    fn a_refusal_for_age_asks_for_a_fresh_url_and_no_other_does() {
        let signed = |query: &str| Place::new(&format!("https://s.test/o?{query}").into(), false).unwrap();
        let (undated, over) = (signed("a=SECRET"), signed("X-Amz-Date=20251123T170611Z&X-Amz-Expires=60"));
        let is_expired = |status: u16, body: &str, place: &Place| {
            let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            match judge(answer(&head), place) {
                Tried::Expired(error) => {
                    let text = error.to_string();
                    assert!(text.contains("too old") && !text.contains("X-Amz"), "{text}");
                    true
                }
                Tried::Final(_) => false,
                other @ (Tried::Done(_) | Tried::Again { .. }) => panic!("{other:?}"),
            }
        };
        let xml =
            |code: &str, text: &str| format!("<Error><Code>{code}</Code><Message>{text}</Message></Error>");
        // AWS, rclone, MinIO, a store that says nothing of its reasons.
        assert!(is_expired(403, &xml("AccessDenied", "Request has expired"), &undated));
        let clocks =
            "The difference between the request time and the server&#39;s time exceeds the maximum allowed.";
        assert!(is_expired(400, &xml("AccessDenied", clocks), &undated));
        assert!(is_expired(403, &xml("RequestTimeTooSkewed", ""), &undated));
        assert!(is_expired(403, "", &over) && is_expired(403, &xml("AccessDenied", "no"), &over));
        for (status, code) in [(403, "AccessDenied"), (403, ""), (404, "NoSuchBucket"), (400, "BadDigest")] {
            assert!(!is_expired(status, &xml(code, "no"), &undated), "{code}");
        }
        assert!(!is_expired(403, &xml("SignatureDoesNotMatch", "no"), &over));
        assert!(!is_expired(404, &xml("NoSuchBucket", "no"), &over));
    }
}
