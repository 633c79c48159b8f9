//! Programs of a throwaway server: as the server's user, in its place, ended with this process.

use super::super::super::opening::Failure;
use super::place::{Place, ensure_room};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A server that is not up by then will not come. A slow disk takes its time to load a large file.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Between two looks at a server.
const LOOK: Duration = Duration::from_millis(50);

/// Long enough to end well, for a server that may take its data with it.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// After which it is killed, when nobody needs its data.
const KILL_GRACE: Duration = Duration::from_secs(3);

/// Of what a program said, where all of it matters.
const LOG_BYTES: u64 = 1024 * 1024;

/// The end of what a program said, and of that the last lines.
const SAID_BYTES: u64 = 4096;
const SAID_LINES: usize = 4;

/// A program in the place, whose end follows this process's: the kernel sends it `when_killed` then.
pub fn program(place: &Place, program: impl AsRef<OsStr>, when_killed: &str) -> Command {
    let mut command = match crate::process::setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            if let Some(user) = place.user() {
                command
                    .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
                    .arg("--clear-groups");
            }
            command.args(["--pdeathsig", when_killed, "--"]).arg(program);
            command
        }
        None => {
            let mut command = Command::new(program);
            if let Some(user) = place.user() {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            command
        }
    };
    let path =
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into());
    command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8").env("HOME", place.path());
    command.env("TMPDIR", place.path()).current_dir(place.path()).stdin(Stdio::null()).process_group(0);
    command
}

/// A program with its output in a file, for its last words.
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
    stdin: Option<ChildStdin>,
    reaped: bool,
}

impl Running {
    /// Starts it. Its output goes to a file of that name in the place.
    ///
    /// # Errors
    /// [`Failure::Server`]
    pub fn start(place: &Place, name: &'static str, mut command: Command) -> Result<Self, Failure> {
        let failed =
            |cause: io::Error| Failure::Server { name, how: format!("could not be started: {cause}") };
        let path = place.join(&format!("{name}.log"));
        let log = File::create(&path).map_err(failed)?;
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        Ok(Self { name, child, log: path, stdin, reaped: false })
    }

    /// The same with a pipe to its standard input.
    ///
    /// # Errors
    /// [`Failure::Server`]
    pub fn fed(place: &Place, name: &'static str, mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped());
        Self::start(place, name, command)
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// Of the pipe: it has ended.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until it has done its work. The disk may fill up meanwhile: indexes are made at the end.
    ///
    /// # Errors
    /// How it failed, with its last words; or that there is no room for it to go on.
    pub fn wait(&mut self) -> Result<(), String> {
        self.stdin = None;
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                self.reaped = true;
                return if status.success() { Ok(()) } else { Err(self.told(status)) };
            }
            ensure_room(&self.log).map_err(|error| error.to_string())?;
            std::thread::sleep(LOOK / 5);
        }
    }

    /// Waits until a server answers.
    ///
    /// # Errors
    /// [`Failure::Server`] with its last words.
    pub fn until(&mut self, mut is_up: impl FnMut() -> bool) -> Result<(), Failure> {
        let end = Instant::now() + START_LIMIT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.reaped = true;
                return Err(Failure::Server { name: self.name, how: self.told(status) });
            }
            if is_up() {
                return Ok(());
            }
            if Instant::now() >= end {
                let how = format!("did not answer within {} s{}", START_LIMIT.as_secs(), self.said());
                return Err(Failure::Server { name: self.name, how });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends a server that must keep what it has.
    ///
    /// # Errors
    /// [`Failure::Server`]
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.signal(Signal::SIGTERM);
        match self.ended_within(STOP_GRACE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Failure::Server { name: self.name, how: self.told(status) }),
            None => Err(Failure::Server { name: self.name, how: "did not end when it was asked to".into() }),
        }
    }

    /// Ends it at once, in a way in which it leaves nothing behind.
    pub fn end_with(&mut self, signal: Signal) {
        self.signal(signal);
        let _ = self.ended_within(KILL_GRACE);
    }

    fn ended_within(&mut self, grace: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + grace;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.reaped = true;
                return Some(status);
            }
            std::thread::sleep(LOOK / 5);
        }
        None
    }

    fn signal(&self, signal: Signal) {
        if !self.reaped
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // It may have ended this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn told(&self, status: ExitStatus) -> String {
        format!("ended with {status}{}", self.said())
    }

    /// The lines of what it said that have that text; None where it said too much to tell.
    pub fn lines_with(&self, text: &str) -> Option<Vec<String>> {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.log).and_then(|file| file.take(LOG_BYTES).read_to_end(&mut bytes)).ok()?;
        let said = String::from_utf8_lossy(&bytes);
        let found = said.lines().filter(|line| line.contains(text)).map(lines).collect();
        ((read as u64) < LOG_BYTES).then_some(found)
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let words = last_words(&self.log);
        if words.is_empty() { words } else { format!(": {words}") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.stdin = None;
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// What a program answers.
///
/// # Errors
/// How it failed, with its last words.
pub fn answer(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ended with {}: {}", output.status, lines(&said)))
}

fn last_words(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(SAID_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(SAID_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    lines(&String::from_utf8_lossy(&read().unwrap_or_default()))
}

/// The last lines as one, fit for a terminal; those that speak of an error, where some do.
fn lines(text: &str) -> String {
    let mut all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_error = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.contains("error") || line.contains("fatal")
    };
    if all.iter().any(is_error) {
        all.retain(is_error);
    }
    let last = all.get(all.len().saturating_sub(SAID_LINES)..).unwrap_or_default().join("; ");
    last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_tell_the_reason_are_kept() {
        assert_eq!(lines("one\n\n two \nthree\nfour\nfive\n"), "two; three; four; five");
        assert_eq!(lines("[ERROR] it's \x1b[1mfull\nPlease read the manual\n"), "[ERROR] it's  [1mfull");
        assert_eq!(lines(""), "");
    }
}
