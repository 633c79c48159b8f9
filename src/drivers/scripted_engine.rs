//! A Docker engine that says what a test wants: what a real one does not do on demand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What is answered.
#[derive(Clone)]
pub enum Say {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing.
    AndHang(Vec<u8>),
    /// Byte by byte.
    Slowly(Vec<u8>),
}

/// Listens until the test's process ends.
pub struct ScriptedEngine {
    dir: TempDir,
    /// Request lines with bodies, in their order.
    pub asked: Arc<Mutex<Vec<String>>>,
}

/// An answer with a body.
pub fn answer(status: u16, body: &str) -> Say {
    let head = format!("HTTP/1.1 {status} X\r\nApi-Version: 1.43\r\nContent-Length: {}\r\n\r\n", body.len());
    Say::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

/// A program's frames after an upgrade.
pub fn frames(frames: &[(u8, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (stream, text) in frames {
        bytes.extend_from_slice(&[*stream, 0, 0, 0]);
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The same behind the head that engines send.
pub fn upgraded(bytes: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", bytes].concat()
}

impl ScriptedEngine {
    /// `odd` answers the requests that it wants, by method and path without the version; for all others there is an
    /// engine with the running container `db`, in which every program says "whole dump" and ends well.
    pub fn start(odd: impl Fn(&str) -> Option<Say> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, odd) = (Arc::clone(&asked), Arc::new(odd));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (log, odd) = (Arc::clone(&log), Arc::clone(&odd));
                std::thread::spawn(move || serve(socket, &log, &*odd));
            }
        });
        Self { dir, asked }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// How often something like that was asked.
    pub fn times(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.contains(what)).count()
    }
}

fn serve(mut socket: UnixStream, log: &Mutex<Vec<String>>, odd: &dyn Fn(&str) -> Option<Say>) {
    let Some((line, body)) = request(&mut socket) else { return };
    log.lock().unwrap().push(format!("{line} {body}"));
    let say = odd(&line).unwrap_or_else(|| usual(&line));
    // A client that went away is no concern of this engine.
    match say {
        Say::Bytes(bytes) => drop(socket.write_all(&bytes)),
        Say::AndHang(bytes) => {
            let _ = socket.write_all(&bytes);
            let _ = socket.read_to_end(&mut Vec::new());
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        Say::Slowly(bytes) => bytes.iter().for_each(|byte| drop(socket.write_all(&[*byte]))),
    }
}

fn usual(line: &str) -> Say {
    match line {
        "GET /_ping" => answer(200, "OK"),
        "GET /containers/db/json" | "GET /containers/c0ffee/json" => {
            answer(200, r#"{"Id":"c0ffee","State":{"Status":"running","Running":true},"ExecIDs":null}"#)
        }
        "POST /containers/c0ffee/exec" => answer(201, r#"{"Id":"e1"}"#),
        "POST /exec/e1/start" => Say::Bytes(upgraded(&frames(&[(1, "whole "), (2, "a word"), (1, "dump")]))),
        "GET /exec/e1/json" => answer(200, r#"{"ID":"e1","Running":false,"ExitCode":0,"Pid":0}"#),
        other => answer(404, &format!("{{\"message\":\"not scripted: {other}\"}}")),
    }
}

/// Its line without the version, and its body.
fn request(socket: &mut UnixStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let path = path.strip_prefix("/v1.43").unwrap_or(path);
    Some((format!("{method} {path}"), String::from_utf8(body).ok()?))
}
