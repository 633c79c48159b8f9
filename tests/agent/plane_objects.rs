//! The object store over HTTP: what it refuses, and what is visible when.

use crate::plane_kit::{PATIENCE, Peer, Plane};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A plane with a run that was ordered, and the URL of its upload.
async fn with_url(dir: &std::path::Path, lifetime: Duration) -> (Plane, String) {
    let plane = Plane::start(dir, |config| {
        config.url_lifetime = lifetime;
        config.max_object_bytes = 1_000_000;
    });
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    plane.post("/v1/jobs/nightly/run", Value::Null).await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let url = peer.order().await.upload_creds.unwrap().presigned_put_url;
    (plane, url)
}

/// Says the bytes on a connection of its own, and reads the answer to its end.
fn raw(plane: &Plane, url: &str, headers: &str, body: &[u8], hang_up: bool) -> String {
    let address = plane.running.base_url().trim_start_matches("http://").to_owned();
    let path = url.strip_prefix(plane.running.base_url()).unwrap();
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    if hang_up {
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = String::new();
    // A server that refuses may cut the connection before it has read everything.
    let _ = socket.read_to_string(&mut answer);
    answer
}

/// Every file of the store.
fn files(plane: &Plane) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![plane.data_dir.join("objects")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found
}

#[actix::test]
async fn a_chunked_put_is_refused_with_411() {
    let dir = tempfile::tempdir().unwrap();
    let (plane, url) = with_url(dir.path(), Duration::from_secs(600)).await;
    let answer = raw(&plane, &url, "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", false);
    assert!(answer.starts_with("HTTP/1.1 411"), "{answer}");
    assert!(answer.contains("<Code>MissingContentLength</Code>"), "{answer}");
    assert_eq!(files(&plane), Vec::<std::path::PathBuf>::new());
}

#[actix::test]
async fn a_changed_or_expired_url_is_refused_with_403() {
    let dir = tempfile::tempdir().unwrap();
    let (plane, url) = with_url(dir.path(), Duration::from_secs(600)).await;
    let (path, query) = url.split_once('?').unwrap();
    let other = format!("{}x.bkpy?{query}", path.trim_end_matches(".bkpy"));
    for wrong in [path.to_owned(), format!("{path}?expires=1&signature=00"), other] {
        let answer = raw(&plane, &wrong, "Content-Length: 3\r\n", b"abc", false);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let (status, _) = plane.fetch(&url).await;
    assert_eq!(status, 403, "a URL to write is none to read");
    assert_eq!(files(&plane), Vec::<std::path::PathBuf>::new());

    let dir = tempfile::tempdir().unwrap();
    let (plane, url) = with_url(dir.path(), Duration::ZERO).await;
    let answer = raw(&plane, &url, "Content-Length: 3\r\n", b"abc", false);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("expired"), "{answer}");
}

#[actix::test]
async fn a_too_long_object_is_refused_before_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let (plane, url) = with_url(dir.path(), Duration::from_secs(600)).await;
    let answer = raw(&plane, &url, "Content-Length: 1000001\r\n", b"", false);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[actix::test]
async fn a_half_upload_is_never_visible_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (plane, url) = with_url(dir.path(), Duration::from_secs(600)).await;
    let answer = raw(&plane, &url, "Content-Length: 600000\r\n", &[7; 300_000], true);
    assert!(!answer.contains(" 200 "), "{answer}");
    crate::common::eventually("nothing of it left", PATIENCE, || files(&plane).is_empty().then_some(()));
    let (status, _) = plane.put(&url, vec![8; 600_000]).await;
    assert_eq!(status, 200);
    let stored = files(&plane);
    assert_eq!(stored.len(), 1);
    assert_eq!(std::fs::metadata(&stored[0]).unwrap().len(), 600_000);
}

#[actix::test]
async fn an_upload_can_be_slowed_down() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |config| config.max_upload_bytes_per_sec = Some(1_000_000));
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    plane.post("/v1/jobs/nightly/run", Value::Null).await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let url = peer.order().await.upload_creds.unwrap().presigned_put_url;
    let start = std::time::Instant::now();
    assert_eq!(plane.put(&url, vec![1; 500_000]).await.0, 200);
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}
