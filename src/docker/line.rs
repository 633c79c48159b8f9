//! One connection to the engine, with one request and what comes back.

use super::Error;
use crate::http::{self, Answer, BodyReader};
use bytes::{Buf, BytesMut};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// An answer's head. Docker's have under 1 KiB.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// An answer's JSON. A container with hundreds of mounts and labels has some 100 KiB.
const MAX_JSON_LEN: usize = 4 * 1024 * 1024;

/// Read at once; Docker's frames have up to 32 KiB.
const READ_LEN: usize = 64 * 1024;

/// How long an engine may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For one answer. Engines that start many containers at once are slow.
    pub answer: Duration,
    /// After so long without a word of a program it is asked after: the end of an output can get lost in an engine.
    /// Dumps are silent for minutes while they wait for a lock.
    pub silence: Duration,
    /// An engine notes a program's end a moment before or after the end of its output.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(15),
            settle: Duration::from_secs(5),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    socket: UnixStream,
    path: PathBuf,
    /// Read and not yet used.
    pub bytes: BytesMut,
    timing: Timing,
}

impl Line {
    /// Connects and sends one request.
    pub async fn send(
        socket: &Path,
        timing: Timing,
        what: &'static str,
        request: &[u8],
    ) -> Result<Self, Error> {
        let connecting = UnixStream::connect(socket);
        let stream = match timeout(timing.answer, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(cause)) => return Err(unreachable(socket, cause)),
            Err(_) => return Err(silent(what, timing.answer)),
        };
        let mut line = Self { socket: stream, path: socket.to_owned(), bytes: BytesMut::new(), timing };
        line.write(what, request).await?;
        Ok(line)
    }

    /// Writes all of it.
    pub async fn write(&mut self, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
        match timeout(self.timing.answer, self.socket.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            // What it said before it hung up is the better reason, and may be here.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(Err(cause)) => Err(self.broken(cause)),
            Err(_) => Err(silent(what, self.timing.answer)),
        }
    }

    /// Nothing more will be written: the program's standard input ends.
    pub async fn end_of_input(&mut self) -> Result<(), Error> {
        match self.socket.shutdown().await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Err(cause) => Err(self.broken(cause)),
        }
    }

    /// The head of the answer.
    pub async fn head(&mut self, what: &'static str) -> Result<Answer, Error> {
        let limit = self.timing.answer;
        timeout(limit, self.read_head(what)).await.unwrap_or_else(|_| Err(silent(what, limit)))
    }

    async fn read_head(&mut self, what: &'static str) -> Result<Answer, Error> {
        loop {
            match http::parse(&self.bytes).map_err(|error| strange(what, error))? {
                Some((answer, len)) => {
                    self.bytes.advance(len);
                    if answer.status == 100 {
                        continue;
                    }
                    return Ok(answer);
                }
                None if self.bytes.len() > MAX_HEAD_LEN => return Err(strange(what, http::NotHttp)),
                None => {}
            }
            if self.more().await? == 0 {
                return Err(strange(what, "it ended before it began"));
            }
        }
    }

    /// The answer's body, whole.
    pub async fn body(&mut self, what: &'static str, answer: &Answer) -> Result<Vec<u8>, Error> {
        let limit = self.timing.answer;
        timeout(limit, self.read_body(what, answer)).await.unwrap_or_else(|_| Err(silent(what, limit)))
    }

    async fn read_body(&mut self, what: &'static str, answer: &Answer) -> Result<Vec<u8>, Error> {
        let mut reader = BodyReader::new(answer).map_err(|error| strange(what, error))?;
        let mut body = Vec::new();
        loop {
            reader.push(&self.bytes, &mut body).map_err(|error| strange(what, error))?;
            self.bytes.clear();
            if reader.is_whole() {
                return Ok(body);
            }
            if body.len() > MAX_JSON_LEN {
                return Err(strange(what, "it is longer than 4 MiB"));
            }
            if self.more().await? == 0 {
                return if reader.may_end() { Ok(body) } else { Err(strange(what, "it was cut off")) };
            }
        }
    }

    /// Reads on; 0 at the end. Nothing is lost when this is dropped in the middle.
    pub async fn more(&mut self) -> Result<usize, Error> {
        self.bytes.reserve(READ_LEN);
        self.socket.read_buf(&mut self.bytes).await.map_err(|cause| self.broken(cause))
    }

    fn broken(&self, cause: io::Error) -> Error {
        Error::Line { socket: self.path.clone(), cause }
    }
}

fn unreachable(socket: &Path, cause: io::Error) -> Error {
    let socket = socket.to_owned();
    if cause.kind() == io::ErrorKind::NotFound {
        Error::NoSocket { socket }
    } else if cause.kind() == io::ErrorKind::ConnectionRefused {
        Error::NoListener { socket }
    } else if cause.kind() == io::ErrorKind::PermissionDenied {
        Error::Forbidden { socket }
    } else {
        Error::Line { socket, cause }
    }
}

fn silent(what: &'static str, limit: Duration) -> Error {
    Error::Silent { what, seconds: limit.as_secs() }
}

pub fn strange(what: &'static str, problem: impl std::fmt::Display) -> Error {
    Error::Strange { what, problem: problem.to_string() }
}
