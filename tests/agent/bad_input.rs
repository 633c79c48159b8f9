//! What somebody may get wrong: one clear line, exit 78 or a warning, and no secret.

use crate::common::{Agent, agent_key, eventually, free_port};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// A fault may be followed by what to do, not by a page.
const MAX_LINES: usize = 4;

fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// Starts an agent with this variable set, and holds that it ends at once with 78 and a word about it.
#[track_caller]
fn refused(variable: &str, value: &str, named: &str) -> String {
    let folder = TempDir::new().unwrap();
    let agent = Agent::run(&folder.path().join("state"), &nobody(), &agent_key('k'), |command| {
        command.env(variable, value);
    });
    assert_refused(agent, named)
}

#[track_caller]
fn assert_refused(mut agent: Agent, named: &str) -> String {
    assert_eq!(agent.wait_for_code(SOON), 78, "{:?}", agent.output());
    let output = agent.output();
    let text = output.join("\n");
    assert!(text.contains(named), "does not name {named}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(output.len() <= MAX_LINES, "not one clear line: {text}");
    text
}

#[test]
fn a_key_of_the_wrong_form_is_refused_and_not_echoed() {
    for key in ["bkpy_live_tooshort-and-secret", "", "secret secret secret", "bkpy_prod_0123456789secret"] {
        let text = refused("BACKUPY_AGENT_KEY", key, "agent_key");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn a_url_of_another_scheme_is_refused() {
    for url in ["ftp://backups.example", "backups.example", "https://"] {
        refused("BACKUPY_SERVER_URL", url, "server.url");
    }
}

#[test]
fn clear_text_without_the_switch_is_refused() {
    refused("BACKUPY_DEV_ALLOW_INSECURE", "false", "allow_insecure");
}

#[test]
fn an_unknown_log_level_is_refused() {
    refused("BACKUPY_LOG_LEVEL", "loud", "log.level");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("a-file");
    std::fs::write(&blocked, "in the way").unwrap();
    refused("BACKUPY_STATE_DIR", &blocked.join("state").display().to_string(), "a-file");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_with_the_nearest_name() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "[server]\nulr = \"https://backups.example\"\n").unwrap();
    let agent = Agent::run(&folder.path().join("state"), &nobody(), &agent_key('k'), |command| {
        command.arg("--config").arg(&config);
    });
    let text = assert_refused(agent, "server.ulr");
    assert!(text.contains("server.url") || text.contains("`url`"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let folder = TempDir::new().unwrap();
    let agent = Agent::run(&folder.path().join("state"), &nobody(), &agent_key('k'), |command| {
        command.args(["--config", "/no/such/agent.toml"]);
    });
    assert_refused(agent, "/no/such/agent.toml");
}

#[test]
fn all_faults_are_told_at_once() {
    let folder = TempDir::new().unwrap();
    let mut agent = Agent::run(Path::new("relative"), "ftp://x", "no-key", |command| {
        command.env("BACKUPY_LOG_LEVEL", "loud").current_dir(folder.path());
    });
    assert_eq!(agent.wait_for_code(SOON), 78);
    let text = agent.output().join("\n");
    for named in ["server.url", "agent_key", "log.level"] {
        assert!(text.contains(named), "{named} is missing: {text}");
    }
}

#[test]
fn a_metrics_port_in_use_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut agent = Agent::run(&state, &nobody(), &agent_key('k'), |command| {
        command.env("BACKUPY_METRICS_LISTEN_ADDR", &address);
    });
    let warning = agent.wait_for_line(&address, SOON);
    assert!(warning.contains("\"WARN\""), "{warning}");
    eventually("the control socket", SOON, || state.join("agent.sock").exists().then_some(()));
    assert!(agent.is_running());
}
