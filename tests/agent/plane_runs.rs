//! Runs as the control plane sees them, from the order to the verified object.

use crate::plane_kit::{Peer, Plane};
use awc::http::Method;
use backupy_agent::wire::{Payload, v1};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use md5::{Digest, Md5};
use ring::digest;
use serde_json::{Value, json};

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn put_url(order: &v1::RunBackup) -> String {
    order.upload_creds.as_ref().unwrap().presigned_put_url.clone()
}

/// What an agent reports when it has uploaded `object`.
fn report(order: &v1::RunBackup, object: &[u8]) -> Payload {
    Payload::BackupCompleted(v1::BackupCompleted {
        job_id: order.job_id.clone(),
        run_id: order.run_id.clone(),
        s3_key: order.upload_creds.as_ref().unwrap().final_s3_key.clone(),
        size_bytes: object.len() as u64,
        sha256: sha256(object),
        duration_ms: 12,
        encrypted_dek: order.encrypted_dek.clone(),
        compression: "zstd".into(),
        db_engine_version: "SQLite 3.54.0".into(),
        ..Default::default()
    })
}

fn update(order: &v1::RunBackup, status: v1::JobStatus, percent: u32, error: &str) -> Payload {
    Payload::JobUpdate(v1::JobUpdate {
        job_id: order.job_id.clone(),
        run_id: order.run_id.clone(),
        status: status.into(),
        progress_percent: percent,
        current_step: "dumping".into(),
        error_message: error.into(),
    })
}

async fn start(plane: &Plane) -> String {
    plane.post("/v1/jobs/nightly/run", Value::Null).await["id"].as_str().unwrap().into()
}

#[actix::test]
async fn a_run_goes_from_its_order_to_a_verified_object_and_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent_with_job("a", "nightly").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let again = [("Idempotency-Key", "k-1")];
    let body = json!({"manual": true});
    let (status, first) = plane.call_with(Method::POST, "/v1/jobs/nightly/run", body.clone(), &again).await;
    assert_eq!(status, 202, "{first}");
    let (_, second) = plane.call_with(Method::POST, "/v1/jobs/nightly/run", body, &again).await;
    assert_eq!(first["id"], second["id"]);
    let run_id = first["id"].as_str().unwrap();

    let order = peer.order().await;
    assert_eq!((order.run_id.as_str(), order.manual_trigger), (run_id, true));
    assert_eq!(order.encrypted_dek.len(), 32);
    peer.say(update(&order, v1::JobStatus::Running, 40, "")).await;
    peer.barrier().await;
    let run = plane.get(&format!("/v1/runs/{run_id}")).await;
    assert_eq!((&run["status"], &run["progress_percent"]), (&json!("RUNNING"), &json!(40)));
    assert_eq!((&run["current_step"], &run["acked"]), (&json!("dumping"), &json!(true)));
    let (status, refused) =
        plane.call(Method::POST, &format!("/v1/runs/{run_id}/decryption-token"), Value::Null).await;
    assert_eq!((status, &refused["error"]["code"]), (412, &json!("PRECONDITION_FAILED")));

    let object = vec![0x5a; 700_001];
    let (status, headers) = plane.put(&put_url(&order), object.clone()).await;
    assert_eq!(status, 200);
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("etag"), format!("\"{}\"", HEXLOWER.encode(&Md5::digest(&object))));
    assert_eq!(
        header("x-amz-checksum-sha256"),
        BASE64.encode(&HEXLOWER.decode(sha256(&object).as_bytes()).unwrap())
    );
    peer.say(report(&order, &object)).await;
    peer.say(report(&order, &object)).await;
    peer.barrier().await;
    let run = plane.run_when(run_id, "the verified run", |run| run["status"] == "SUCCESS").await;
    assert_eq!((&run["size_bytes"], &run["sha256"]), (&json!(object.len()), &json!(sha256(&object))));
    assert_eq!(plane.get(&format!("/v1/agents/{id}")).await["duplicates"], 1);

    let download = plane.get(&format!("/v1/runs/{run_id}/download-url")).await;
    let url = download["url"].as_str().unwrap();
    let (status, fetched) = plane.fetch(url).await;
    assert!(status == 200 && fetched == object);
    assert_eq!(plane.put(url, b"x".to_vec()).await.0, 403, "a URL to read is none to write");
    assert_eq!(plane.put(&put_url(&order), b"x".to_vec()).await.0, 409, "a verified object stays");

    let token = plane.post(&format!("/v1/runs/{run_id}/decryption-token"), Value::Null).await;
    let claims = token["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    assert_eq!(claims["dek"], BASE64.encode(&order.encrypted_dek));
    assert_eq!((&claims["run_id"], &claims["sha256"]), (&json!(run_id), &json!(sha256(&object))));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
}

