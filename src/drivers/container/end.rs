//! Ending a tool inside a container. Docker has no request for that, and closing the connection does not do it: the tool
//! would dump on into the void, its locks held.
//!
//! Every tool has a mark in its environment. Who has it is looked for in two places:
//! - among the processes of the host, where the agent may see them and their environment;
//! - by a shell of the container itself. Nothing of what anybody named is in that script's text.
//!
//! Both find what the tool started, and what an earlier life of the agent left. TERM, a short grace, KILL. Where neither
//! way works, that is told, and the tool runs to its own end.

use super::Container;
use super::mark::Which;
use crate::docker::{ExecId, Program, Stream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// From TERM to KILL: enough to tell the server, within what a cancelled run has.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// After KILL; a paused container's programs end when it goes on.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Between two looks at a tool that is ending.
const LOOK: Duration = Duration::from_millis(10);

/// For all of it: an engine that hangs must not hold a run's end for ever.
const LIMIT: Duration = Duration::from_secs(8);

/// `$1` is the mark's beginning, `$2` the mark that is spared, `$3` the signal; says how many processes it found. `cat` and a
/// POSIX shell are all that it needs.
const SCRIPT: &str = r#"n=0
for p in /proc/[0-9]*; do
    case "$(cat "$p/environ" 2>/dev/null)" in
    *"$2"*) ;;
    *"$1"*) kill -"$3" "${p#/proc/}" 2>/dev/null && n=$((n + 1)) ;;
    esac
done
echo "$n""#;

/// For the script, where nobody is spared: no tool has it.
const NOBODY: &str = "BACKUPY_EXEC=nobody";

impl Container {
    /// Ends the tool.
    pub fn end(&self, exec: &ExecId, tool: &str) {
        let ended = self.within(LIMIT, self.end_everywhere(exec));
        if ended != Some(true) {
            tracing::warn!(
                tool,
                "the tool inside the container could not be ended: it goes on until its dump is whole, unread"
            );
        }
    }

    /// Ends tools that nobody waits for any more.
    pub(super) fn end_left(&self, which: Which<'_>) {
        let told = async {
            let count = self.tell(which, Signal::SIGTERM).await;
            if count > 0 {
                sleep(TERM_GRACE).await;
                self.tell(which, Signal::SIGKILL).await;
            }
            count
        };
        if let Some(count @ 1..) = self.within(LIMIT, told) {
            tracing::info!(container = self.name, count, "ended dump tools that were left in the container");
        }
    }

    /// How many processes were told, by whichever way finds some.
    async fn tell(&self, which: Which<'_>, signal: Signal) -> usize {
        match by_host(which, signal) {
            0 => self.by_shell(which, signal).await,
            count => count,
        }
    }

    async fn end_everywhere(&self, exec: &ExecId) -> bool {
        for (signal, grace) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, KILL_GRACE)] {
            let told = by_host(self.mark.own(), signal);
            // One that has not ended and is not seen here: in a container beside the agent's own, or another user's.
            if told == 0 {
                match self.client.exec(exec).await {
                    Ok(state) if !state.running => return true,
                    Ok(_) => drop(self.by_shell(self.mark.own(), signal).await),
                    Err(error) => return error.is_not_found(),
                }
            }
            if self.is_gone(exec, grace, told > 0).await {
                return true;
            }
        }
        false
    }

    /// Whether the tool ends within the grace. An engine that does not say has ended itself: then the host is asked.
    async fn is_gone(&self, exec: &ExecId, grace: Duration, is_seen: bool) -> bool {
        let end = Instant::now() + grace;
        loop {
            let is_gone = match self.client.exec(exec).await {
                Ok(state) => !state.running,
                Err(error) => error.is_not_found() || is_seen && marked(self.mark.own()).next().is_none(),
            };
            if is_gone || Instant::now() >= end {
                return is_gone;
            }
            sleep(LOOK).await;
        }
    }

    /// How many processes of the container were told; 0 also where it has no shell.
    async fn by_shell(&self, which: Which<'_>, signal: Signal) -> usize {
        let name = signal.as_str().trim_start_matches("SIG");
        let spared = which.spared.unwrap_or(NOBODY);
        let program = Program::new(vec!["sh", "-c", SCRIPT, "sh", which.begins, spared, name], Vec::new());
        let said = async {
            let exec = self.client.create(&self.id, &program).await?;
            let mut attached = self.client.start(&exec, None).await?;
            let mut said = String::new();
            while attached.wait().await? {
                while let Some((stream, bytes)) = attached.next_piece()? {
                    if stream == Stream::Stdout && said.len() < 16 {
                        said.push_str(&String::from_utf8_lossy(&bytes));
                    }
                }
            }
            Ok::<_, crate::docker::Error>(said)
        };
        said.await.ok().and_then(|said| said.trim().parse().ok()).unwrap_or(0)
    }
}

/// How many processes of this host were told.
fn by_host(which: Which<'_>, signal: Signal) -> usize {
    marked(which).filter(|pid| kill(*pid, signal).is_ok()).count()
}

/// The processes of this host that are such tools, as far as the agent may see.
fn marked(which: Which<'_>) -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(move |number: i32| {
        let variables = std::fs::read(format!("/proc/{number}/environ")).ok()?;
        variables.split(|byte| *byte == 0).any(|one| which.has(one)).then(|| Pid::from_raw(number))
    })
}
