//! A store that keeps parts apart, puts them together, and misbehaves when told.

use crate::model::{Multipart, RunOrder, unix_ms};
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const PART: u64 = 64 * 1024;
pub const SECRET: &str = "TOPSECRET";

/// What it has, and what it does.
#[derive(Default)]
pub struct Held {
    pub parts: BTreeMap<u32, Vec<u8>>,
    pub object: Option<Vec<u8>>,
    pub aborted: bool,
    /// Each request: method, part, generation of its URL.
    pub requests: Vec<(String, u32, u32)>,
    /// What happens to the next request of that name: `part 2`, `complete`.
    pub faults: BTreeMap<String, Vec<&'static str>>,
    /// URLs of an earlier generation are refused for their age.
    pub generation: u32,
    /// URLs of an earlier generation are of an upload that is over.
    pub over: u32,
    /// The completing URL is refused for its age.
    pub completes_stale: bool,
    /// It hangs up on everybody.
    pub away: bool,
    /// Bodies that come in at once: now, and at most.
    pub bodies: (usize, usize),
}

/// Listens on loopback until the test ends.
pub struct Shop {
    port: u16,
    held: Arc<Mutex<Held>>,
}

impl Shop {
    pub async fn new(faults: &[(&str, &'static str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::<Mutex<Held>>::default();
        for (name, fault) in faults {
            held.lock().unwrap().faults.entry((*name).to_owned()).or_default().push(fault);
        }
        let serving = Arc::clone(&held);
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(socket, Arc::clone(&serving)));
            }
        });
        Self { port, held }
    }

    pub fn multipart(&self, first_part: u32, count: u32, generation: u32) -> Multipart {
        let base = format!("http://127.0.0.1:{}/bucket/key", self.port);
        let url = |what: &str| format!("{base}?{what}&gen={generation}&X-Amz-Signature={SECRET}").into();
        Multipart {
            part_size_bytes: PART,
            part_urls: (first_part..first_part + count).map(|n| url(&format!("partNumber={n}"))).collect(),
            first_part,
            complete_url: url("complete=1"),
            abort_url: url("abort=1"),
            upload_id: "u1".into(),
            head_url: url("head=1"),
        }
    }

    pub fn order(&self, count: u32) -> RunOrder {
        RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: false,
            put_url: Default::default(),
            expires_at_ms: unix_ms() + 600_000,
            multipart: Some(self.multipart(1, count, 0)),
            s3_key: "key".into(),
            dek: vec![9; 32].into(),
        }
    }

    pub fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }
}

async fn serve(mut socket: TcpStream, held: Arc<Mutex<Held>>) {
    let mut bytes = Vec::new();
    let at = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let mut body = bytes.split_off(at);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let field = |name: &str| -> u32 {
        let value = head.split(name).nth(1).unwrap_or_default();
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let method = head.split(' ').next().unwrap().to_owned();
    let (part, generation) = (field("partNumber="), field("gen="));
    let name = match method.as_str() {
        "PUT" => format!("part {part}"),
        "POST" => "complete".into(),
        "HEAD" => "head".into(),
        _ => "abort".into(),
    };
    let (fault, stale, gone) = {
        let mut held = held.lock().unwrap();
        if held.away {
            return;
        }
        held.requests.push((method.clone(), part, generation));
        held.bodies.0 += 1;
        held.bodies.1 = held.bodies.1.max(held.bodies.0);
        let fault = held.faults.get_mut(&name).filter(|faults| !faults.is_empty()).map(|f| f.remove(0));
        let stale = generation < held.generation || held.completes_stale && method == "POST";
        (fault, stale, generation < held.over)
    };
    let cut_at = if fault == Some("cut") { length / 2 } else { length };
    while body.len() < cut_at {
        if socket.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let refused = |status: &str, code: &str, message: &str| {
        let xml = format!("<Error><Code>{code}</Code><Message>{message} {SECRET}</Message></Error>");
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{xml}", xml.len())
    };
    let answer = match fault {
        Some("cut") => return,
        Some("mute") => std::future::pending().await,
        Some("wrong etag") => {
            format!("HTTP/1.1 200 OK\r\netag: \"{}\"\r\ncontent-length: 0\r\n\r\n", "0".repeat(32))
        }
        Some("error in 200") => refused("200", "InternalError", "try again"),
        Some("bad parts") => refused("200", "InvalidPart", "no"),
        Some("lost answer") => return drop(done(&mut held.lock().unwrap(), &method, part, body)),
        Some("gone in 200") => refused("200", "NoSuchUpload", "gone"),
        Some("nothing") => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
        Some("gone") => refused("404", "NoSuchUpload", "gone"),
        // All of it came, and nothing came of it.
        Some("lost request") => return,
        Some("another") => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".into(),
        Some(status) => refused(status, "AccessDenied", "no"),
        None if stale => refused("403", "AccessDenied", "Request has expired"),
        None if method == "POST" && held.lock().unwrap().object.is_some() => {
            refused("404", "NoSuchUpload", "gone")
        }
        None if gone => refused("404", "NoSuchUpload", "no"),
        None => done(&mut held.lock().unwrap(), &method, part, body),
    };
    held.lock().unwrap().bodies.0 -= 1;
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.read(&mut [0]).await;
}

fn done(held: &mut Held, method: &str, part: u32, body: Vec<u8>) -> String {
    match method {
        "PUT" => {
            let etag = HEXLOWER.encode(&Md5::digest(&body));
            held.parts.insert(part, body);
            format!("HTTP/1.1 200 OK\r\netag: \"{etag}\"\r\ncontent-length: 0\r\n\r\n")
        }
        "HEAD" => match &held.object {
            Some(object) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", object.len()),
            None => "HTTP/1.1 404 Not Found\r\ncontent-length: 300\r\n\r\n".into(),
        },
        "POST" => {
            let xml = String::from_utf8(body).unwrap();
            let named = xml.matches("<PartNumber>").count();
            let mut sums = Md5::new();
            let mut object = Vec::new();
            for (number, bytes) in held.parts.iter().take(named) {
                let etag = HEXLOWER.encode(&Md5::digest(bytes));
                assert!(
                    xml.contains(&format!("<PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag>")),
                    "{xml}"
                );
                sums.update(Md5::digest(bytes));
                object.extend_from_slice(bytes);
            }
            held.object = Some(object);
            let etag = format!("&quot;{}-{named}&quot;", HEXLOWER.encode(&sums.finalize()));
            let xml =
                format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>");
            // As S3 does it: the head at once, the verdict when it is known.
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n \r\n{:x}\r\n{xml}\r\n0\r\n\r\n",
                xml.len()
            )
        }
        _ => {
            held.aborted = true;
            "HTTP/1.1 204 No Content\r\n\r\n".into()
        }
    }
}
