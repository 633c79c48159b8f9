//! One shell command: a process group of its own, a limit of time, the end of what it said.

use crate::process::{EXIT_LOOK, Group, Heard, Manners, Mask, Streams, Tail, command};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, or by a signal that is not ours.
    Exit(ExitStatus),
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
    /// The end of what it wrote to standard output and error, in the order in which it wrote, secrets masked.
    pub output: String,
    /// Bytes that it wrote before that.
    pub lost_len: u64,
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
    mask: Mask,
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> io::Result<Ran> {
    let begin = Instant::now();
    let mut shell = command(Manners::default(), Path::new("/bin/sh"), ["-c", text].map(OsString::from));
    shell.envs(environment.iter().map(|(name, value)| (name, value))).current_dir("/");
    let mut shell = Group::start(shell, Streams::Together, Tail::new(mask))?;
    let end = loop {
        if shell.listen(&mut [])? == Heard::End {
            // It closed its output and goes on.
            std::thread::sleep(EXIT_LOOK);
        }
        if shell.has_exited()? {
            break End::Exit(shell.reap()?);
        }
        if stop() {
            shell.terminate()?;
            break End::Stopped;
        }
        if begin.elapsed() >= limit {
            shell.terminate()?;
            break End::TimedOut;
        }
    };
    let tail = shell.tail();
    Ok(Ran { end, output: tail.masked(), lost_len: tail.lost_len(), took: begin.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::KEPT_LEN;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    fn quick(text: &str) -> Ran {
        within(text, LONG)
    }

    fn within(text: &str, limit: Duration) -> Ran {
        run(text, &[("PATH".into(), "/usr/bin:/bin".into())], Mask::default(), limit, &|| false).unwrap()
    }

    fn code(code: i32) -> End {
        End::Exit(ExitStatus::from_raw(code << 8))
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
        assert_eq!(ran.end, code(7));
        let text = ran.output;
        assert!(text.starts_with("out\nerr\n"), "{text}");
        let names: Vec<_> = text.lines().skip(2).filter_map(|line| line.split('=').next()).collect();
        assert!(names.iter().all(|name| ["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)), "{names:?}");
        assert_eq!(quick("kill -9 $$").end, End::Exit(ExitStatus::from_raw(9)));
        assert_eq!(quick("exec >&- 2>&-; sleep 0.2; exit 3").end, code(3), "no output is no end");
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let ran = quick("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done");
        assert_eq!(ran.output.len(), KEPT_LEN);
        assert!(ran.output.ends_with("line 4999\n"));
        assert!(ran.lost_len > KEPT_LEN as u64);
    }

    #[test]
    fn at_its_limit_a_command_and_all_its_children_are_killed_even_stubborn_ones() {
        let begin = Instant::now();
        let text = "trap '' TERM; sleep 300 & echo $!; (trap '' TERM; sleep 301) & echo $!; wait; sleep 302";
        let ran = within(text, Duration::from_millis(300));
        assert_eq!(ran.end, End::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(5));
        for pid in ran.output.lines() {
            assert!(gone(pid), "{pid} is left");
        }
    }

    #[test]
    fn what_a_command_leaves_behind_in_its_group_is_killed_and_not_waited_for() {
        let begin = Instant::now();
        let ran = quick("sleep 300 & echo $!");
        assert_eq!(ran.end, code(0));
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(gone(&ran.output));
    }

    #[test]
    fn a_stop_ends_a_command_at_once_and_lets_it_clear_up() {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| {
                let text = "trap 'echo bye; exit' TERM; while :; do sleep 0.05; done";
                run(text, &[], Mask::default(), LONG, &|| stop.load(Ordering::SeqCst))
            });
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::SeqCst);
            let begin = Instant::now();
            let ran = ran.join().unwrap().unwrap();
            assert_eq!(ran.end, End::Stopped);
            assert!(ran.output.ends_with("bye\n"), "{ran:?}");
            assert!(begin.elapsed() < Duration::from_secs(2));
        });
    }

    #[test]
    fn a_command_that_never_stops_writing_is_still_stopped() {
        let ran = within("yes", Duration::from_millis(200));
        assert_eq!(ran.end, End::TimedOut);
        assert_eq!(ran.output.len(), KEPT_LEN);
    }
}
