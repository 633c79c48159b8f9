//! A dump tool as a child process: started without a shell, read without being waited for, ended with all its own.
//!
//! - Its own process group, killed whole: TERM, a short grace, KILL. Also when this value is dropped.
//! - Its output is polled together with its errors, so that neither pipe can stop the other, and a stopped run is
//!   noticed while the tool is silent.
//! - How it ended is asked after its output ended: a tool that died half-way is a failure, never a short success.
//! - Of its errors the last 8 KiB are kept, without the secrets that it was given.
//! - Nothing is left of it when the agent is killed: `setpriv` asks the kernel to kill it with its parent (which is
//!   the run's reading thread), and where that tool is missing, its next write finds the pipe closed.

use super::DumpError;
use super::call::Call;
use super::tail::Tail;
use crate::backup::cancel::Cancel;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as Process, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a silent tool is waited for before the run's switch is looked at again.
const LOOK_MS: u16 = 50;

/// After TERM: enough for a tool to tell its server, little beside the 2 s in which a cancelled run must end.
const TERM_GRACE: Duration = Duration::from_millis(300);

/// Between two looks at a tool that is ending.
const EXIT_LOOK: Duration = Duration::from_millis(5);

/// Read at once. The kernel's pipe is made as large, so that the tool seldom waits for us.
const READ_LEN: usize = 256 * 1024;

/// Kept of an answer: it is a line or two, not a dump.
const ANSWER_LEN: usize = 64 * 1024;

/// What a tool that was refused as a dump may go on saying before it is killed: its last words explain more than the
/// first wrong byte.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running tool.
pub struct Child {
    process: Process,
    group: Pid,
    reaped: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    tail: Tail,
    name: String,
}

/// One look at the tool.
enum Look {
    /// So many bytes of output are in the buffer.
    Output(usize),
    /// It said nothing, or only on its standard error.
    Quiet,
    /// Both pipes are closed.
    Ended,
}

impl Child {
    /// Starts the tool.
    ///
    /// # Errors
    /// [`DumpError::ToolStart`]
    pub fn start(call: &Call) -> Result<Self, DumpError> {
        let failed = |cause| DumpError::ToolStart { tool: call.name().to_owned(), cause };
        let mut command = call.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = command.spawn().map_err(failed)?;
        let group = i32::try_from(process.id()).map(Pid::from_raw).map_err(io::Error::other);
        let stdout = process.stdout.take();
        let stderr = process.stderr.take();
        if let Some(stdout) = &stdout {
            // A host may allow less: then the tool waits a little more often.
            let _ = fcntl(stdout, FcntlArg::F_SETPIPE_SZ(READ_LEN as i32));
        }
        let group = group.map_err(failed)?;
        let tail = Tail::new(call.secrets());
        Ok(Self { process, group, reaped: false, stdout, stderr, tail, name: call.name().to_owned() })
    }

