//! One request against a server that answers word for word what a test wants.

use super::*;
use crate::backup::rate::Rate;
use crate::backup::test_store::options;
use bytes::Bytes;
use std::sync::Mutex;
use tokio::net::TcpListener;

/// Answers each connection with its words before the body and its words after it, and closes; an empty word before the
/// body is silence. Gives its port and what the heads of the requests were, or their first bytes.
async fn server(words: Vec<(&'static str, &'static str)>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    tokio::task::spawn_local(async move {
        for (before, after) in words {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let head_len = loop {
                if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                let is_request = bytes.is_empty() || bytes.starts_with(b"PUT ");
                if !is_request || socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    break bytes.len();
                }
            };
            let head = String::from_utf8_lossy(&bytes[..head_len]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            seen.lock().unwrap().push(head);
            socket.write_all(before.as_bytes()).await.unwrap();
            while bytes.len() < head_len + length && socket.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
            let _ = socket.write_all(after.as_bytes()).await;
        }
    });
    (port, heads)
}

/// A body of such a size that the store is asked first.
async fn put(client: &Client, url: &str) -> Result<Answer, String> {
    let place = Place::new(&url.into(), true).unwrap();
    let source = Source::Memory(Bytes::from(vec![7; EXPECT_FROM_BYTES as usize]));
    let body = Body::new(&source, Rate::default(), &|_| {});
    let request = Request { method: "PUT", place: &place, content_type: None, unasked: false, body };
    let sent = timeout(Duration::from_secs(20), client.send(request)).await.expect("it ends");
    sent.map_err(|broken| match broken {
        Broken::Passing(why) => format!("passing: {why}"),
        Broken::Lasting(why) => format!("lasting: {why}"),
    })
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[actix::test]
async fn what_comes_between_the_question_and_its_answer_is_no_answer() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let (port, heads) = server(vec![(interim, OK)]).await;
    let client = Client::new(false, &options()).unwrap();
    assert_eq!(put(&client, &format!("http://127.0.0.1:{port}/o")).await.unwrap().status, 200);
    assert!(heads.lock().unwrap()[0].contains("expect: 100-continue"));
}

#[actix::test]
async fn a_store_that_says_nothing_before_the_body_is_asked_once() {
    let (port, heads) = server(vec![("", OK); 3]).await;
    let client = Client::new(false, &options()).unwrap();
    for _ in 0..3 {
        assert_eq!(put(&client, &format!("http://127.0.0.1:{port}/o")).await.unwrap().status, 200);
    }
    let asked = heads.lock().unwrap().iter().map(|head| head.contains("expect:")).collect::<Vec<_>>();
    assert_eq!(asked, [true, false, false]);
}

#[actix::test]
async fn a_good_answer_that_breaks_off_is_none() {
    let go = "HTTP/1.1 100 Continue\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 86\r\n\r\n<?xml version=\"1.0\"?><Error><Code>Intern";
    let open = "HTTP/1.1 200 OK\r\n\r\n";
    let refused = "HTTP/1.1 503 Slow\r\ncontent-length: 86\r\n\r\n<Error>";
    let (port, _) = server(vec![(go, cut), (go, open), (go, refused)]).await;
    let client = Client::new(false, &options()).unwrap();
    let url = format!("http://127.0.0.1:{port}/o");
    assert_eq!(put(&client, &url).await.unwrap_err(), "passing: the store's answer was cut off");
    assert_eq!(put(&client, &url).await.unwrap().status, 200);
    assert_eq!(put(&client, &url).await.unwrap().status, 503);
}

#[actix::test]
async fn nothing_goes_to_a_secure_place_in_clear_text_whatever_the_other_urls_are() {
    let (port, heads) = server(vec![("", "")]).await;
    let client = Client::new(false, &options()).unwrap();
    let error = put(&client, &format!("https://127.0.0.1:{port}/o?X-Amz-Signature=TOPSECRET")).await;
    assert!(error.unwrap_err().contains("no TLS connection"));
    let heads = heads.lock().unwrap();
    assert!(heads[0].starts_with('\u{16}'), "a handshake: {:?}", heads[0]);
}
