//! A tool inside the target's own container: `docker exec` by the engine's API, without a docker client.
//!
//! - An argument list, never a shell. Secrets by the program's own environment, or by its standard input for tools that
//!   want a file: nothing is put into the container, and Docker shows neither to anybody.
//! - Its two streams come as frames in one connection; the engine, and with it the tool, waits while nobody reads.
//! - How it ended is asked after its output ended. A stream that is cut, or ends while the tool still runs, is a
//!   failure.
//! - Whatever ends the run ends the tool: when this is dropped before the tool's end.

use super::DumpError;
use super::call::Call;
use super::container::{Container, Waited};
use super::patience::{LAST_WORDS, Patience};
use crate::docker::{self, Attached, Exec, ExecId, Name, Program, Stream};
use crate::process::Tail;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Between two looks at a tool that is ending.
const END_LOOK: Duration = Duration::from_millis(10);

/// Kept of the beginning of the output: some engines put there why the tool could not be started.
const OPENING_LEN: usize = 512;

/// A shell's and Docker's status for a program that cannot be run, or is not there.
const NOT_RUN: [i64; 2] = [126, 127];

/// A status above this is a signal's number and this.
const BY_SIGNAL: i64 = 128;

/// A tool from its start to its end; ended when it is dropped before.
pub struct Running<'a> {
    container: &'a Container,
    exec: ExecId,
    is_over: bool,
    tool: &'a str,
    /// With the container, for people.
    name: String,
    tail: Tail,
    opening: Vec<u8>,
}

impl<'a> Running<'a> {
    /// Starts it; its output waits until it is asked for.
    ///
    /// # Errors
    /// [`DumpError::Cancelled`], [`DumpError::Docker`], [`DumpError::ToolMissingInside`].
    pub fn start(
        container: &'a Container,
        call: &'a Call,
        patience: Patience<'_>,
    ) -> Result<Started<'a>, DumpError> {
        let (cmd, mut env) = (call.argv(), call.variables());
        env.push(container.mark.variable().to_owned().into());
        let mut program = Program::new(
            cmd.iter().map(String::as_str).collect(),
            env.iter().map(|variable| variable.as_str()).collect(),
        );
        program.attach_stdin = call.input().is_some();
        let made = container.until(patience, container.client.create(&container.id, &program));
        let exec = match made {
            Waited::Done(made) => made.map_err(|cause| container.failed(masked(cause, call)))?,
            Waited::Cancelled => return Err(DumpError::Cancelled),
            Waited::Overdue(how) => return Err(failure(call.title(), &how, "")),
        };
        // From here on it may run, whatever is heard of it: this ends it when it is dropped.
        let mut running = Self {
            container,
            exec,
            is_over: false,
            tool: call.name(),
            name: call.title().to_owned(),
            tail: Tail::new(call.mask()),
            opening: Vec::new(),
        };
        let client = &container.client;
        let started = container.until(patience, client.start(&running.exec, call.input()));
        let attached = running.heard(started)?;
        let attached = attached.map_err(|cause| running.not_started(masked(cause, call)))?;
        Ok(Started { running, attached })
    }

    /// Waits for the next words or the end.
    fn listen(&mut self, attached: &mut Attached, patience: Patience<'_>) -> Result<bool, DumpError> {
        let silence = self.container.client.timing().silence;
        loop {
            let heard = self.container.until(patience, async { timeout(silence, attached.wait()).await });
            match self.heard(heard)? {
                Ok(more) => return more.map_err(|cause| self.broken(&cause)),
                Err(_) => self.still_runs(patience)?,
            }
        }
    }

    /// One piece of what was heard. Its output is handed on, its words are kept.
    fn sort(&mut self, stream: Stream, bytes: &[u8]) -> Result<bool, DumpError> {
        match stream {
            Stream::Stdout => {
                let room = OPENING_LEN.saturating_sub(self.opening.len()).min(bytes.len());
                self.opening.extend_from_slice(bytes.get(..room).unwrap_or_default());
                Ok(true)
            }
            Stream::Stderr => {
                self.tail.push(bytes);
                Ok(false)
            }
            Stream::System => {
                self.tail.push(bytes);
                Err(self.failure("was given up by the Docker engine"))
            }
        }
    }

    /// Nothing was heard for a while: a tool that is gone has no more to say, and one that hangs is not waited for.
    fn still_runs(&mut self, patience: Patience<'_>) -> Result<(), DumpError> {
        let state = self.state(patience)?;
        if state.running {
            return patience.overdue().map_or(Ok(()), |how| Err(self.failure(&how)));
        }
        Err(self.ended_wrongly("ended, and the end of its output got lost in the Docker engine"))
    }

    /// How it ended, after its output did.
    fn judge(&mut self, patience: Patience<'_>) -> Result<(), DumpError> {
        let end = Instant::now() + self.container.client.timing().settle;
        loop {
            let state = self.state(patience)?;
            match (state.running, state.exit_code) {
                (true, _) if Instant::now() < end => std::thread::sleep(END_LOOK),
                (true, _) => return Err(self.failure("still runs although its output has ended")),
                (false, Some(0)) => {
                    self.is_over = true;
                    return Ok(());
                }
                (false, Some(code)) => {
                    self.is_over = true;
                    return Err(self.ended_with(code));
                }
                (false, None) => return Err(self.ended_wrongly("ended without a status")),
            }
        }
    }

    fn state(&mut self, patience: Patience<'_>) -> Result<Exec, DumpError> {
        let asked = self.container.until(patience, self.container.client.exec(&self.exec));
        self.heard(asked)?.map_err(|cause| match cause.is_not_found() {
            true => self.ended_wrongly("cannot be asked how it ended"),
            false => self.failure(&format!("cannot be asked how it ended: {cause}")),
        })
    }

    fn heard<T>(&self, waited: Waited<T>) -> Result<T, DumpError> {
        match waited {
            Waited::Done(done) => Ok(done),
            Waited::Cancelled => Err(DumpError::Cancelled),
            Waited::Overdue(how) => Err(self.failure(&how)),
        }
    }

    fn ended_with(&mut self, code: i64) -> DumpError {
        if NOT_RUN.contains(&code) {
            let opening = String::from_utf8_lossy(&self.opening);
            if opening.contains("exec") {
                self.tail.push(opening.as_bytes());
            }
            let said = self.tail.text();
            if is_missing(&said) {
                return self.missing();
            }
            return failure(&self.name, &format!("could not be run (status {code})"), &said);
        }
        let signal = i32::try_from(code - BY_SIGNAL).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            Some(signal) => self.ended_wrongly(&format!("was killed ({signal})")),
            None => self.failure(&format!("ended with exit status {code}")),
        }
    }

    /// Something ended it that was not its own doing: the container's end is the likeliest.
    fn ended_wrongly(&self, how: &str) -> DumpError {
        let why = self.fate().map(|fate| format!("; the container {fate}"));
        self.failure(&format!("{how}{}", why.unwrap_or_default()))
    }

    /// What became of the container. An engine notes its end some time after those of the programs in it.
    fn fate(&self) -> Option<String> {
        let container = self.container;
        let id = Name::parse(&container.id).ok()?;
        let asked = async {
            loop {
                let found = container.client.container(&id).await;
                if found.as_ref().map_or(true, |found| found.fate(&container.started_at).is_some()) {
                    return found;
                }
                tokio::time::sleep(END_LOOK).await;
            }
        };
        match container.within(container.client.timing().settle, asked)? {
            Ok(found) => found.fate(&container.started_at),
            Err(error) => error.is_not_found().then(|| "was removed".to_owned()),
        }
    }

    fn broken(&self, cause: &docker::Error) -> DumpError {
        self.ended_wrongly(&format!("could not be listened to: {cause}"))
    }

    /// Some engines tell a missing program by refusing to start it.
    fn not_started(&mut self, cause: docker::Error) -> DumpError {
        if matches!(&cause, docker::Error::Refused { message, .. } if is_missing(message)) {
            self.is_over = true;
            return self.missing();
        }
        self.container.failed(cause)
    }

    fn missing(&self) -> DumpError {
        DumpError::ToolMissingInside { tool: self.tool.to_owned(), container: self.container.name.clone() }
    }

    fn failure(&self, how: &str) -> DumpError {
        failure(&self.name, how, &self.tail.text())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.container.end(&self.exec, &self.name);
        }
    }
}

