//! Bad settings as an operator meets them: exit 78, one clear line each, no panic, no secret.

use crate::common::process::command;
use std::path::Path;
use std::process::Output;

const KEY: &str = "bkpy_test_0123456789abcdefghijABCDEFGHIJ01";

/// The commands that refuse what they cannot run with.
const COMMANDS: [&str; 1] = ["check-config"];

/// Valid variables for a state directory; a value of None takes one away.
fn ran(subcommand: &str, state: &Path, adjust: &[(&str, Option<&str>)], arguments: &[&str]) -> Output {
    let mut command = command();
    command
        .arg(subcommand)
        .args(arguments)
        .env("BACKUPY_SERVER_URL", "https://127.0.0.1:1")
        .env("BACKUPY_AGENT_KEY", KEY)
        .env("BACKUPY_STATE_DIR", state)
        .env("BACKUPY_METRICS_LISTEN_ADDR", "");
    for (name, value) in adjust {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Refused with 78 and exactly these lines; nothing on standard output, no panic, no key anywhere.
#[track_caller]
fn refused(adjust: &[(&str, Option<&str>)], arguments: &[&str], expected: &[&str]) {
    for subcommand in COMMANDS {
        let state = tempfile::tempdir().unwrap();
        let output = ran(subcommand, state.path(), adjust, arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{subcommand}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{subcommand}");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{subcommand}: {stderr}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with("backupy-agent: ") && line.contains(expected), "{expected:?}: {line}");
        }
        for forbidden in ["panicked", "RUST_BACKTRACE", &KEY[10..]] {
            assert!(!stderr.contains(forbidden), "{subcommand}: {stderr}");
        }
    }
}

#[test]
fn a_missing_or_malformed_agent_key_is_refused_without_being_shown() {
    refused(&[("BACKUPY_AGENT_KEY", None)], &[], &["server.agent_key: is missing"]);
    let long = format!("{KEY}x");
    let expected = "server.agent_key (BACKUPY_AGENT_KEY): is no agent key (it has 43 characters)";
    refused(&[("BACKUPY_AGENT_KEY", Some(&long))], &[], &[expected]);
}

#[test]
fn a_url_that_is_no_way_to_a_control_plane_is_refused() {
    refused(&[("BACKUPY_SERVER_URL", Some("ftp://host"))], &[], &["the scheme \"ftp\" is none of https"]);
    refused(
        &[("BACKUPY_SERVER_URL", Some("http://host"))],
        &[],
        &["server.url (BACKUPY_SERVER_URL): http is clear text"],
    );
    refused(
        &[],
        &["--server-url", "https://me:hunter2@host"],
        &["server.url (--server-url): https://***@host/: no user"],
    );
}

#[test]
fn an_unwritable_state_directory_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for unwritable in [file.join("state"), file, "/proc/no-state-here".into()] {
        let unwritable = unwritable.to_str().unwrap();
        let expected = format!("state.dir (BACKUPY_STATE_DIR): {unwritable}: cannot be written to: ");
        refused(&[("BACKUPY_STATE_DIR", Some(unwritable))], &[], &[&expected]);
    }
}

#[test]
fn unknown_levels_and_keys_are_refused_with_what_was_probably_meant() {
    let choices =
        "log.level (BACKUPY_LOG_LEVEL): \"loud\" is unknown: choose one of trace, debug, info, warn, error";
    refused(&[("BACKUPY_LOG_LEVEL", Some("loud"))], &[], &[choices]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "[server]\n\nulr = \"https://host\"\n").unwrap();
    let file = file.to_str().unwrap();
    let expected = format!("\"server.ulr\" ({file}:3): unknown key; did you mean server.url?");
    refused(&[], &["--config", file], &[&expected]);
}

#[test]
fn every_fault_is_told_at_once() {
    refused(
        &[("BACKUPY_SERVER_URL", Some("ftp://host")), ("BACKUPY_LOG_FORMAT", Some("xml"))],
        &["--zstd-level", "99", "--max-queue-bytes", "1 KiB"],
        &["server.url", "state.max_queue_bytes", "log.format", "backup.zstd_level"],
    );
}

#[test]
fn check_config_shows_values_and_their_places_and_masks_the_key() {
    let state = tempfile::tempdir().unwrap();
    let output =
        ran("check-config", state.path(), &[("HTTPS_PROXY", Some("http://me:hunter2@proxy:1"))], &[]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let row = |key: &str| {
        let line = stdout.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{key} is not in\n{stdout}")).to_owned()
    };
    let key = row("server.agent_key");
    assert!(key.contains("= *** ") && key.contains("(BACKUPY_AGENT_KEY)"), "{key}");
    assert!(row("log.level").contains("= info"), "{stdout}");
    let json =
        ran("check-config", state.path(), &[("HTTPS_PROXY", Some("http://me:hunter2@proxy:1"))], &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let settings = report["settings"].as_array().unwrap();
    let row = settings.iter().find(|row| row["key"] == "server.proxy").unwrap();
    assert_eq!((&row["value"], &row["source"]), (&"http://***@proxy:1/".into(), &"HTTPS_PROXY".into()));
    for output in [stdout, text(&json.stdout)] {
        assert!(!output.contains(&KEY[10..]) && !output.contains("hunter2"), "{output}");
    }
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let state = tempfile::tempdir().unwrap();
    let output = ran("check-config", state.path(), &[], &["--agent-key", "x"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--agent-key"));
}

#[test]
fn where_no_agent_runs_asking_it_ends_in_69_within_two_seconds_and_nothing_says_healthy() {
    let state = tempfile::tempdir().unwrap();
    for subcommand in ["status", "health-check", "dump-state"] {
        let start = std::time::Instant::now();
        let output = ran(subcommand, state.path(), &[("BACKUPY_AGENT_KEY", None)], &[]);
        assert!(start.elapsed().as_secs() < 2, "{subcommand}: {:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(69), "{subcommand}");
        assert_eq!(text(&output.stdout), "", "{subcommand}");
        let stderr = text(&output.stderr);
        assert!(stderr.lines().count() == 1 && stderr.contains("no agent runs"), "{subcommand}: {stderr}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    use std::process::Stdio;
    for arguments in [&["completions", "bash"][..], &["man"], &["version"], &["--help"]] {
        let mut child =
            command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn version_completions_and_manual_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let version = command().args(["version", "--json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&version.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let script = command().args(["completions", shell]).output().unwrap();
        assert!(script.status.success() && text(&script.stdout).contains("health-check"), "{shell}");
    }
    let man = command().arg("man").output().unwrap();
    assert!(text(&man.stdout).starts_with(".ie"), "{}", text(&man.stdout));
    assert!(command().arg("man").arg("--out-dir").arg(dir.path()).output().unwrap().status.success());
    assert!(dir.path().join("backupy-agent-check-config.1").is_file());
}
