//! Child processes of a run, dump tools and hooks alike: a process group each, heard while it runs, ended with all its
//! own.
//!
//! - Its own process group, killed whole: TERM, a short grace, KILL. Also when the value is dropped.
//! - Its pipes are polled together, so that neither can stop the other, and a stopped run is noticed while it is silent.
//! - It stays a zombie until what is left of its group was killed: the group's number cannot become another's.
//! - Of its words the end is kept, without the secrets that it was given ([`Tail`]).
//! - Nothing is left of it when the agent is killed: `setpriv` asks the kernel to kill it with its parent, which is the
//!   thread that started it (`lead`). Where that program is missing or older than the option, the next write finds the pipe
//!   closed.

mod cancel;
mod lead;
mod mask;
mod tail;
#[cfg(test)]
mod tests;
mod warnings;

pub use cancel::{Cancel, CancelOnDrop};
pub use lead::{Manners, command, setpriv};
pub use mask::Mask;
#[cfg(test)]
pub use tail::KEPT_LEN;
pub use tail::Tail;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a silent process is waited for before its run's switch and its limit are looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// From TERM to KILL: enough to tell a server or to remove a file, within what a cancelled run has (2 s) and what a
/// shutdown has (1.5 s for all of a run).
const TERM_GRACE: Duration = Duration::from_millis(400);

/// Between two looks at a process that is ending.
pub const EXIT_LOOK: Duration = Duration::from_millis(5);

/// Of output, read at once.
pub const READ_LEN: usize = 256 * 1024;

/// Of the kernel's pipe for output, as much as it gives to anybody: a tool seldom waits for us.
const PIPE_LEN: i32 = 1024 * 1024;

/// How long output gathers in a pipe of [`PIPE_LEN`] where it comes in small pieces. Tools write 4 KiB at a time: to be
/// woken for each costs us and them more than to read it. Such a pipe still takes a gigabyte a second.
const GATHER: Duration = Duration::from_millis(1);

/// Of words, read at once: what a pipe of the kernel's usual size holds.
const WORDS_LEN: usize = 64 * 1024;

/// Where a process writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Its standard output is wanted for itself; its words are on standard error.
    Apart,
    /// Both are its words, in the order in which it writes them.
    Together,
}

/// What came of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes of output are in the buffer.
    Output(usize),
    /// Words, which are kept, or nothing.
    Quiet,
    /// Nothing will come any more.
    End,
}

/// A running process and whatever it starts.
pub struct Group {
    leader: Child,
    id: Pid,
    reaped: bool,
    /// What it left behind has been killed.
    cleared: bool,
    /// Waited for before the next read of output.
    gather: Duration,
    /// The pipe is large enough to gather in.
    gathers: bool,
    output: Option<File>,
    words: Option<File>,
    tail: Tail,
}

