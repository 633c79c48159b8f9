//! The kit itself: a runner that shows nothing and finds nothing would make every test pass.

use crate::common::{Agent, Secrets};
use std::process::Command;
use std::time::Duration;

fn shell(script: &str) -> Agent {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    Agent::spawn(command)
}

#[test]
fn the_runner_captures_both_streams_and_the_exit_code() {
    let mut agent = shell("echo out; echo err >&2; exit 78");
    assert_eq!(agent.wait_for_code(Duration::from_secs(5)), 78);
    let mut output = agent.output();
    output.sort();
    assert_eq!(output, ["err", "out"]);
}

#[test]
fn the_runner_kills_the_whole_group_when_it_goes() {
    let agent = shell("sleep 600 & echo $!; wait");
    let grandchild = agent.wait_for_line("", Duration::from_secs(5));
    let stat = format!("/proc/{grandchild}/stat");
    assert!(std::fs::exists(&stat).unwrap());
    drop(agent);
    crate::common::eventually("the grandchild's end", Duration::from_secs(5), || {
        // An orphan that nobody reaps stays as a zombie: dead all the same.
        let state = std::fs::read_to_string(&stat);
        state.map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
    });
}

#[test]
fn the_runner_measures_memory_and_processor_time() {
    let agent = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; sleep 600");
    agent.wait_for_line("done", Duration::from_secs(20));
    assert!(agent.rss_bytes() > 100 * 1024);
    assert!(agent.peak_rss_bytes() >= agent.rss_bytes());
    assert!(agent.cpu() > Duration::from_millis(5), "{:?}", agent.cpu());
}

#[test]
fn a_secret_in_the_output_or_in_an_argv_is_found() {
    let secrets = Secrets::new([("the key", "hunter2-hunter2")]);
    let agent = shell("echo harmless; sleep 600");
    agent.wait_for_line("harmless", Duration::from_secs(5));
    secrets.assert_not_seen(&agent);

    let agent = shell("echo key=hunter2-$(printf hunter)2");
    agent.wait_for_line("key=", Duration::from_secs(5));
    assert_eq!(secrets.leak(&agent).unwrap(), "the key stands in line 1 of the agent's output");

    let agent = shell("sleep 600; : hunter2-hunter2");
    assert!(secrets.leak(&agent).unwrap().ends_with("cmdline"));
}
