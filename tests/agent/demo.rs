//! `demo` from its first line to its last, as `make demo` runs it.

use crate::common::{Agent, process::command};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Seconds on an idle machine; tests share two cores.
const WITHIN: Duration = Duration::from_secs(180);

fn demo(dir: &Path, flags: &[&str]) -> Agent {
    let mut command = command();
    command.arg("demo").arg("--dir").arg(dir).args(flags);
    Agent::spawn(command)
}

/// Command lines of processes that work in this directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").unwrap();
    let cmdlines = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    cmdlines
        .map(|raw| String::from_utf8_lossy(&raw).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}

#[track_caller]
fn assert_succeeds(mut demo: Agent) -> String {
    let code = demo.wait_for_code(WITHIN);
    let said = demo.output().join("\n");
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains('\r') && !said.contains('\x1b'), "bars or colours in a pipe");
    said
}

#[test]
fn the_demo_ends_in_a_proved_backup_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("demo");
    let said = assert_succeeds(demo(&place, &[]));
    for proof in ["integrity_check: ok", "each the same", "all there, each in its place", "as reported"] {
        assert!(said.contains(proof), "{proof:?} is missing:\n{said}");
    }
    assert_eq!(processes_of(&place), Vec::<String>::new());
    for file in ["shop.db", "object.bkpy", "restored.db", "token", "agent.log", "control-plane.log"] {
        assert!(place.join(file).exists(), "{file}");
    }
    let logs =
        ["agent.log", "control-plane.log"].map(|name| fs::read_to_string(place.join(name)).unwrap()).join("");
    for secret in ["agent.key", "token", "plane/admin.token"] {
        let secret = fs::read_to_string(place.join(secret)).unwrap();
        assert!(!logs.contains(secret.trim()) && !said.contains(secret.trim()), "a secret is in the output");
    }
}

#[test]
fn a_pulled_plug_still_ends_in_one_good_backup() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("demo");
    let said = assert_succeeds(demo(&place, &["--pull-the-plug", "--clean"]));
    for proof in ["kill -9", "one run, one object", "integrity_check: ok", "each the same"] {
        assert!(said.contains(proof), "{proof:?} is missing:\n{said}");
    }
    assert_eq!(processes_of(&place), Vec::<String>::new());
    assert!(!place.exists(), "--clean");
}

#[test]
fn an_interrupted_demo_takes_its_processes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("demo");
    let mut demo = demo(&place, &["--stay"]);
    demo.wait_for_line("registered as", WITHIN);
    assert!(processes_of(&place).len() >= 3, "demo, control plane and agent");
    demo.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.wait_for_code(Duration::from_secs(30)), 75);
    assert_eq!(processes_of(&place), Vec::<String>::new());
}

#[test]
fn a_demo_that_stays_serves_until_it_is_asked_to_end_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("demo");
    let mut demo = demo(&place, &["--stay"]);
    demo.wait_for_line("go on until Ctrl-C", WITHIN);
    let status =
        command().args(["status", "--json", "--config"]).arg(place.join("agent.toml")).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    demo.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.wait_for_code(Duration::from_secs(30)), 0);
    assert_eq!(processes_of(&place), Vec::<String>::new());
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "mine").unwrap();
    let mut demo = demo(dir.path(), &["--clean"]);
    assert_eq!(demo.wait_for_code(Duration::from_secs(10)), 70);
    assert_eq!(fs::read_to_string(dir.path().join("mine")).unwrap(), "mine");
}
