//! A store of one's own: what an object store does, and everything it should not.

use super::rate::Rate;
use super::upload::{Options, Timing, direct};
use crate::model::{RunOrder, unix_ms};
use ring::digest::{SHA256, digest};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What must not be seen in any error.
pub const QUERY: &str = "X-Amz-Signature=TOPSECRET%2Fdeadbeef";

/// What the store does with one request.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Takes all of it and answers.
    Answer(&'static str),
    /// Answers with the object's own checksum.
    AnswerSha,
    /// Answers with the object's own MD5.
    AnswerMd5,
    /// Reads so many bytes of the body and closes.
    Cut(usize),
    /// Reads so many bytes of the body and stands still.
    Stall(usize),
    /// Answers before the body and closes: the client sees a broken pipe, unless it asked first.
    RefuseEarly(&'static str),
    /// Takes all of it and says nothing.
    Mute,
    /// Says nothing before the body, and then that all is well.
    NoGoAhead,
}

/// All is well.
pub const OK: Act = Act::Answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

/// What the store got.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

/// Listens on loopback until the test ends.
pub struct Store {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Store {
    pub async fn new(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&requests);
        tokio::task::spawn_local(async move {
            let mut acts = acts.into_iter();
            while let Ok((socket, _)) = listener.accept().await {
                let act = acts.next().expect("one request more than the test has answers for");
                tokio::task::spawn_local(serve(socket, act, Arc::clone(&seen)));
            }
        });
        Self { port, requests }
    }

    pub fn order(&self, life: Duration) -> RunOrder {
        RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: false,
            put_url: format!("http://127.0.0.1:{}/bucket/key%20a?{QUERY}", self.port).as_str().into(),
            expires_at_ms: unix_ms() + life.as_millis() as u64,
            multipart: None,
            s3_key: "key a".into(),
            dek: vec![9; 32].into(),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut socket: TcpStream, act: Act, seen: Arc<Mutex<Vec<Request>>>) {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let mut body = bytes.split_off(head_len);
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let total: usize = length.map_or(0, |length| length.parse().unwrap());
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(Request { head: head.clone(), body: Vec::new() });
        seen.len() - 1
    };
    if let Act::RefuseEarly(answer) = act {
        socket.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    if act_answers(act) && head.to_lowercase().contains("expect: 100-continue") {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    }
    let wanted = match act {
        Act::Cut(bytes) | Act::Stall(bytes) => bytes,
        Act::Answer(_)
        | Act::AnswerSha
        | Act::AnswerMd5
        | Act::RefuseEarly(_)
        | Act::Mute
        | Act::NoGoAhead => total,
    };
    while body.len() < wanted {
        if socket.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    seen.lock().unwrap()[index].body = body.clone();
    let answer = match act {
        Act::Answer(answer) => answer.to_owned(),
        Act::NoGoAhead => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Act::AnswerSha => {
            let sum = data_encoding::BASE64.encode(digest(&SHA256, &body).as_ref());
            format!("HTTP/1.1 200 OK\r\nx-amz-checksum-sha256: {sum}\r\ncontent-length: 0\r\n\r\n")
        }
        Act::AnswerMd5 => {
            use md5::Digest;
            let sum = data_encoding::HEXUPPER.encode(&md5::Md5::digest(&body));
            format!("HTTP/1.1 200 OK\r\netag: \"{sum}\"\r\ncontent-length: 0\r\n\r\n")
        }
        Act::Cut(_) | Act::RefuseEarly(_) => return,
        Act::Stall(_) | Act::Mute => std::future::pending().await,
    };
    socket.write_all(answer.as_bytes()).await.unwrap();
    // Open until the client is through.
    let _ = socket.read(&mut [0]).await;
}

/// Whether it gives the go-ahead where it is asked.
fn act_answers(act: Act) -> bool {
    !matches!(act, Act::NoGoAhead)
}

/// Impatient.
pub fn options() -> Options {
    let ms = Duration::from_millis;
    let timing = Timing {
        connect: ms(2_000),
        stall: ms(400),
        answer: ms(400),
        together: ms(400),
        go_ahead: ms(200),
        first_wait: ms(1),
        longest_wait: ms(20),
        fresh_urls: ms(200),
        offline: ms(100),
    };
    Options { allow_insecure: true, ca_file: None, timing, rate: Rate::default(), connect: direct() }
}