    /// Hands the whole output on, and judges how the tool ended.
    ///
    /// # Errors
    /// [`DumpError::Cancelled`], [`DumpError::Tool`], or what `take` said.
    pub fn pump(
        mut self,
        patience: Patience<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), DumpError>,
    ) -> Result<(), DumpError> {
        let mut buffer = vec![0; READ_LEN];
        loop {
            self.check(patience)?;
            match self.look(&mut buffer)? {
                Look::Output(len) => {
                    if let Err(error) = take(buffer.get(..len).unwrap_or_default()) {
                        return Err(self.better_reason(error, &mut buffer, patience));
                    }
                }
                Look::Quiet => {}
                Look::Ended => break,
            }
        }
        let status = self.wait(patience)?;
        if status.success() { Ok(()) } else { Err(self.failure(&how_it_ended(status))) }
    }

    /// A short answer. A tool that takes longer than `limit` is ended.
    ///
    /// # Errors
    /// [`DumpError::Cancelled`], [`DumpError::Tool`].
    pub fn answer(call: &Call, limit: Duration, cancel: &Cancel) -> Result<String, DumpError> {
        let patience = Patience { cancel, limit: Some((Instant::now() + limit, limit)) };
        let mut answer = Vec::new();
        Self::start(call)?.pump(patience, |bytes| {
            // The rest of a chatterbox is read and dropped.
            let room = ANSWER_LEN.saturating_sub(answer.len()).min(bytes.len());
            answer.extend_from_slice(bytes.get(..room).unwrap_or_default());
            Ok(())
        })?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn check(&mut self, patience: Patience<'_>) -> Result<(), DumpError> {
        if patience.cancel.is_cancelled() {
            return Err(DumpError::Cancelled);
        }
        match patience.limit {
            Some((end, limit)) if Instant::now() >= end => {
                Err(self.failure(&format!("gave no answer for {} s and was ended", limit.as_secs())))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits a moment for output, and takes what the tool says on its standard error.
    fn look(&mut self, buffer: &mut [u8]) -> Result<Look, DumpError> {
        let (out, err) = match (&self.stdout, &self.stderr) {
            (None, None) => return Ok(Look::Ended),
            (Some(out), Some(err)) => ready([Some(out.as_fd()), Some(err.as_fd())]),
            (Some(out), None) => ready([Some(out.as_fd()), None]),
            (None, Some(err)) => ready([None, Some(err.as_fd())]),
        }
        .map_err(|cause| self.broken(cause))?;
        if !out && !err && self.has_exited()? {
            // What it left behind holds the pipes: it goes too, and the end of the output comes.
            self.signal(Signal::SIGKILL);
        }
        if err && let Some(stderr) = &mut self.stderr {
            let mut said = [0; 4096];
            match read(stderr, &mut said) {
                Ok(0) => self.stderr = None,
                Ok(len) => self.tail.push(said.get(..len).unwrap_or_default()),
                Err(cause) => return Err(self.broken(cause)),
            }
        }
        if out && let Some(stdout) = &mut self.stdout {
            match read(stdout, buffer) {
                Ok(0) => self.stdout = None,
                Ok(len) => return Ok(Look::Output(len)),
                Err(cause) => return Err(self.broken(cause)),
            }
        }
        Ok(Look::Quiet)
    }

    /// A tool whose output is wrong often says why and fails: then that is the reason.
    fn better_reason(&mut self, error: DumpError, buffer: &mut [u8], patience: Patience<'_>) -> DumpError {
        if !matches!(error, DumpError::Form { .. }) {
            return error;
        }
        let end = Instant::now() + LAST_WORDS;
        while Instant::now() < end && !patience.cancel.is_cancelled() {
            if let Ok(Look::Output(_) | Look::Quiet) = self.look(buffer) {
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
        while !self.has_exited()? {
            self.check(patience)?;
            std::thread::sleep(EXIT_LOOK);
        }
        self.reap().map_err(|cause| self.broken(cause))
    }

    /// Whether it has ended; its number stays taken until it is reaped.
    fn has_exited(&self) -> Result<bool, DumpError> {
        if self.reaped {
            return Ok(true);
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(self.broken(errno.into())),
        }
    }

    /// Ends what is left of the group, and only then gives the group's number back.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        let status = self.process.wait();
        self.reaped = true;
        status
    }

    fn signal(&self, signal: Signal) {
        if !self.reaped {
            // It may have ended this moment.
            let _ = killpg(self.group, signal);
        }
    }

    fn failure(&self, how: &str) -> DumpError {
        DumpError::Tool { tool: self.name.clone(), how: how.to_owned(), said: self.tail.text() }
    }

    fn broken(&self, cause: io::Error) -> DumpError {
        self.failure(&format!("could not be listened to: {cause}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + TERM_GRACE;
        // Its pipes stay open meanwhile: a tool that writes a last word is not ended by that.
        while Instant::now() < end && matches!(self.has_exited(), Ok(false)) {
            std::thread::sleep(EXIT_LOOK);
        }
        if let Err(error) = self.reap() {
            tracing::warn!(tool = self.name, %error, "a dump tool could not be waited for");
        }
    }
}

/// How long a tool may go on.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The run's switch.
    pub cancel: &'a Cancel,
    /// The end, and how long that was from the start.
    pub limit: Option<(Instant, Duration)>,
}

impl<'a> From<&'a Cancel> for Patience<'a> {
    fn from(cancel: &'a Cancel) -> Self {
        Self { cancel, limit: None }
    }
}

/// Which of the pipes has something to read, its end included. Waits a moment.
fn ready(pipes: [Option<BorrowedFd<'_>>; 2]) -> io::Result<(bool, bool)> {
    let mut polled: Vec<_> = pipes.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::from(LOOK_MS)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut answers = polled.iter().map(|fd| fd.any().unwrap_or(true));
    let mut of = |pipe: &Option<BorrowedFd<'_>>| pipe.is_some() && answers.next().unwrap_or(false);
    Ok((of(&pipes[0]), of(&pipes[1])))
}

/// Zero at the end. Interrupted reads are made again.
fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
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
