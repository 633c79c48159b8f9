//! A store that takes one PUT after the other and keeps the bodies in files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, copy};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

/// Listens on loopback as long as the test's process lives.
pub struct Store {
    pub port: u16,
    dir: PathBuf,
}

impl Store {
    pub fn start(dir: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = Self { port, dir: dir.to_owned() };
        let dir = dir.to_owned();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that goes away in the middle leaves a short file, which no test asks for.
                let _ = take(BufReader::new(socket), &dir);
            }
        });
        store
    }

    pub fn object(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/bucket/{name}?X-Amz-Signature=TOPSECRET", self.port)
    }
}

fn take(mut socket: BufReader<std::net::TcpStream>, dir: &Path) -> std::io::Result<()> {
    let (mut length, mut name, mut line) = (0, String::new(), String::new());
    loop {
        line.clear();
        socket.read_line(&mut line)?;
        let lower = line.trim().to_lowercase();
        if let Some(path) = line.strip_prefix("PUT /bucket/") {
            name = path.split(['?', ' ']).next().unwrap_or_default().to_owned();
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        } else if lower.starts_with("expect:") {
            socket.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        } else if lower.is_empty() {
            break;
        }
    }
    copy(&mut socket.by_ref().take(length), &mut File::create(dir.join(name))?)?;
    socket.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
}
