//! Programs inside a running container: made, started with the connection as their three streams, asked how they ended.
//!
//! Docker has no request that ends such a program, and one whose connection is closed goes on into the void: ending
//! it is the caller's work.

use super::frames::{Demux, Stream};
use super::line::{Line, strange};
use super::{Client, Error};
use crate::http::BodyReader;
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

const START: &str = "start the program";

/// What is run: an argument list, never a line for a shell.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Program<'a> {
    /// The program, looked for in the container's own `PATH`, and its arguments.
    pub cmd: Vec<&'a str>,
    /// `NAME=value`, over the container's own environment. Docker shows it to nobody but the program.
    pub env: Vec<&'a str>,
    /// Whether something is written to its standard input.
    pub attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
}

impl<'a> Program<'a> {
    /// Without standard input.
    pub fn new(cmd: Vec<&'a str>, env: Vec<&'a str>) -> Self {
        // Without a terminal: it would change line ends, and bring both streams together.
        Self { cmd, env, attach_stdin: false, attach_stdout: true, attach_stderr: true, tty: false }
    }
}

/// A program that was made.
#[derive(Clone, Debug, Deserialize)]
pub struct ExecId {
    #[serde(rename = "Id")]
    id: String,
}

/// How a program does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Exec {
    /// Whether it has not ended.
    #[serde(default)]
    pub running: bool,
    /// Once it has ended.
    #[serde(default)]
    pub exit_code: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Start {
    detach: bool,
    tty: bool,
}

impl Client {
    /// Makes a program in the container of that id.
    ///
    /// # Errors
    /// [`Error`]; a container that is stopped or paused refuses with 409.
    pub async fn create(&self, container: &str, program: &Program<'_>) -> Result<ExecId, Error> {
        const WHAT: &str = "make a program in the container";
        let made: ExecId = self.post(WHAT, &format!("/containers/{container}/exec"), program).await?;
        if made.id.is_empty() || !made.id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(strange(WHAT, "its id is none"));
        }
        Ok(made)
    }

    /// Starts it; `input` is its whole standard input.
    ///
    /// # Errors
    /// [`Error`]. A program that is not in the container is told here by some engines, and by others as its output.
    pub async fn start(&self, exec: &ExecId, input: Option<&[u8]>) -> Result<Attached, Error> {
        let path = format!("/exec/{}/start", exec.id);
        let (mut line, answer) = self.upgrade(START, &path, &Start { detach: false, tty: false }).await?;
        let framing = match answer.status {
            101 => None,
            _ => Some(BodyReader::new(&answer).map_err(|error| strange(START, error))?),
        };
        if let Some(input) = input {
            line.write(START, input).await?;
            line.end_of_input().await?;
        }
        Ok(Attached { line, framing, plain: BytesMut::new(), demux: Demux::default() })
    }

    /// How it does.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] where its container is gone.
    pub async fn exec(&self, exec: &ExecId) -> Result<Exec, Error> {
        self.get("say how the program does", &format!("/exec/{}/json", exec.id)).await
    }
}

/// A running program's output.
#[derive(Debug)]
pub struct Attached {
    line: Line,
    /// Where the engine, or something before it, stayed with HTTP.
    framing: Option<BodyReader>,
    /// What was in the framing and is not yet used.
    plain: BytesMut,
    demux: Demux,
}

impl Attached {
    /// Waits until something was read that [`Attached::next_piece`] has not given; false at the end. Dropped in the middle,
    /// nothing is lost.
    ///
    /// # Errors
    /// [`Error::Line`], [`Error::Strange`]: also where the stream ended in a frame.
    pub async fn wait(&mut self) -> Result<bool, Error> {
        loop {
            self.unwrap_framing()?;
            if !self.plain.is_empty() {
                return Ok(true);
            }
            let is_over = self.framing.as_ref().is_some_and(BodyReader::is_whole);
            if !is_over && self.line.more().await? > 0 {
                continue;
            }
            if self.framing.as_ref().is_some_and(|framing| !framing.may_end()) {
                return Err(strange(START, "the program's output was cut off"));
            }
            self.demux.end().map_err(|error| strange(START, error))?;
            return Ok(false);
        }
    }

    /// The next piece of what was read; None when there is no more of it.
    ///
    /// # Errors
    /// [`Error::Strange`]
    pub fn next_piece(&mut self) -> Result<Option<(Stream, Bytes)>, Error> {
        let (taken, found) = self.demux.next_piece(&self.plain).map_err(|error| strange(START, error))?;
        let found = found.map(|(stream, piece)| (stream, piece.len()));
        let Some((stream, len)) = found else {
            self.plain.advance(taken);
            return Ok(None);
        };
        self.plain.advance(taken.saturating_sub(len));
        Ok(Some((stream, self.plain.split_to(len).freeze())))
    }

    fn unwrap_framing(&mut self) -> Result<(), Error> {
        match &mut self.framing {
            None if self.plain.is_empty() => std::mem::swap(&mut self.plain, &mut self.line.bytes),
            None => self.plain.unsplit(self.line.bytes.split()),
            Some(framing) => {
                let mut plain = Vec::new();
                framing.push(&self.line.bytes, &mut plain).map_err(|error| strange(START, error))?;
                self.line.bytes.clear();
                self.plain.extend_from_slice(&plain);
            }
        }
        Ok(())
    }
}
