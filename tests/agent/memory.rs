//! The agent's memory has keys in it: nobody else reads it, and nothing of it reaches a disk.

use crate::common::{Agent, eventually, process::BINARY};
use nix::unistd::{Gid, Uid, chown, geteuid};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Somebody without any right, where the test itself is root.
const NOBODY: u32 = 65_534;

/// A daemon under a user who is not root, without a control plane to talk to; `before` starts it.
fn start(dir: &std::path::Path, before: &[&str]) -> Agent {
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        chown(dir, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.args(before).arg("--").args([BINARY, "run"]).env_clear();
    command
        .env("BACKUPY_SERVER_URL", "http://127.0.0.1:1")
        .env("BACKUPY_DEV_ALLOW_INSECURE", "true")
        .env("BACKUPY_AGENT_KEY", format!("bkpy_test_{}", "k".repeat(32)))
        .env("BACKUPY_STATE_DIR", dir.join("state"))
        .env("BACKUPY_METRICS_LISTEN_ADDR", "")
        .env("BACKUPY_DISABLE_DISCOVERY", "true");
    let agent = Agent::spawn(command);
    eventually("the control socket", SOON, || dir.join("state/agent.sock").exists().then_some(()));
    agent
}

fn status(agent: &Agent, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn no_core_file_and_no_debugger_of_the_same_user_gets_the_agents_memory() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), &[]);
    // The kernel gives the files of a process that is not dumpable to root; of every other they are its user's.
    let owner = fs::metadata(format!("/proc/{}/environ", agent.pid())).unwrap().uid();
    assert_eq!(owner, 0);
    let own = fs::metadata(format!("/proc/{}/task", std::process::id())).unwrap().uid();
    assert_eq!(own, geteuid().as_raw(), "a process like any other");
    assert_ne!(status(&agent, "Uid").split_whitespace().next().unwrap(), "0");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth_back(2), Some("0"), "{core}");
}

#[test]
fn memory_is_locked_where_the_host_allows_it_and_only_there() {
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), &[]);
    assert_eq!(status(&agent, "VmLck"), "0 kB");
    drop(agent);
    if !geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let agent = start(dir.path(), &["--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock"]);
    let kib = |name: &str| -> u64 { status(&agent, name).trim_end_matches(" kB").parse().unwrap() };
    // All of it, the stacks and what is not touched yet included; but none of it is made resident by that.
    assert!(kib("VmLck") > 10_000, "{} KiB are locked", kib("VmLck"));
    assert!(kib("VmRSS") < kib("VmLck") / 2, "{} of {} KiB are resident", kib("VmRSS"), kib("VmLck"));
}
