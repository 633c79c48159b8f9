//! The body of a PUT on its way to the disk: the network waits for the disk, not the memory.

use super::object_incoming::{Incoming, MD5_LEN, Received};
use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::web;
use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use futures_util::StreamExt;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Small pieces from the wire are put together to one write of this size.
const WRITE_BYTES: usize = 256 * 1024;
/// Writes that wait for the disk: what bounds the memory of an upload, with [`WRITE_BYTES`].
const WRITES_WAITING: usize = 4;
/// A client that sends nothing for as long is gone.
const STALL: Duration = Duration::from_secs(60);
/// RFC 1864.
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// The MD5 that the sender announced, if any.
///
/// # Errors
/// Where it is none.
pub fn announced_md5(headers: &HeaderMap) -> Result<Option<[u8; MD5_LEN]>, &'static str> {
    let Some(value) = headers.get(CONTENT_MD5) else { return Ok(None) };
    let md5 = BASE64.decode(value.as_bytes()).ok().and_then(|md5| md5.try_into().ok());
    md5.map(Some).ok_or("the Content-MD5 is not the base64 of an MD5")
}

/// Takes the whole body in, at most so fast.
///
/// # Errors
/// `UnexpectedEof`, `InvalidInput`, `InvalidData`, `TimedOut` are the sender's fault; else of [`Incoming`].
pub async fn receive(
    incoming: Incoming,
    bytes_per_sec: Option<u64>,
    mut payload: web::Payload,
) -> io::Result<Received> {
    let (blocks, waiting) = mpsc::channel::<Bytes>(WRITES_WAITING);
    let writer = web::block(move || write_all(incoming, waiting));
    let writer = actix_web::rt::spawn(writer);
    let read = read_all(bytes_per_sec, &mut payload, blocks).await;
    let written = writer.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
    // A full disk stops the reading too, and says more than "the writer went away".
    match (written, read) {
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(received), Ok(())) => Ok(received),
    }
}

/// Too few, too many or other bytes, or none for too long.
pub fn is_senders_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, TimedOut, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | InvalidInput | InvalidData | TimedOut)
}

fn write_all(mut incoming: Incoming, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<Received> {
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
