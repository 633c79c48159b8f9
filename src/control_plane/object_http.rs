//! The object store over HTTP, in the manner of S3: presigned PUT, GET and HEAD on one object.

use super::error::ApiError;
use super::object_store::{Incoming, Stored};
use super::plane::Plane;
use super::presign::{self, Refusal};
use super::records::RunStatus;
use crate::model::unix_ms;
use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRANSFER_ENCODING};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use data_encoding::{BASE64, HEXLOWER};
use futures_util::StreamExt;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Small pieces from the wire are put together to one write of this size.
const WRITE_BYTES: usize = 256 * 1024;
/// Writes that wait for the disk: what bounds the memory of an upload, with [`WRITE_BYTES`].
const WRITES_WAITING: usize = 4;
/// A client that sends nothing for as long is gone.
const STALL: Duration = Duration::from_secs(60);
/// Tells the stored bytes' SHA-256, base64, as S3 does.
const CHECKSUM_HEADER: &str = "x-amz-checksum-sha256";

/// An answer in S3's form.
fn refuse(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    tracing::warn!(status = status.as_u16(), code, message, "object request refused");
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    HttpResponse::build(status).insert_header((CONTENT_TYPE, "application/xml")).body(body)
}

/// The refusal of a request that its URL does not allow.
fn check(plane: &Plane, request: &HttpRequest, object: &str) -> Option<HttpResponse> {
    if !presign::is_object_name(object) {
        return Some(refuse(StatusCode::BAD_REQUEST, "InvalidURI", "not the name of an object"));
    }
    // Who may read an object may also ask how long it is.
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    let checked = presign::check(plane.keys.urls(), method, object, request.query_string(), unix_ms());
    let (code, refusal) = match checked {
        Ok(()) => return None,
        Err(refusal @ Refusal::WrongSignature) => ("SignatureDoesNotMatch", refusal),
        Err(refusal @ (Refusal::Unsigned | Refusal::Expired)) => ("AccessDenied", refusal),
    };
    Some(refuse(StatusCode::FORBIDDEN, code, &refusal.to_string()))
}

/// PUT: the whole object, of the length that Content-Length says.
pub async fn put(
    request: HttpRequest,
    path: web::Path<String>,
    payload: web::Payload,
    plane: web::Data<Plane>,
) -> HttpResponse {
    let object = path.into_inner();
    if let Some(refusal) = check(&plane, &request, &object) {
        return refusal;
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length.filter(|_| !request.headers().contains_key(TRANSFER_ENCODING)) else {
        let message = "a PUT must say its Content-Length; chunked bodies are not taken";
        return refuse(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message);
    };
    if length > plane.limits.max_object_bytes {
        let message = "the object is longer than this store takes";
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "EntityTooLarge", message);
    }
    if is_settled(&plane, &object) {
        let message = "the run is over: its object is not replaced any more";
        return refuse(StatusCode::CONFLICT, "OperationAborted", message);
    }
    match receive(&plane, &object, length, payload).await {
        Ok(stored) => {
            tracing::info!(object, bytes = stored.bytes, "object stored");
            let checksum = HEXLOWER.decode(stored.sha256.as_bytes()).unwrap_or_default();
            HttpResponse::Ok()
                .insert_header((ETAG, format!("\"{}\"", stored.sha256)))
                .insert_header((CHECKSUM_HEADER, BASE64.encode(&checksum)))
                .finish()
        }
        Err(error) if is_clients_fault(&error) => {
            refuse(StatusCode::BAD_REQUEST, "IncompleteBody", &error.to_string())
        }
        Err(error) => {
            tracing::error!(object, %error, "an object could not be stored: look at the disk");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the object could not be stored")
        }
    }
}

/// Too few or too many bytes, or none for too long.
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::TimedOut
    )
}

/// Whether the object belongs to a run whose end is known.
fn is_settled(plane: &Plane, object: &str) -> bool {
    plane
        .store
        .read(|state| state.runs.values().any(|run| run.s3_key == object && run.status == RunStatus::Success))
}

/// Streams the body to the disk: the network waits for the disk, not the memory.
async fn receive(plane: &Plane, object: &str, length: u64, mut payload: web::Payload) -> io::Result<Stored> {
    let incoming = plane.objects.receive(object, length)?;
    let (blocks, waiting) = mpsc::channel::<Bytes>(WRITES_WAITING);
    let writer = web::block(move || write_all(incoming, waiting));
    let writer = actix_web::rt::spawn(writer);
    let read = read_all(plane.limits.max_upload_bytes_per_sec, &mut payload, blocks).await;
    let written = writer.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    // A full disk stops the reading too, and says more than "the writer went away".
    match (written, read) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(stored), Ok(())) => Ok(stored),
    }
}

fn write_all(mut incoming: Incoming, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<Stored> {
    while let Some(block) = waiting.blocking_recv() {
        incoming.write(&block)?;
    }
    incoming.finish()
}

async fn read_all(
    bytes_per_sec: Option<u64>,
    payload: &mut web::Payload,
    blocks: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let start = Instant::now();
    let mut received = 0_u64;
    let mut block = BytesMut::with_capacity(WRITE_BYTES);
    let gone = |_| io::Error::other("the writer went away");
    loop {
        let next = tokio::time::timeout(STALL, payload.next())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending"))?;
        let Some(piece) = next else {
            return blocks.send(block.freeze()).await.map_err(gone);
        };
        // What came is thrown away with the temporary file: the writer misses the rest.
        let piece = piece.map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string()))?;
        received += piece.len() as u64;
        block.extend_from_slice(&piece);
        if block.len() >= WRITE_BYTES {
            blocks.send(block.split().freeze()).await.map_err(gone)?;
        }
        if let Some(rate) = bytes_per_sec.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(received as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
        }
    }
}

/// GET and HEAD: the whole object.
pub async fn get(
    request: HttpRequest,
    path: web::Path<String>,
    plane: web::Data<Plane>,
) -> Result<HttpResponse, ApiError> {
    let object = path.into_inner();
    if let Some(refusal) = check(&plane, &request, &object) {
        return Ok(refusal);
    }
    let opened = tokio::fs::File::open(plane.objects.path_of(&object)).await;
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(refuse(StatusCode::NOT_FOUND, "NoSuchKey", "there is no such object"));
        }
        Err(error) => {
            tracing::error!(object, %error, "a stored object cannot be read: look at the disk");
            return Ok(refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "it cannot be read"));
        }
    };
    let length = file.metadata().await?.len();
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/octet-stream"));
    let stream = futures_util::stream::unfold(file, |mut file| async move {
        let mut block = BytesMut::with_capacity(WRITE_BYTES);
        match file.read_buf(&mut block).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(block.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    Ok(response.body(SizedStream::new(length, Box::pin(stream))))
}
