//! The real agent against the embedded control plane, with end-to-end acks and without: what was agreed on
//! stands in the headers, and a queue that waited drains either way.

use crate::common::{Agent, eventually, process};
use crate::plane_kit::{PATIENCE, Plane};
use awc::error::WsClientError;
use backupy_agent::model::MessageKind;
use backupy_agent::store::{Change, Options, OutboxRecord, Store};
use backupy_agent::wire::{self, Payload, v1};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PROTOCOL: &str = "backupy.ack.v1";
const MESSAGES: u64 = 1_000;

/// What the control plane answers to an upgrade that offers the protocol.
async fn selected(url: &str, key: &str) -> Result<Option<String>, WsClientError> {
    let client = awc::Client::builder().max_http_version(awc::http::Version::HTTP_11).finish();
    let request = client.ws(format!("{url}/v1/agents/connect")).bearer_auth(key).protocols([PROTOCOL]);
    let (response, _) = request.connect().await?;
    let header = response.headers().get("sec-websocket-protocol");
    Ok(header.map(|value| value.to_str().unwrap().to_owned()))
}

/// Results of health checks that waited while nobody was there.
fn fill(dir: &Path, key: &str) {
    let (mut store, _) = Store::open(dir, &SecretString::from(key.to_owned()), Options::default()).unwrap();
    let waiting = (1..=MESSAGES).map(|seq| {
        let result =
            v1::HealthCheckResult { check_id: "site".into(), ts_ms: seq, ok: true, ..Default::default() };
        let envelope = wire::encode(seq, seq, "", Payload::HealthResult(result)).unwrap();
        Change::Append(OutboxRecord { seq, kind: MessageKind::HealthResult, envelope })
    });
    store.commit(&[Change::ReserveSeq(MESSAGES + 1)]).unwrap();
    store.commit(&waiting.collect::<Vec<_>>()).unwrap();
}

fn depth(dir: &Path, url: &str, key: &str) -> Option<u64> {
    let mut command = process::command();
    command.args(["status", "--json"]).env("BACKUPY_STATE_DIR", dir).env("BACKUPY_AGENT_KEY", key);
    command.env("BACKUPY_SERVER_URL", url).env("BACKUPY_DEV_ALLOW_INSECURE", "true");
    let output = command.output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    (status["link"]["state"] == "established").then(|| status["queue"]["depth"].as_u64().unwrap())
}

async fn drains(acks: bool) {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |config| config.end_to_end_acks = acks);
    let (id, key) = plane.agent("a").await;
    let url = plane.running.base_url().to_owned();
    let expected = acks.then(|| PROTOCOL.to_owned());
    assert_eq!(selected(&url, &key).await.unwrap(), expected);

    let state = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    fill(state.path(), &key);
    let agent = Agent::run(state.path(), &url, &key, |command| {
        command.env("BACKUPY_LOG_LEVEL", "info");
    });
    eventually("an empty queue", PATIENCE, || (depth(state.path(), &url, &key) == Some(0)).then_some(()));
    // What has left the agent's disk is on the control plane's.
    let plane = plane.restart();
    let shown = plane.get(&format!("/v1/agents/{id}")).await;
    assert_eq!((&shown["received"]["health_result"], &shown["duplicates"]), (&json!(MESSAGES), &json!(0)));
    drop(agent);
}

#[actix::test]
async fn the_embedded_control_plane_selects_acks_and_a_queue_drains_by_them() {
    drains(true).await;
}

#[actix::test]
async fn without_acks_it_selects_nothing_and_a_queue_drains_by_the_barrier() {
    drains(false).await;
}
