//! One GET, up to the head of its answer. Redirects are answers like any other.

use super::fault::Fault;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Of an answer's head; servers and proxies allow each other 8 to 64 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Headers of an answer.
const MAX_HEADERS: usize = 128;

/// Read at once.
const READ_BYTES: usize = 2 * 1024;

/// Answers like 103 that come before the answer.
const MAX_INTERIM: usize = 8;

/// Of the body, which says nothing about the check: a server whose answer is not read to its end logs
/// a broken connection at every turn. Most health pages fit.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// And for so long.
const BODY_WAIT: Duration = Duration::from_millis(100);

/// Every answer of HTTP/1 begins so.
const BEGIN: &[u8] = b"HTTP/1.";

/// Sends the request; the status of the final answer.
///
/// # Errors
/// [`Fault::Broken`], [`Fault::Tls`].
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    host: &str,
) -> Result<u16, Fault> {
    let sent = match stream.write_all(request.as_bytes()).await {
        Ok(()) => stream.flush().await,
        Err(error) => Err(error),
    };
    let mut head = Vec::new();
    let status = read_status(stream, &mut head, host).await;
    match (status, sent) {
        // A server that refuses may answer and close before it has read the request.
        (Err(_), Err(error)) => Err(Fault::io(host, &error)),
        (status, _) => status,
    }
}

async fn read_status(
    stream: &mut (impl AsyncRead + Unpin),
    head: &mut Vec<u8>,
    host: &str,
) -> Result<u16, Fault> {
    let broken = |what: &str| Fault::Broken { host: host.to_owned(), what: what.to_owned() };
    let not_http = || broken("does not answer with HTTP/1.1");
    let mut interim = 0;
    // Up to here no end of a head was found.
    let mut searched = 0;
    loop {
        let begun = head.len().min(BEGIN.len());
        if head.get(..begun) != BEGIN.get(..begun) {
            return Err(not_http());
        }
        if let Some(end) = end_of_head(head, searched) {
            let status = status(head.get(..end).unwrap_or_default()).ok_or_else(not_http)?;
            if !(100..200).contains(&status) {
                return Ok(status);
            }
            interim += 1;
            // 101 would be another protocol, which nobody asked for.
            if status == 101 || interim > MAX_INTERIM {
                return Err(not_http());
            }
            head.drain(..end);
            searched = 0;
            continue;
        }
        searched = head.len().saturating_sub(3);
        if head.len() >= MAX_HEAD_BYTES {
            return Err(broken("sends headers without end"));
        }
        head.reserve(READ_BYTES);
        match stream.read_buf(head).await {
            Ok(0) if head.is_empty() => return Err(broken("closed the connection without an answer")),
            Ok(0) => return Err(broken("closed the connection in the middle of its answer")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => {
                return Err(broken("closed the connection without an answer"));
            }
            Err(error) => return Err(Fault::io(host, &error)),
        }
    }
}

/// Behind the empty line, where there is one at or behind `from`.
fn end_of_head(head: &[u8], from: usize) -> Option<usize> {
    let rest = head.get(from..)?;
    (0..rest.len()).find_map(|at| match rest.get(at..)? {
        [b'\n', b'\r', b'\n', ..] => Some(from + at + 3),
        [b'\n', b'\n', ..] => Some(from + at + 2),
        _ => None,
    })
}

fn status(head: &[u8]) -> Option<u16> {
    let mut headers = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => response.code.filter(|code| *code >= 100),
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

/// Reads what little a health page has, so that the server sees an ordinary end.
pub(super) async fn take_leave(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let reading = async {
        let mut buffer = vec![0; READ_BYTES];
        let mut read = 0;
        while read < MAX_BODY_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(more) => read += more,
            }
        }
        // The verdict stands; a goodbye that does not arrive changes nothing.
        let _ = stream.shutdown().await;
    };
    let _ = timeout(BODY_WAIT, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer means that comes in one piece, and byte by byte.
    async fn asked(answer: &[u8]) -> Result<u16, String> {
        let whole = ask_over(answer, answer.len().max(1)).await;
        assert_eq!(whole, ask_over(answer, 1).await);
        whole
    }

    async fn ask_over(answer: &[u8], buffer: usize) -> Result<u16, String> {
        let (mut ours, mut theirs) = tokio::io::duplex(buffer.max(64));
        let (answer, small) = (answer.to_vec(), buffer == 1);
        let server = async move {
            let mut request = [0; 4];
            theirs.read_exact(&mut request).await.unwrap();
            for piece in answer.chunks(if small { 1 } else { answer.len().max(1) }) {
                if theirs.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let server = tokio::spawn(server);
        let answer = ask(&mut ours, "GET ", "h:1").await;
        server.abort();
        answer.map_err(|fault| fault.to_string())
    }

    #[tokio::test]
    async fn the_status_of_the_final_answer_counts() {
        assert_eq!(asked(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await, Ok(200));
        assert_eq!(asked(b"HTTP/1.0 503 Busy\r\n\r\n").await, Ok(503));
        assert_eq!(asked(b"HTTP/1.1 204\nA: b\n\n").await, Ok(204));
        let early =
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /\r\n\r\n";
        assert_eq!(asked(early).await, Ok(302));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        let not_http = Err("h:1 does not answer with HTTP/1.1".to_owned());
        for odd in
            [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0\0\0\x04"]
        {
            assert_eq!(asked(odd).await, not_http, "{odd:?}");
        }
        assert_eq!(asked(b"HTTP/1.1 101 Switching\r\n\r\n").await, not_http);
        assert_eq!(asked(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9)).await, not_http);
        assert_eq!(asked(b"").await, Err("h:1 closed the connection without an answer".into()));
        let cut = Err("h:1 closed the connection in the middle of its answer".to_owned());
        assert_eq!(asked(b"HTTP/1.1 200 OK\r\nA: b\r\n").await, cut);
    }

    #[tokio::test]
    async fn headers_without_end_are_not_read_without_end() {
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        while answer.len() < 2 * MAX_HEAD_BYTES {
            answer.extend_from_slice(b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n");
        }
        assert_eq!(ask_over(&answer, 4096).await, Err("h:1 sends headers without end".into()));
    }
}
