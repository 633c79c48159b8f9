//! Runs the real binary: its own process group, its output kept and shown when the test fails, and
//! nothing left behind.

use super::eventually;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The binary of this build.
pub const BINARY: &str = env!("CARGO_BIN_EXE_backupy-agent");

/// A command of the real binary that inherits nothing of the caller's `BACKUPY_*` settings,
/// of its init system or of its proxies.
pub fn command() -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_uppercase();
        let foreign = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"];
        if text.starts_with("BACKUPY_") || text.ends_with("_PROXY") || foreign.contains(&text.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// One life of the binary. Killed, with everything that it started, when it goes out of scope.
pub struct Agent {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    exit: Option<ExitStatus>,
}

impl Agent {
    /// `backupy-agent run` on a state directory, in the clear against `server_url`, logs as JSON, no
    /// exporter, no look at Docker. What differs is set by `adjust`.
    pub fn run(state: &Path, server_url: &str, key: &str, adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = command();
        command
            .arg("run")
            .env("BACKUPY_SERVER_URL", server_url)
            .env("BACKUPY_AGENT_KEY", key)
            .env("BACKUPY_STATE_DIR", state)
            .env("BACKUPY_DEV_ALLOW_INSECURE", "true")
            .env("BACKUPY_METRICS_LISTEN_ADDR", "")
            .env("BACKUPY_DISABLE_DISCOVERY", "true")
            .env("BACKUPY_LOG_FORMAT", "json")
            .env("BACKUPY_LOG_LEVEL", "debug");
        adjust(&mut command);
        Self::spawn(command)
    }

    /// Any command of the binary, with its output captured.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            reader(child.stdout.take().expect("piped"), Arc::clone(&lines)),
            reader(child.stderr.take().expect("piped"), Arc::clone(&lines)),
        ];
        Self { child, lines, readers, exit: None }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line that it wrote so far, standard output and error as they came.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Waits for a line of its output that contains `text`.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> String {
        eventually(&format!("a line of output with {text:?}"), timeout, || {
            self.output().into_iter().find(|line| line.contains(text))
        })
    }

    /// Asks it to end: SIGTERM, to the agent alone.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Any signal, to the agent alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal).expect("the agent is there to be signalled");
    }

    /// `kill -9`: it ends without a word. Answers once it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        if self.exit.is_none() {
            let _ = self.child.kill();
        }
        self.wait(Duration::from_secs(10))
    }

    /// Waits for its end, and for the end of its output.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        if let Some(status) = self.exit {
            return status;
        }
        let status = eventually("the end of the process", timeout, || {
            self.child.try_wait().expect("our own child can be waited for")
        });
        self.exit = Some(status);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    /// Waits for its end and answers the exit code; fails the test when a signal ended it.
    #[track_caller]
    pub fn wait_for_code(&mut self, timeout: Duration) -> i32 {
        let status = self.wait(timeout);
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.exit.is_none() && self.child.try_wait().expect("our own child can be waited for").is_none()
    }

    /// Resident memory now, bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// The most resident memory since it started, bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// Processor time so far, of all its threads, user and system.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the agent runs");
        let nanos = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum();
        Duration::from_nanos(nanos)
    }

    /// `/proc/PID/cmdline`, arguments separated by blanks.
    pub fn cmdline(&self) -> String {
        let raw = fs::read(format!("/proc/{}/cmdline", self.pid())).unwrap_or_default();
        String::from_utf8_lossy(&raw).replace('\0', " ")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {field} in /proc/{}/status", self.pid()))
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is an i32"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its group outlives it where it left children behind.
        let _ = killpg(self.id(), Signal::SIGKILL);
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- output of pid {}", self.child.id());
            for line in self.output() {
                eprintln!("{line}");
            }
            eprintln!("--- end of output");
        }
    }
}

fn reader(stream: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Ok(mut lines) = lines.lock() {
                lines.push(text);
            }
            line.clear();
        }
    })
}
