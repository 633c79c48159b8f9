//! Processes of the demo: their output in a file, and none of them outlives it.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// An agent drains for 10 s at most (behaviour section 5), and then some.
const STOP_WITHIN: Duration = Duration::from_secs(12);
/// What a failure shows of a log.
const TAIL_LINES: usize = 8;

/// A process of this binary.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// This binary, with none of the settings that the caller has for a real agent.
///
/// # Errors
/// When the kernel does not tell where the binary is.
pub fn this_binary() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this binary's path")?);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let of_init = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"];
        if upper.starts_with("BACKUPY_") || upper.ends_with("_PROXY") || of_init.contains(&upper.as_str()) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

impl Process {
    /// Starts it in a process group of its own, so that Ctrl-C reaches only the demo, which ends the others in order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Starts a command whose output is wanted in a file, and whose errors and progress bar somebody may see.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn tool(name: &'static str, mut command: Command, output: &Path, errors: Stdio) -> Result<Self> {
        let file = fs::File::create(output).with_context(|| output.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log: output.to_owned() })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// See above.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!(
                    "the {} ended ({status}). The end of {}:\n{}",
                    self.name,
                    self.log.display(),
                    self.tail()
                )
            }
        }
    }

    /// SIGKILL: it ends without a word.
    ///
    /// # Errors
    /// When it was gone before.
    pub fn kill(&mut self) -> Result<()> {
        self.must_run()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub async fn stop(&mut self) -> Result<()> {
        self.must_run()?;
        killpg(self.group()?, Signal::SIGTERM)?;
        let status = self.wait(STOP_WITHIN).await?;
        if !status.success() {
            bail!(
                "the {} did not end well ({status}). The end of {}:\n{}",
                self.name,
                self.log.display(),
                self.tail()
            );
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > within {
                bail!("the {} did not end within {} s", self.name, within.as_secs());
            }
            actix_rt::time::sleep(POLL).await;
        }
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }

    fn group(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // An error or Ctrl-C: no time for ceremony, but some for what it started.
        if let Ok(group) = self.group() {
            let _ = killpg(group, Signal::SIGTERM);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(2) && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}
