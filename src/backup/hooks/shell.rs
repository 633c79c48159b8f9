//! One shell command: a process group of its own, a limit of time, the end of what it said.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of the output, the end is kept (behaviour section 4).
pub const KEPT_OUTPUT_BYTES: usize = 8 * 1024;

/// How often a command without output is looked at: a stop and a limit are late by no more than this.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// From SIGTERM to SIGKILL: enough to remove a file, within what a cancelled run has (2 s) and what a
/// shutdown has (1.5 s for all of a run).
const TERM_GRACE: Duration = Duration::from_millis(400);

/// Read at once; also what a pipe holds at most.
const READ_BYTES: usize = 64 * 1024;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Code(i32),
    /// By a signal that is not ours.
    Signal(i32),
    /// Killed at its limit.
    TimedOut,
    /// Killed because it was told to stop.
    Stopped,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// The end of what it wrote to standard output and error, in the order in which it wrote.
    pub output: Vec<u8>,
    /// All that it wrote.
    pub output_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Runs `/bin/sh -c TEXT` with this environment and nothing else, until it ends, `limit` is over or `stop`
/// answers true. Whatever it left running in its process group is killed with it.
///
/// # Errors
/// Where it cannot be started, or not be waited for.
pub fn run(
    text: &str,
    environment: &[(String, OsString)],
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> io::Result<Ran> {
    let begin = Instant::now();
    let (mut reader, writer) = io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", text])
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut group = Group(shell.spawn()?);
    // It holds the writing ends, and while somebody does, the pipe has no end.
    drop(shell);

    let mut tail = Tail::default();
    let end = loop {
        tail.read(&mut reader, LOOK_INTERVAL)?;
        if let Some(end) = group.ended()? {
            break end;
        }
        if stop() {
            break group.terminate(&mut tail, &mut reader, End::Stopped)?;
        }
        if begin.elapsed() >= limit {
            break group.terminate(&mut tail, &mut reader, End::TimedOut)?;
        }
    };
    group.kill()?;
    // What the pipe still holds; who escaped from the group may go on writing for ever.
    for _ in 0..2 {
        tail.read(&mut reader, Duration::ZERO)?;
    }
    Ok(Ran { end, output: tail.take(), output_bytes: tail.bytes, took: begin.elapsed() })
}

/// The shell and what it started. Killed when this is dropped.
struct Group(Child);

impl Group {
    fn id(&self) -> Pid {
        // Process ids are far below 2^31.
        Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX))
    }

    /// Whether the shell has ended. It stays a zombie, so that its group's number cannot become another's.
    fn ended(&self) -> io::Result<Option<End>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.id()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(End::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(End::Signal(signal as i32))),
            Ok(_) | Err(Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// SIGTERM and a moment; the caller kills what is left.
    fn terminate(&self, tail: &mut Tail, reader: &mut PipeReader, end: End) -> io::Result<End> {
        let _ = killpg(self.id(), Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < TERM_GRACE && self.ended()?.is_none() {
            tail.read(reader, LOOK_INTERVAL)?;
        }
        Ok(end)
    }

    /// SIGKILL to whatever is left, and the shell is waited for.
    fn kill(&mut self) -> io::Result<()> {
        let _ = killpg(self.id(), Signal::SIGKILL);
        self.0.wait().map(drop)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Waited for already, unless something failed on the way.
        if let Ok(None) = self.0.try_wait() {
            let _ = self.kill();
        }
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail {
    kept: Vec<u8>,
    bytes: u64,
    closed: bool,
}

impl Tail {
    /// Reads once, where there is something within `wait`.
    fn read(&mut self, reader: &mut PipeReader, wait: Duration) -> io::Result<()> {
        if self.closed {
            std::thread::sleep(wait);
            return Ok(());
        }
        let ready = {
            let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO)) {
                Ok(count) => count > 0,
                Err(Errno::EINTR) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if !ready {
            return Ok(());
        }
        let mut buffer = [0; READ_BYTES];
        let count = reader.read(&mut buffer)?;
        self.closed = count == 0;
        self.bytes += count as u64;
        self.kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let surplus = self.kept.len().saturating_sub(KEPT_OUTPUT_BYTES);
        self.kept.drain(..surplus);
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    fn quick(text: &str) -> Ran {
        run(text, &[("PATH".into(), "/usr/bin:/bin".into())], LONG, &|| false).unwrap()
    }

    /// Whether the process is gone, or a zombie that nobody has waited for, within a moment: a kill is not done when
    /// it returns.
    fn gone(pid: &str) -> bool {
        let path = format!("/proc/{}/stat", pid.trim());
        (0..400).any(|_| {
            let stat = std::fs::read_to_string(&path).unwrap_or_default();
            let gone = stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ");
            if !gone {
                std::thread::sleep(Duration::from_millis(5));
            }
            gone
        })
    }

    #[test]
    fn output_and_status_come_back_and_only_the_given_environment_goes_in() {
        let ran = quick("echo out; echo err >&2; env; exit 7");
        assert_eq!(ran.end, End::Code(7));
        let text = String::from_utf8(ran.output).unwrap();
        assert!(text.starts_with("out\nerr\n"), "{text}");
        let names: Vec<_> = text.lines().skip(2).filter_map(|line| line.split('=').next()).collect();
        assert!(names.iter().all(|name| ["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{names:?}");
        assert_eq!(quick("kill -9 $$").end, End::Signal(9));
        assert_eq!(quick("exec >&- 2>&-; sleep 0.2; exit 3").end, End::Code(3), "no output is no end");
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let ran = quick("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done");
        assert_eq!(ran.output.len(), KEPT_OUTPUT_BYTES);
        assert!(ran.output.ends_with(b"line 4999\n"));
        assert!(ran.output_bytes > 2 * KEPT_OUTPUT_BYTES as u64);
    }

    #[test]
    fn at_its_limit_a_command_and_all_its_children_are_killed_even_stubborn_ones() {
        let begin = Instant::now();
        let text = "trap '' TERM; sleep 300 & echo $!; (trap '' TERM; sleep 301) & echo $!; wait; sleep 302";
        let ran = run(text, &[], Duration::from_millis(300), &|| false).unwrap();
        assert_eq!(ran.end, End::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(5));
        for pid in String::from_utf8(ran.output).unwrap().lines() {
            assert!(gone(pid), "{pid} is left");
        }
    }

    #[test]
    fn what_a_command_leaves_behind_in_its_group_is_killed_and_not_waited_for() {
        let begin = Instant::now();
        let ran = quick("sleep 300 & echo $!");
        assert_eq!(ran.end, End::Code(0));
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(gone(&String::from_utf8(ran.output).unwrap()));
    }

    #[test]
    fn a_stop_ends_a_command_at_once_and_lets_it_clear_up() {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| {
                run("trap 'echo bye; exit' TERM; while :; do sleep 0.05; done", &[], LONG, &|| {
                    stop.load(Ordering::SeqCst)
                })
            });
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::SeqCst);
            let begin = Instant::now();
            let ran = ran.join().unwrap().unwrap();
            assert_eq!(ran.end, End::Stopped);
            assert!(ran.output.ends_with(b"bye\n"), "{ran:?}");
            assert!(begin.elapsed() < Duration::from_secs(2));
        });
    }

    #[test]
    fn a_command_that_never_stops_writing_is_still_stopped() {
        let ran =
            run("yes", &[("PATH".into(), "/usr/bin:/bin".into())], Duration::from_millis(200), &|| false)
                .unwrap();
        assert_eq!(ran.end, End::TimedOut);
        assert_eq!(ran.output.len(), KEPT_OUTPUT_BYTES);
    }
}
