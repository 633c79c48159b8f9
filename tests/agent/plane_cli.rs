//! `backupy-agent control-plane` as a script sees it.

use crate::common::{Agent, Secrets, process::command};
use crate::plane_kit::PATIENCE;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn control_plane(data_dir: &Path) -> Command {
    let mut command = command();
    command.args(["control-plane", "--listen", "127.0.0.1:0", "--json", "--data-dir"]).arg(data_dir);
    command.env("RUST_LOG", "debug");
    command
}

/// Starts it and waits until it listens.
fn listening(data_dir: &Path) -> (Agent, Value) {
    let plane = Agent::spawn(control_plane(data_dir));
    let line = plane.wait_for_line("admin_token_file", PATIENCE);
    (plane, serde_json::from_str(&line).unwrap())
}

/// A client that trusts this CA alone and speaks nothing below TLS 1.3.
fn client(ca_file: &str) -> awc::Client {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = awc::Connector::new().rustls_0_23(Arc::new(tls)).timeout(PATIENCE);
    awc::Client::builder().connector(connector).timeout(PATIENCE).finish()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[actix::test]
async fn a_script_finds_url_ca_and_token_and_nothing_secret_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut plane, told) = listening(dir.path());
    assert_eq!(told["pid"], plane.pid());
    let token = std::fs::read_to_string(text(&told["admin_token_file"])).unwrap();
    let client = client(text(&told["ca_file"]));
    let url = format!("{}/v1/agents", text(&told["url"]));
    let request = client.post(&url).bearer_auth(token.trim());
    let mut answer = request.send_body(json!({"name": "a"}).to_string()).await.unwrap();
    let agent: Value = serde_json::from_slice(&answer.body().await.unwrap()).unwrap();
    let key = text(&agent["agent_key"]);
    Secrets::new([("the token", token.trim()), ("the agent key", key)]).assert_not_seen(&plane);

    let mut second = Agent::spawn(control_plane(dir.path()));
    assert_eq!(second.wait_for_code(PATIENCE), 75);
    assert!(second.output().iter().any(|line| line.contains(&plane.pid().to_string())));

    plane.terminate();
    assert_eq!(plane.wait_for_code(PATIENCE), 0);
}

#[actix::test]
async fn an_agent_made_beforehand_is_there_after_kill_9_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut make = control_plane(dir.path());
    make.args(["--print-agent-key", "early"]);
    let mut make = Agent::spawn(make);
    assert_eq!(make.wait_for_code(PATIENCE), 0);
    assert!(make.output().iter().any(|line| line.starts_with("bkpy_live_")));

    let (mut plane, first) = listening(dir.path());
    plane.kill();
    let (_plane, told) = listening(dir.path());
    assert_eq!(told["ca_file"], first["ca_file"]);
    let token = std::fs::read_to_string(text(&told["admin_token_file"])).unwrap();
    let url = format!("{}/v1/agents", text(&told["url"]));
    let mut answer = client(text(&told["ca_file"])).get(url).bearer_auth(token.trim()).send().await.unwrap();
    let agents: Value = serde_json::from_slice(&answer.body().await.unwrap()).unwrap();
    assert_eq!(agents["items"][0]["name"], "early");
}

#[test]
fn what_cannot_be_used_ends_with_its_exit_code_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plane.toml");
    std::fs::write(&file, "heartbeat_intervall = \"1s\"").unwrap();
    let config = file.to_str().unwrap();
    let missing = dir.path().join("missing.toml");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--config", config], 78, "heartbeat_intervall"),
        (&["--config", missing.to_str().unwrap()], 78, "missing.toml"),
        (&["--heartbeat-interval", "10ms"], 78, "whole seconds"),
        (&["--listen", "256.0.0.1:0"], 69, "256.0.0.1"),
        (&["--tls-cert", config, "--tls-key", config], 78, "plane.toml"),
    ];
    for (arguments, code, told) in cases {
        let mut command = command();
        command.args(["control-plane", "--data-dir"]).arg(dir.path().join("data")).args(arguments);
        let mut plane = Agent::spawn(command);
        assert_eq!(plane.wait_for_code(PATIENCE), code, "{arguments:?}");
        let faults = plane.output();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(told), "{faults:?}");
    }
}
