//! What the store's answer means.

use super::super::cancel::Cancel;
use super::super::error::RunError;
use super::super::spool::{Spool, SpoolError};
use super::super::thread::on_thread;
use super::UploadError;
use super::attempt::{Attempt, Expectation, Tried};
use awc::ClientResponse;
use awc::http::header::{self, HeaderMap};
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Of an error's body: S3's are under 1 KiB.
const MAX_ERROR_BODY_LEN: usize = 16 * 1024;

/// An error's body is worth this wait.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// S3's longest error code has 40 letters.
const MAX_CODE_LEN: usize = 64;

/// Read at once when the spool is hashed.
const READ_LEN: usize = 64 * 1024;

/// Success, another try, or the end.
pub async fn judge<S>(mut response: ClientResponse<S>, attempt: &Attempt<'_>) -> Result<Tried, RunError>
where
    S: futures_util::Stream<Item = Result<bytes::Bytes, awc::error::PayloadError>>,
{
    let status = response.status();
    if status.is_success() {
        return check_stored(response.headers(), attempt).await;
    }
    let place = attempt.put.place.clone();
    if status.is_redirection() {
        let to = redirect_host(response.headers()).map(|host| format!(" to {host}")).unwrap_or_default();
        return Ok(Tried::Final(UploadError::Redirected { place, status: status.as_u16(), to }));
    }
    let retry_after = retry_after(response.headers());
    let body = tokio::time::timeout(ERROR_BODY_WAIT, response.body().limit(MAX_ERROR_BODY_LEN)).await;
    let code = body.ok().and_then(Result::ok).and_then(|body| error_code(&body));
    let answer = match code {
        Some(code) => format!("{} {code}", status.as_u16()),
        None => status.to_string(),
    };
    let passing =
        status.is_server_error() || matches!(status.as_u16(), 408 | 429) || status.is_informational();
    Ok(if passing {
        Tried::Again { why: format!("the store answered {answer}"), retry_after, expect: Expectation::None }
    } else {
        Tried::Final(UploadError::Refused { place, status: status.as_u16(), answer })
    })
}

/// The code of an S3 error, `<Code>SignatureDoesNotMatch</Code>`. Nothing else of the body: its text quotes
/// the request, with its signature.
fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = code.len() <= MAX_CODE_LEN && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    (plain && !code.is_empty()).then(|| code.to_owned())
}

fn redirect_host(headers: &HeaderMap) -> Option<String> {
    let location: awc::http::Uri = headers.get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
    location.host().map(str::to_owned)
}

/// Seconds only: no store sends a date here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Holds what the store says about the object against what was sent.
async fn check_stored(headers: &HeaderMap, attempt: &Attempt<'_>) -> Result<Tried, RunError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let given = text("x-amz-checksum-sha256").and_then(|value| BASE64.decode(value.as_bytes()).ok());
    if let Some(given) = given.filter(|given| given.len() == attempt.packed.sha256.len()) {
        let same = given == attempt.packed.sha256;
        return Ok(if same { Tried::Stored } else { Tried::Mismatch("its SHA-256 differs".into()) });
    }
    let Some(etag) = text("etag").and_then(md5_of_etag) else { return Ok(Tried::Stored) };
    // Under a key of the store's the ETag is no MD5 of the object, though it looks like one.
    let own_key = text("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
        || text("x-amz-server-side-encryption-customer-algorithm").is_some();
    if own_key {
        return Ok(Tried::Stored);
    }
    let md5 = md5_of_spool(attempt.spool, attempt.cancel)?.await;
    let md5 = md5.map_err(|_| RunError::Internal("its hashing thread ended without a result".into()))??;
    Ok(if md5 == etag {
        Tried::Stored
    } else {
        Tried::Mismatch("its ETag is not the MD5 of what was sent".into())
    })
}

/// The MD5 that a single PUT's ETag is; None for anything else.
fn md5_of_etag(etag: &str) -> Option<String> {
    let value = etag.trim_matches('"').to_ascii_lowercase();
    (value.len() == 32 && HEXLOWER.decode(value.as_bytes()).is_ok()).then_some(value)
}

type Hashed = tokio::sync::oneshot::Receiver<Result<String, RunError>>;

/// Only where a store gives nothing better, and after the upload: MD5 is slower than all the rest of a run but the
/// compressing.
fn md5_of_spool(spool: &Arc<Spool>, cancel: &Cancel) -> Result<Hashed, RunError> {
    let (spool, cancel) = (Arc::clone(spool), cancel.clone());
    on_thread("run-md5", move || {
        let mut file = spool.reader()?;
        let mut hash = Md5::new();
        let mut buffer = vec![0; READ_LEN];
        loop {
            if cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            let read = file
                .read(&mut buffer)
                .map_err(|cause| SpoolError::Io { path: spool.path().to_owned(), cause })?;
            if read == 0 {
                return Ok(HEXLOWER.encode(&hash.finalize()));
            }
            hash.update(buffer.get(..read).unwrap_or_default());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(md5_of_etag(&format!("\"{md5}\"")), Some(md5.to_ascii_lowercase()));
        for other in ["", "\"abc\"", "\"9e107d9d372bb6826bd81d3542a419d6-3\"", &"z".repeat(32)] {
            assert_eq!(md5_of_etag(other), None, "{other}");
        }
    }
}