impl Group {
    /// Starts it, with nothing to read.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(mut command: Command, streams: Streams, tail: Tail) -> io::Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        let together = match streams {
            Streams::Apart => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                None
            }
            Streams::Together => {
                let (reader, writer) = io::pipe()?;
                command.stdout(writer.try_clone()?).stderr(writer);
                Some(OwnedFd::from(reader))
            }
        };
        let mut leader = command.spawn()?;
        // It holds writing ends, and while somebody does, a pipe has no end.
        drop(command);
        let output = leader.stdout.take().map(OwnedFd::from).map(File::from);
        let words = together.or_else(|| leader.stderr.take().map(OwnedFd::from)).map(File::from);
        // A host may allow less: then the tool waits a little more often.
        let sized = |output, len| fcntl(output, FcntlArg::F_SETPIPE_SZ(len)).is_ok();
        let gathers = output.as_ref().is_some_and(|output: &File| sized(output, PIPE_LEN));
        if let Some(output) = output.as_ref().filter(|_| !gathers) {
            sized(output, READ_LEN as i32);
        }
        // The kernel's numbers are far below 2^31.
        let id = Pid::from_raw(i32::try_from(leader.id()).unwrap_or(i32::MAX));
        Ok(Self {
            leader,
            id,
            reaped: false,
            cleared: false,
            gather: Duration::ZERO,
            gathers,
            output,
            words,
            tail,
        })
    }

    /// Waits a moment for output, and keeps what the process says.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listen(&mut self, buffer: &mut [u8]) -> io::Result<Heard> {
        if self.output.is_none() && self.words.is_none() {
            return Ok(Heard::End);
        }
        let (output, words) = self.ready(LOOK)?;
        if !output && !words && self.has_exited()? {
            if self.cleared {
                // Who left the group holds a pipe and is silent: that is nobody's output.
                return Ok(Heard::End);
            }
            // What it left behind holds the pipes: it goes too, and their end comes.
            self.signal(Signal::SIGKILL);
            self.cleared = true;
        }
        if words {
            self.hear()?;
        }
        if output && let Some(pipe) = &mut self.output {
            std::thread::sleep(self.gather);
            let len = read(pipe, buffer)?;
            self.gather = if self.gathers && len < buffer.len() / 2 { GATHER } else { Duration::ZERO };
            match len {
                0 => self.output = None,
                len => return Ok(Heard::Output(len)),
            }
        }
        Ok(Heard::Quiet)
    }

    /// Whether it has ended; its number stays taken until it is reaped.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn has_exited(&self) -> io::Result<bool> {
        if self.reaped {
            return Ok(true);
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.id), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills what is left of the group, and only then gives its number back; takes its last words in.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        let status = self.leader.wait()?;
        self.reaped = true;
        // What the pipe still holds. Who left the group may go on writing for ever.
        for _ in 0..2 {
            if self.words.is_some() && self.ready_words(Duration::ZERO)? {
                self.hear()?;
            }
        }
        Ok(status)
    }

    /// Ends it: TERM, a moment for its last words, KILL.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + TERM_GRACE;
        // Its output stays open meanwhile: a tool that writes is not ended by that.
        while Instant::now() < end && !self.has_exited()? {
            if self.ready_words(EXIT_LOOK)? {
                self.hear()?;
            }
        }
        self.reap()
    }

    /// What it said.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    fn signal(&self, signal: Signal) {
        if !self.reaped {
            // It may have ended this moment.
            let _ = killpg(self.id, signal);
        }
    }

    /// Takes the next words in. They wait, or this does.
    fn hear(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.words else { return Ok(()) };
        let mut said = [0; WORDS_LEN];
        match read(pipe, &mut said)? {
            0 => self.words = None,
            len => self.tail.push(said.get(..len).unwrap_or_default()),
        }
        Ok(())
    }

    /// Which of output and words has something to read, its end included.
    fn ready(&self, wait: Duration) -> io::Result<(bool, bool)> {
        let pipes = [&self.output, &self.words];
        let open = pipes.into_iter().flatten();
        let mut polled: Vec<_> = open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        look(&mut polled, wait)?;
        let mut answers = polled.iter().map(|polled| polled.any().unwrap_or(true));
        let [output, words] = pipes.map(|pipe| pipe.is_some() && answers.next().unwrap_or(false));
        Ok((output, words))
    }

    /// Whether there are words, or their end.
    fn ready_words(&self, wait: Duration) -> io::Result<bool> {
        let pipe = self.words.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        look(&mut Vec::from_iter(pipe), wait)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if let Err(error) = self.terminate() {
            tracing::warn!(pid = self.id.as_raw(), %error, "a child process could not be waited for");
        }
    }
}

/// Whether any pipe has something. Waits so long where there is none.
fn look(polled: &mut [PollFd<'_>], wait: Duration) -> io::Result<bool> {
    match poll(polled, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Zero at the end. Interrupted reads are made again.
fn read(from: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
