//! A dump tool: a child process whose output is a dump or an answer, and whose end is judged after it.
//!
//! How it ended is asked after its output ended: a tool that died half-way is a failure, never a short success.

use super::DumpError;
use super::call::Call;
use super::patience::{LAST_WORDS, Patience};
use crate::process::{EXIT_LOOK, Group, Heard, READ_LEN, Streams, Tail};
use nix::sys::signal::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

/// A running tool.
pub struct Child {
    group: Group,
    name: String,
}

impl Child {
    /// Starts the tool.
    ///
    /// # Errors
    /// [`DumpError::ToolStart`]
    pub fn start(call: &Call) -> Result<Self, DumpError> {
        let failed = |cause| DumpError::ToolStart { tool: call.name().to_owned(), cause };
        let group = Group::start(call.command(), Streams::Apart, Tail::new(call.mask())).map_err(failed)?;
        Ok(Self { group, name: call.name().to_owned() })
    }

    /// Hands the whole output on, and judges how the tool ended; gives what it warned of.
    ///
    /// # Errors
    /// [`DumpError::Cancelled`], [`DumpError::Tool`], or what `take` said.
    pub fn pump(
        mut self,
        patience: Patience<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), DumpError>,
    ) -> Result<Vec<String>, DumpError> {
        let mut buffer = vec![0; READ_LEN];
        loop {
            self.check(patience)?;
            match self.listen(&mut buffer)? {
                Heard::Output(len) => {
                    if let Err(error) = take(buffer.get(..len).unwrap_or_default()) {
                        return Err(self.better_reason(error, &mut buffer, patience));
                    }
                }
                Heard::Quiet => {}
                Heard::End => break,
            }
        }
        let status = self.wait(patience)?;
        if status.success() {
            Ok(self.group.tail().warnings())
        } else {
            Err(self.failure(&how_it_ended(status)))
        }
    }

    fn check(&self, patience: Patience<'_>) -> Result<(), DumpError> {
        if patience.cancel.is_cancelled() {
            return Err(DumpError::Cancelled);
        }
        patience.overdue().map_or(Ok(()), |how| Err(self.failure(&how)))
    }

    fn listen(&mut self, buffer: &mut [u8]) -> Result<Heard, DumpError> {
        let heard = self.group.listen(buffer);
        heard.map_err(|cause| self.broken(cause))
    }

    /// A tool whose output is wrong often says why and fails: then that is the reason.
    fn better_reason(&mut self, error: DumpError, buffer: &mut [u8], patience: Patience<'_>) -> DumpError {
        if !matches!(error, DumpError::Form { .. }) {
            return error;
        }
        let end = Instant::now() + LAST_WORDS;
        while Instant::now() < end && !patience.cancel.is_cancelled() {
            if let Ok(Heard::Output(_) | Heard::Quiet) = self.listen(buffer) {
                continue;
            }
            return match self.wait(Patience { limit: Some((end, LAST_WORDS)), ..patience }) {
                Ok(status) if !status.success() => self.failure(&how_it_ended(status)),
                Ok(_) | Err(_) => error,
            };
        }
        error
    }

    fn wait(&mut self, patience: Patience<'_>) -> Result<ExitStatus, DumpError> {
        while !self.group.has_exited().map_err(|cause| self.broken(cause))? {
            self.check(patience)?;
            std::thread::sleep(EXIT_LOOK);
        }
        let status = self.group.reap();
        status.map_err(|cause| self.broken(cause))
    }

    fn failure(&self, how: &str) -> DumpError {
        DumpError::Tool { tool: self.name.clone(), how: how.to_owned(), said: self.group.tail().text() }
    }

    fn broken(&self, cause: io::Error) -> DumpError {
        self.failure(&format!("could not be listened to: {cause}"))
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => {
            let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |s| s.to_string());
            format!("was killed ({name})")
        }
        (None, None) => "ended without a status".to_owned(),
    }
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