#[actix::test]
async fn a_run_is_sent_again_until_the_agent_has_it_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    let run_id = start(&plane).await;
    assert_eq!(plane.get(&format!("/v1/runs/{run_id}")).await["status"], "QUEUED");
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let first = peer.order().await;
    let plane = plane.restart();
    let (mut peer, _) = Peer::register(&plane, &key, peer.seq, 0).await;
    let second = peer.order().await;
    assert_eq!(first.run_id, run_id);
    assert_eq!((&first.run_id, &first.encrypted_dek), (&second.run_id, &second.encrypted_dek));
    assert_ne!(put_url(&first), put_url(&second), "the URL is a fresh one");

    let ack = v1::Ack { correlation_id: run_id.clone(), accepted: true, reason: String::new() };
    peer.say(Payload::Ack(ack)).await;
    peer.barrier().await;
    let (mut peer, _) = Peer::register(&plane, &key, peer.seq, 0).await;
    let other = start(&plane).await;
    assert_eq!(peer.order().await.run_id, other, "the confirmed run is not sent again");
}

#[actix::test]
async fn an_object_that_is_not_what_was_reported_fails_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let failed = |run: &Value| run["status"] == "FAILED";

    let run_id = start(&plane).await;
    let order = peer.order().await;
    peer.say(report(&order, b"never uploaded")).await;
    let run = plane.run_when(&run_id, "the failed run", failed).await;
    assert!(run["error_message"].as_str().unwrap().contains("not in the store"), "{run}");

    let run_id = start(&plane).await;
    let order = peer.order().await;
    assert_eq!(plane.put(&put_url(&order), b"what came".to_vec()).await.0, 200);
    peer.say(report(&order, b"what went")).await;
    let run = plane.run_when(&run_id, "the failed run", failed).await;
    assert!(run["error_message"].as_str().unwrap().contains("sha256"), "{run}");
}

#[actix::test]
async fn a_refusal_a_failure_and_a_cancellation_end_a_run_each_in_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    let unsent = start(&plane).await;
    let cancelled = plane.post("/v1/jobs/nightly/cancel", Value::Null).await;
    assert_eq!(cancelled["runs"][0]["status"], "CANCELLED");
    assert_eq!(cancelled["runs"][0]["id"], unsent.as_str());

    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let refused = start(&plane).await;
    assert_eq!(peer.order().await.run_id, refused);
    let ack = v1::Ack { correlation_id: refused.clone(), accepted: false, reason: "disk is full".into() };
    peer.say(Payload::Ack(ack)).await;
    let failed = start(&plane).await;
    let order = peer.order().await;
    peer.say(update(&order, v1::JobStatus::Failed, 0, "no such table")).await;
    // What comes late changes nothing.
    peer.say(update(&order, v1::JobStatus::Running, 50, "")).await;
    peer.barrier().await;
    let run = plane.get(&format!("/v1/runs/{refused}")).await;
    assert_eq!(run["error_message"], "the agent refused the run: disk is full");
    let run = plane.get(&format!("/v1/runs/{failed}")).await;
    assert_eq!((&run["status"], &run["error_message"]), (&json!("FAILED"), &json!("no such table")));

    let cancelled = start(&plane).await;
    let order = peer.order().await;
    plane.post("/v1/jobs/nightly/cancel", Value::Null).await;
    let cancel = peer.hear().await;
    assert!(!cancel.correlation_id.is_empty());
    assert_eq!(cancel.payload, Some(Payload::CancelJob(v1::CancelJob { job_id: "nightly".into() })));
    peer.say(update(&order, v1::JobStatus::Cancelled, 0, "")).await;
    plane.run_when(&cancelled, "the cancelled run", |run| run["status"] == "CANCELLED").await;
    let all = plane.get("/v1/runs?status=FAILED").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
}

#[actix::test]
async fn nobody_elses_agent_can_end_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    let (_, stranger) = plane.agent("b").await;
    let run_id = start(&plane).await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let order = peer.order().await;
    let (mut stranger, _) = Peer::register(&plane, &stranger, 0, 0).await;
    stranger.say(update(&order, v1::JobStatus::Failed, 0, "mine now")).await;
    stranger.say(report(&order, b"")).await;
    stranger.barrier().await;
    assert_eq!(plane.get(&format!("/v1/runs/{run_id}")).await["status"], "QUEUED");
}
