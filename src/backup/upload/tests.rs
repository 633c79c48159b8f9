//! Uploads against a store that misbehaves in every way.

use super::*;
use crate::backup::Packed;
use crate::backup::outlet::Outlet;
use crate::backup::pipe::pipe;
use crate::backup::test_store::{Act, OK, QUERY, Request, Store, options};
use crate::backup::{FreshUrls, Progress, pack};
use crate::model::{Compression, Dek, RunOrder};
use crate::process::Cancel;
use crate::spool::{Room, Spool};
use std::io::Write;
use tokio::time::Instant;

/// A spool whose object holds so many bytes.
fn spool(dir: &std::path::Path, bytes: usize) -> (Arc<Spool>, Packed) {
    let spool = Arc::new(Spool::create(dir, &"r1".into()).unwrap());
    let (mut writer, reader) = pipe(Cancel::new());
    let thread = std::thread::spawn(move || {
        let data: Vec<u8> = (0..bytes).map(|n| (n % 253) as u8).collect();
        writer.write_all(&data).unwrap();
        writer.finish().unwrap();
    });
    let packing = pack::Packing {
        compression: Compression::None,
        zstd_level: 3,
        gzip_level: 6,
        threads: 1,
        key: Dek::from(vec![9; 32]),
        room: Room::default(),
    };
    let packed = pack::pack(reader, &Outlet::Spool(Arc::clone(&spool)), &packing).unwrap().unwrap();
    thread.join().unwrap();
    (spool, packed)
}

struct Sent {
    result: Result<(), String>,
    requests: Vec<Request>,
    object: Vec<u8>,
    took: Duration,
}

/// Uploads `bytes` bytes to a store that acts like this, with a URL that lives so long.
async fn send(acts: Vec<Act>, bytes: usize, life: Duration) -> Sent {
    let dir = tempfile::tempdir().unwrap();
    let (spool, packed) = spool(dir.path(), bytes);
    let store = Store::new(acts).await;
    let put = Put::new(&store.order(life), &options()).unwrap();
    let start = Instant::now();
    let progress = Progress::new();
    let sending = put.send(&spool, &packed, &progress);
    let result = tokio::time::timeout(Duration::from_secs(20), sending).await.expect("it ends");
    let result = result.map_err(|error| error.to_string());
    if let Err(text) = &result {
        assert!(!text.contains("TOPSECRET") && !text.contains('?'), "{text}");
        assert!(text.contains(&format!("127.0.0.1:{}/bucket/key%20a", store.port)), "{text}");
    }
    let object = std::fs::read(spool.path()).unwrap();
    assert_eq!(object.len() as u64, packed.size_bytes);
    Sent { result, requests: store.requests(), object, took: start.elapsed() }
}

const LONG: Duration = Duration::from_secs(600);

#[actix::test]
async fn one_put_carries_the_object_its_length_and_nothing_that_breaks_a_signature() {
    let sent = send(vec![OK], 3_000_000, LONG).await;
    sent.result.unwrap();
    let [request] = &sent.requests[..] else { panic!("{}", sent.requests.len()) };
    assert!(request.body == sent.object);
    let mut lines = request.head.lines();
    assert_eq!(lines.next().unwrap(), format!("PUT /bucket/key%20a?{QUERY} HTTP/1.1"));
    let mut names: Vec<_> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    names.retain(|name| name != "date");
    // None of these is signed, but for the host and the type.
    assert_eq!(names, ["connection", "content-length", "content-type", "expect", "host"]);
    let head = request.head.to_lowercase();
    assert!(head.contains(&format!("content-length: {}\r\n", sent.object.len())));
    assert!(head.contains("content-type: application/octet-stream\r\n"));
}