/// A tool and its output.
pub struct Started<'a> {
    running: Running<'a>,
    attached: Attached,
}

impl Started<'_> {
    /// Hands the whole output on, and judges how the tool ended; gives what it warned of.
    ///
    /// # Errors
    /// [`DumpError::Cancelled`], [`DumpError::ToolMissingInside`], [`DumpError::Tool`], or what `take` said.
    pub fn pump(
        mut self,
        patience: Patience<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), DumpError>,
    ) -> Result<Vec<String>, DumpError> {
        while self.running.listen(&mut self.attached, patience)? {
            // Here and not only while nothing comes: a tool that says much may give nothing.
            if let Some(how) = patience.overdue() {
                return Err(self.running.failure(&how));
            }
            if let Err(error) = self.hand_on(patience, &mut take) {
                return Err(self.better_reason(error, patience));
            }
        }
        self.running.judge(patience)?;
        Ok(self.running.tail.warnings())
    }

    /// Hands on what was read.
    fn hand_on(
        &mut self,
        patience: Patience<'_>,
        take: &mut impl FnMut(&[u8]) -> Result<(), DumpError>,
    ) -> Result<(), DumpError> {
        while let Some((stream, bytes)) =
            self.attached.next_piece().map_err(|cause| self.running.broken(&cause))?
        {
            if self.running.sort(stream, &bytes)? {
                take(&bytes)?;
            }
            if patience.cancel.is_cancelled() {
                return Err(DumpError::Cancelled);
            }
        }
        Ok(())
    }

    /// A tool whose output is wrong often says why and fails: then that is the reason.
    fn better_reason(&mut self, error: DumpError, patience: Patience<'_>) -> DumpError {
        if !matches!(error, DumpError::Form { .. }) {
            return error;
        }
        let patience = Patience { limit: Some((Instant::now() + LAST_WORDS, LAST_WORDS)), ..patience };
        let mut rest = |_: &[u8]| Ok(());
        loop {
            match self
                .hand_on(patience, &mut rest)
                .and_then(|()| self.running.listen(&mut self.attached, patience))
            {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return error,
            }
        }
        match self.running.judge(patience) {
            Err(better) if self.running.is_over => better,
            Ok(()) | Err(_) => error,
        }
    }
}

fn failure(tool: &str, how: &str, said: &str) -> DumpError {
    DumpError::Tool { tool: tool.to_owned(), how: how.to_owned(), said: said.to_owned() }
}

/// An engine may repeat what it was asked, the environment too.
fn masked(cause: docker::Error, call: &Call) -> docker::Error {
    let docker::Error::Refused { what, status, message } = cause else { return cause };
    let mut words = Tail::new(call.mask());
    words.push(message.as_bytes());
    docker::Error::Refused { what, status, message: words.text() }
}

/// As runc, crun and Podman say it.
fn is_missing(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("executable file") && said.contains("not found")
        || said.contains("no such file or directory") && said.contains("exec")
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
