//! The object store over HTTP, in the manner of S3: presigned PUT, GET and HEAD on one object, and PUT on a part.

use super::error::ApiError;
use super::object_incoming::{Incoming, Received};
use super::object_parts::{MAX_PART_BYTES, MAX_PARTS};
use super::object_receive::{announced_md5, is_senders_fault, receive};
use super::object_refusal::Refused;
use super::plane::Plane;
use super::presign::{self, Refusal, Scope};
use super::records::RunStatus;
use crate::model::unix_ms;
use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::BytesMut;
use data_encoding::{BASE64, HEXLOWER};
use std::io;
use tokio::io::AsyncReadExt;

/// What is read at once.
const READ_BYTES: usize = 256 * 1024;
/// Tells the stored bytes' SHA-256, base64, as S3 does.
const CHECKSUM_HEADER: &str = "x-amz-checksum-sha256";

/// What the request's URL allows, or the refusal.
pub fn allowed<'a>(plane: &Plane, request: &'a HttpRequest, object: &str) -> Result<Scope<'a>, Refused> {
    if !presign::is_object_name(object) {
        return Err(Refused::bad("InvalidURI", "not the name of an object"));
    }
    let check = |method| presign::check(plane.keys.urls(), method, object, request.query_string(), unix_ms());
    let method = request.method();
    let checked = check(method.as_str());
    // Who may read an object may also ask how long it is. Who may ask that may not read it.
    let by_get = matches!(checked, Err(Refusal::WrongSignature)) && method == Method::HEAD;
    let checked = if by_get { check("GET") } else { checked };
    checked.map_err(|refusal| {
        let code = match refusal {
            Refusal::WrongSignature => "SignatureDoesNotMatch",
            Refusal::Unsigned | Refusal::Expired => "AccessDenied",
        };
        Refused::new(StatusCode::FORBIDDEN, code, refusal.to_string())
    })
}

/// PUT: the whole object or a part of it, of the length that Content-Length says.
pub async fn put(
    request: HttpRequest,
    path: web::Path<String>,
    payload: web::Payload,
    plane: web::Data<Plane>,
) -> HttpResponse {
    let object = path.into_inner();
    let prepared = allowed(&plane, &request, &object).and_then(|scope| {
        let length = length(&request)?;
        let mut incoming = prepare(&plane, &object, scope, length)?;
        let invalid = |message: &'static str| Refused::bad("InvalidDigest", message);
        if let Some(md5) = announced_md5(request.headers()).map_err(invalid)? {
            incoming.expect_md5(md5);
        }
        Ok((scope, incoming))
    });
    let (scope, incoming) = match prepared {
        Ok(prepared) => prepared,
        Err(refused) => return refused.into(),
    };
    let received = receive(incoming, plane.limits.max_upload_bytes_per_sec, payload).await;
    answer(&object, scope, received).unwrap_or_else(HttpResponse::from)
}

/// What the client says of its body.
fn length(request: &HttpRequest) -> Result<u64, Refused> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.filter(|_| !request.headers().contains_key(TRANSFER_ENCODING)).ok_or_else(|| {
        let message = "a PUT must say its Content-Length; chunked bodies are not taken";
        Refused::new(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message)
    })
}

/// Everything that can be refused before the body has come.
fn prepare(plane: &Plane, object: &str, scope: Scope<'_>, length: u64) -> Result<Incoming, Refused> {
    if length > plane.limits.max_object_bytes.min(MAX_PART_BYTES) {
        let message = "the object is longer than this store takes in one piece";
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "EntityTooLarge", message));
    }
    if is_settled(plane, object) {
        return Err(Refused::settled());
    }
    let begun = match scope {
        Scope::Object => plane.objects.receive(object, length),
        Scope::Part(_, number) if number == 0 || number > MAX_PARTS => {
            return Err(Refused::bad("InvalidArgument", "a part's number is 1 to 10000"));
        }
        Scope::Part(id, _) if !plane.objects.has_upload(id) => return Err(Refused::no_such_upload()),
        Scope::Part(id, number) => plane.objects.receive_part(id, number, length),
        // Never signed for PUT.
        Scope::Upload(_) => {
            return Err(Refused::bad("InvalidRequest", "a part needs a number"));
        }
    };
    begun.map_err(|error| not_stored(object, &error))
}

fn not_stored(object: &str, error: &io::Error) -> Refused {
    tracing::error!(object, %error, "an object could not be stored: look at the disk");
    Refused::internal("the object could not be stored")
}

fn answer(object: &str, scope: Scope<'_>, received: io::Result<Received>) -> Result<HttpResponse, Refused> {
    match received {
        Ok(Received { stored, md5 }) => {
            match scope {
                Scope::Part(_, part) => tracing::debug!(object, part, bytes = stored.bytes, "part stored"),
                Scope::Object | Scope::Upload(_) => {
                    tracing::info!(object, bytes = stored.bytes, "object stored");
                }
            }
            let checksum = HEXLOWER.decode(stored.sha256.as_bytes()).unwrap_or_default();
            Ok(HttpResponse::Ok()
                .insert_header((ETAG, format!("\"{md5}\"")))
                .insert_header((CHECKSUM_HEADER, BASE64.encode(&checksum)))
                .finish())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(scope, Scope::Part(..)) => {
            Err(Refused::no_such_upload())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Refused::bad("BadDigest", error.to_string()))
        }
        Err(error) if is_senders_fault(&error) => Err(Refused::bad("IncompleteBody", error.to_string())),
        Err(error) => Err(not_stored(object, &error)),
    }
}

/// Whether the object belongs to a run whose end is known.
pub fn is_settled(plane: &Plane, object: &str) -> bool {
    plane
        .store
        .read(|state| state.runs.values().any(|run| run.s3_key == object && run.status == RunStatus::Success))
}

/// GET and HEAD: the whole object.
pub async fn get(
    request: HttpRequest,
    path: web::Path<String>,
    plane: web::Data<Plane>,
) -> Result<HttpResponse, ApiError> {
    let object = path.into_inner();
    if let Err(refused) = allowed(&plane, &request, &object) {
        return Ok(refused.into());
    }
    let opened = tokio::fs::File::open(plane.objects.path_of(&object)).await;
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Refused::new(StatusCode::NOT_FOUND, "NoSuchKey", "there is no such object").into());
        }
        Err(error) => {
            tracing::error!(object, %error, "a stored object cannot be read: look at the disk");
            return Ok(Refused::internal("it cannot be read").into());
        }
    };
    let length = file.metadata().await?.len();
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/octet-stream"));
    let stream = futures_util::stream::unfold(file, |mut file| async move {
        let mut block = BytesMut::with_capacity(READ_BYTES);
        match file.read_buf(&mut block).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(block.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(response.body(SizedStream::new(length, Box::pin(stream))))
}
