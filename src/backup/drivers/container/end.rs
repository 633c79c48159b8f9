//! Ending a tool inside a container. Docker has no request for that, and closing the connection does not do it: the tool
//! would dump on into the void, its locks held.
//!
//! Two ways, the first that works:
//! - By its number on the host, where the agent sees that process, it belongs to the container, and the agent may.
//! - By a shell of the container that looks for the mark in every process's environment. That also finds what the tool
//!   started, and what an earlier life of the agent left. No name of anybody's is in that script's text.
//!
//! TERM, a short grace, KILL. Where neither way works, that is told, and the tool runs to its own end.

use super::Container;
use crate::docker::{ExecId, Program, Stream};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};
use std::time::Duration;
use tokio::time::sleep;

/// From TERM to KILL: enough to tell the server, within what a cancelled run has.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// Between two looks at a tool that is ending.
const LOOK: Duration = Duration::from_millis(10);

/// After KILL; a paused container's programs end when it goes on.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// For all of it: an engine that hangs must not hold a run's end for ever.
const LIMIT: Duration = Duration::from_secs(8);

/// `$1` is the mark, `$2` the signal; says how many processes it found. `cat` and a POSIX shell are all that it needs.
const SCRIPT: &str = r#"n=0
for p in /proc/[0-9]*; do
    case "$(cat "$p/environ" 2>/dev/null)" in
    *"$1"*) kill -"$2" "${p#/proc/}" 2>/dev/null && n=$((n + 1)) ;;
    esac
done
echo "$n""#;

impl Container {
    /// Ends the tool.
    pub fn end(&self, exec: &ExecId, pid: i64, tool: &str) {
        let ended = self.within(LIMIT, self.end_both_ways(exec, pid));
        if ended != Some(true) {
            tracing::warn!(
                tool,
                "the tool inside the container could not be ended: it goes on until its dump is whole, unread"
            );
        }
    }

    /// What an earlier life of the agent left running for this target.
    pub(super) fn end_what_was_left(&self) {
        match self.within(LIMIT, self.by_shell(Signal::SIGTERM)).flatten() {
            Some(0) => {}
            Some(count) => {
                tracing::info!(container = self.name, count, "ended dump tools that an earlier life left");
            }
            None => {
                tracing::debug!(
                    container = self.name,
                    "no shell could look for dump tools of an earlier life"
                );
            }
        }
    }

    async fn end_both_ways(&self, exec: &ExecId, known: i64) -> bool {
        for (signal, grace) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, KILL_GRACE)] {
            let state = self.client.exec(exec).await;
            if let Ok(state) = &state
                && !state.running
            {
                return true;
            }
            let pid = state.map_or(known, |state| state.pid);
            let by_host = self.by_host(pid, signal);
            if !by_host {
                self.by_shell(signal).await;
            }
            match self.gone(exec, grace).await {
                Some(true) => return true,
                Some(false) => {}
                // The engine is gone as well: the host alone can be asked.
                None if !by_host => return false,
                None => sleep(TERM_GRACE).await,
            }
        }
        !self.is_inside(known)
    }

    /// Whether the process could be told. Its group, where it leads one: what it started is in it.
    fn by_host(&self, pid: i64, signal: Signal) -> bool {
        let Ok(number) = i32::try_from(pid) else { return false };
        if number <= 1 || !self.is_inside(pid) {
            return false;
        }
        let pid = Pid::from_raw(number);
        let told = if getpgid(Some(pid)) == Ok(pid) { killpg(pid, signal) } else { kill(pid, signal) };
        told.is_ok()
    }

    /// Whether the process of that number is one of this container: an agent in a container of its own sees other
    /// processes by the same numbers.
    fn is_inside(&self, pid: i64) -> bool {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        pid > 1 && groups.is_ok_and(|groups| groups.contains(&self.id))
    }

    /// How many processes were told; None where the container has no shell.
    async fn by_shell(&self, signal: Signal) -> Option<u64> {
        let name = signal.as_str().trim_start_matches("SIG");
        let program = Program::new(vec!["/bin/sh", "-c", SCRIPT, "sh", &self.mark, name], Vec::new());
        let exec = self.client.create(&self.id, &program).await.ok()?;
        let mut attached = self.client.start(&exec, None).await.ok()?;
        let mut said = String::new();
        while attached.wait().await.ok()? {
            while let Some((stream, bytes)) = attached.next().ok()? {
                if stream == Stream::Stdout && said.len() < 16 {
                    said.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
        }
        said.trim().parse().ok()
    }

    /// Waits until the tool has ended, so long at most; None where the engine does not say.
    async fn gone(&self, exec: &ExecId, within: Duration) -> Option<bool> {
        let end = tokio::time::Instant::now() + within;
        loop {
            match self.client.exec(exec).await {
                Ok(state) if !state.running => return Some(true),
                Ok(_) if tokio::time::Instant::now() >= end => return Some(false),
                Ok(_) => sleep(LOOK).await,
                Err(error) => return error.is_not_found().then_some(true),
            }
        }
    }
}