#[actix::test]
async fn what_may_pass_is_tried_again_from_the_spool() {
    let acts = vec![
        Act::Answer("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
        Act::Answer("HTTP/1.1 429 Slow\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
        Act::Answer("HTTP/1.1 408 Timeout\r\ncontent-length: 0\r\n\r\n"),
        Act::Answer("nonsense\r\n\r\n"),
        Act::Mute,
        Act::Stall(1_000_000),
        Act::Cut(500_000),
        OK,
    ];
    let count = acts.len();
    // More than the sockets' buffers hold, so that a store that stands still is felt.
    let sent = send(acts, 20_000_000, LONG).await;
    sent.result.unwrap();
    assert_eq!(sent.requests.len(), count);
    assert!(sent.requests.last().unwrap().body == sent.object);
}

#[actix::test]
async fn a_refusal_is_final_and_tells_only_the_code() {
    const XML: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 86\r\n\r\n\
        <Error><Code>AccessDenied</Code><Message>/bucket?X-Amz-Signature=TOPSECRET</Message></";
    for (answer, expected) in [
        (XML, "403 AccessDenied"),
        ("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "400 Bad Request"),
        ("HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\n\r\n", "411 Length Required"),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://other.test/x?sig=TOPSECRET\r\ncontent-length: 0\r\n\r\n",
            "(307 to other.test), which is not followed",
        ),
    ] {
        let sent = send(vec![Act::Answer(answer)], 10, LONG).await;
        let text = sent.result.unwrap_err();
        assert!(text.contains(expected), "{text}");
        assert_eq!(sent.requests.len(), 1);
    }
}

#[actix::test]
async fn a_refusal_that_comes_before_the_body_costs_nothing() {
    const EARLY: Act =
        Act::RefuseEarly("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let sent = send(vec![EARLY], 20_000_000, LONG).await;
    let text = sent.result.unwrap_err();
    assert!(text.contains("403 Forbidden"), "{text}");
    assert!(sent.requests[0].head.to_lowercase().contains("expect: 100-continue"));
    assert!(sent.requests[0].body.is_empty());
}

#[actix::test]
async fn a_store_that_does_not_know_the_question_gets_the_body_all_the_same() {
    send(vec![Act::NoGoAhead], 20_000_000, LONG).await.result.unwrap();
    const NEVER: Act = Act::Answer("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n");
    let sent = send(vec![NEVER, OK], 2_000_000, LONG).await;
    sent.result.unwrap();
    assert!(!sent.requests[1].head.to_lowercase().contains("expect"), "it is not asked again");
}

#[actix::test]
async fn tries_end_with_the_life_of_the_url() {
    const BUSY: Act = Act::Answer("HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n");
    let sent = send(vec![BUSY; 1000], 10, Duration::from_millis(300)).await;
    let text = sent.result.unwrap_err();
    assert!(text.contains("until its URL expired at") && text.contains("503 Service Unavailable"), "{text}");
    assert!(sent.requests.len() > 3 && sent.took < Duration::from_secs(2), "{:?}", sent.took);

    const LATER: Act = Act::Answer("HTTP/1.1 503 Slow Down\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n");
    let sent = send(vec![LATER], 10, Duration::from_secs(30)).await;
    assert!(sent.result.unwrap_err().contains("too short for a second try"));
    assert!(sent.took < Duration::from_secs(2), "it does not wait for nothing");
}

#[actix::test]
async fn a_store_that_takes_nothing_for_the_life_of_a_fresh_url_ends_the_run() {
    const BUSY: Act = Act::Answer("HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n");
    let dir = tempfile::tempdir().unwrap();
    let (spool, packed) = spool(dir.path(), 10);
    let store = Store::new(vec![BUSY; 10_000]).await;
    let mut options = options();
    options.timing.longest_wait = Duration::from_millis(200);
    let order = store.order(Duration::from_millis(300));
    let progress = Progress::new();
    let put = Put::new(&order, &options).unwrap();
    let renewed = std::cell::Cell::new(0);
    let server = async {
        loop {
            if progress.urls().question().is_some() {
                renewed.set(renewed.get() + 1);
                let expires_at_ms = crate::model::unix_ms() + 2_500;
                let put_url = order.put_url.clone();
                progress.urls().give(FreshUrls { put_url, expires_at_ms, multipart: None });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let sent = tokio::select! {
        sent = tokio::time::timeout(Duration::from_secs(20), put.send(&spool, &packed, &progress)) => sent.expect("it ends"),
        () = server => unreachable!(),
    };
    let text = sent.unwrap_err().to_string();
    assert!(text.contains("until its URL expired at") && text.contains("503"), "{text}");
    assert_eq!(renewed.get(), 1, "one whole life of a fresh URL is enough");
}

#[actix::test]
async fn the_stores_checksum_is_held_against_the_object() {
    send(vec![Act::AnswerSha], 2_000_000, LONG).await.result.unwrap();
    send(vec![Act::AnswerMd5], 2_000_000, LONG).await.result.unwrap();
    const WRONG_SHA: Act = Act::Answer(
        "HTTP/1.1 200 OK\r\nx-amz-checksum-sha256: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\ncontent-length: 0\r\n\r\n",
    );
    const WRONG_MD5: Act = Act::Answer(
        "HTTP/1.1 200 OK\r\netag: \"00000000000000000000000000000000\"\r\ncontent-length: 0\r\n\r\n",
    );
    for (wrong, expected) in [(WRONG_SHA, "its SHA-256 differs"), (WRONG_MD5, "its ETag is not the MD5")] {
        let sent = send(vec![wrong; 3], 10, LONG).await;
        let text = sent.result.unwrap_err();
        assert!(text.contains("keeps something else") && text.contains(expected), "{text}");
        assert_eq!(sent.requests.len(), 3);
        send(vec![wrong, OK], 10, LONG).await.result.unwrap();
    }
    // Under the store's own key, an ETag that looks like an MD5 is none.
    const KMS: Act = Act::Answer(
        "HTTP/1.1 200 OK\r\nx-amz-server-side-encryption: aws:kms\r\netag: \"00000000000000000000000000000000\"\r\ncontent-length: 0\r\n\r\n",
    );
    send(vec![KMS], 10, LONG).await.result.unwrap();
}

#[actix::test]
async fn a_url_that_cannot_be_used_is_told_before_anything_is_dumped() {
    let dated = |url: &str, expires_at_ms| RunOrder {
        run_id: "r".into(),
        job_id: "j".into(),
        manual: false,
        put_url: url.into(),
        expires_at_ms,
        multipart: None,
        s3_key: String::new(),
        dek: Dek::default(),
    };
    let secure = Options { allow_insecure: false, ..options() };
    for (url, expires, expected) in [
        ("http://store.test/o?TOPSECRET", u64::MAX, "(store.test/o) is http"),
        ("ftp://store.test/o?TOPSECRET", u64::MAX, "its scheme is not https"),
        ("https:///o?TOPSECRET", u64::MAX, "cannot be used"),
        ("TOPSECRET \u{1}", u64::MAX, "cannot be parsed"),
        ("https://store.test/o?TOPSECRET", 1_000, "(store.test/o) expired at 1970-01-01 00:00:01 UTC"),
    ] {
        let text = Put::new(&dated(url, expires), &secure).err().expect("refused").to_string();
        assert!(text.contains(expected) && !text.contains("TOPSECRET"), "{text}");
    }
    // A URL without an expiry is tried for an hour.
    let put = Put::new(&dated("http://store.test/o", 0), &options()).unwrap();
    drop(put);
    let missing = Options { ca_file: Some("/none/ca.pem".into()), ..options() };
    let text = Put::new(&dated("https://store.test/o", 0), &missing).err().unwrap().to_string();
    assert!(text.contains("/none/ca.pem"), "{text}");
}
