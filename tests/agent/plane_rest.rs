//! The REST face: shapes, errors, what is never shown.

use crate::plane_kit::{Peer, Plane};
use awc::http::Method;
use backupy_agent::wire::{Payload, v1};
use serde_json::{Value, json};

fn assert_error(answer: &(u16, Value), status: u16, code: &str) {
    let error = &answer.1["error"];
    assert_eq!((answer.0, error["code"].as_str()), (status, Some(code)), "{}", answer.1);
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(error["trace_id"].as_str().unwrap().len(), 16);
    assert!(error.as_object().unwrap().contains_key("details"));
}

#[actix::test]
async fn every_error_has_the_shape_and_code_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, _) = plane.agent_with_job("a", "nightly").await;
    plane.agent_with_job("b", "nightly").await;
    let config = format!("/v1/agents/{id}/config");
    let cases = [
        (Method::GET, "/v1/agents/none", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        (Method::GET, "/v1/runs/none", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        (Method::POST, "/v1/jobs/none/run", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        (Method::GET, "/v1/nothing", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        (Method::GET, "/", Value::Null, 404, "RESOURCE_NOT_FOUND"),
        (Method::GET, "/v1/agents?limit=101", Value::Null, 400, "VALIDATION_ERROR"),
        (Method::GET, "/v1/runs?cursor=!", Value::Null, 400, "VALIDATION_ERROR"),
        (Method::POST, "/v1/agents", json!({"name": ""}), 400, "VALIDATION_ERROR"),
        (Method::POST, "/v1/agents", json!({"nam": "x"}), 400, "VALIDATION_ERROR"),
        (Method::POST, "/v1/agents", json!({"name": "a"}), 409, "CONFLICT"),
        (Method::POST, "/v1/jobs/nightly/run", Value::Null, 409, "CONFLICT"),
        (
            Method::PATCH,
            config.as_str(),
            json!({"jobs": [{"id": "x", "target_id": "none"}]}),
            400,
            "VALIDATION_ERROR",
        ),
        (Method::PATCH, config.as_str(), json!({"jbos": []}), 400, "VALIDATION_ERROR"),
        (Method::PATCH, config.as_str(), json!([]), 400, "VALIDATION_ERROR"),
    ];
    for (method, path, body, status, code) in cases {
        assert_error(&plane.call(method, path, body).await, status, code);
    }
    let unauthorized = awc::Client::new().get(plane.url("/v1/agents")).bearer_auth("x").send().await;
    let mut unauthorized = unauthorized.unwrap();
    let answer = serde_json::from_slice(&unauthorized.body().await.unwrap()).unwrap();
    assert_error(&(unauthorized.status().as_u16(), answer), 401, "AUTH_FAILED");
    // Which of several agents is meant can be said.
    let run = plane.post("/v1/jobs/nightly/run", json!({"agent_id": id})).await;
    assert_eq!(run["agent_id"], id.as_str());
}

#[actix::test]
async fn lists_come_in_pages_and_a_key_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let mut keys = Vec::new();
    for name in ["a", "b", "c"] {
        keys.push(plane.agent(name).await.1);
    }
    let first = plane.get("/v1/agents?limit=2").await;
    assert_eq!((&first["items"][1]["name"], &first["has_more"]), (&json!("b"), &json!(true)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = plane.get(&format!("/v1/agents?limit=2&cursor={cursor}")).await;
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    assert_eq!((&second["items"][0]["name"], &second["has_more"]), (&json!("c"), &json!(false)));
    assert_eq!(second["next_cursor"], Value::Null);
    let state = std::fs::read_to_string(dir.path().join("state/journal-0.jsonl")).unwrap();
    for key in keys {
        assert!(!state.contains(&key) && !first.to_string().contains(&key));
    }
}

#[actix::test]
async fn targets_and_jobs_can_be_added_and_passwords_are_masked() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let target = json!({
        "id": "pg", "type": "postgresql",
        "connection": {"host": "db", "port": 5432, "password_secret_ref": "literal:hunter2"},
    });
    let added = plane.post(&format!("/v1/agents/{id}/targets"), target).await;
    assert_eq!(added["connection"]["password_secret_ref"], "***");
    plane.post(&format!("/v1/agents/{id}/jobs"), json!({"id": "j", "target_id": "pg"})).await;
    let jobs = plane.get(&format!("/v1/agents/{id}/jobs")).await;
    assert_eq!(jobs["items"][0]["id"], "j");
    let config = plane.get(&format!("/v1/agents/{id}/config")).await;
    assert_eq!(config["version"], 2);
    assert!(!config.to_string().contains("hunter2"));
    // What was shown can be sent back without losing the password.
    let back = json!({"targets": config["config"]["targets"]});
    let (status, answer) = plane.call(Method::PATCH, &format!("/v1/agents/{id}/config"), back).await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "nothing changed");
    let (_, ack) = Peer::register(&plane, &key, 0, 0).await;
    let connection = ack.config.unwrap().targets[0].connection.clone().unwrap();
    assert_eq!(connection.password_secret_ref, "literal:hunter2");
}

#[actix::test]
async fn signs_of_life_containers_and_check_results_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let checks = json!({"health_checks": [{"id": "web", "type": "http", "target": "http://127.0.0.1/"}]});
    plane.call(Method::PATCH, &format!("/v1/agents/{id}/config"), checks).await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    peer.say(Payload::Heartbeat(v1::Heartbeat {
        config_version: 1,
        metrics: Some(v1::AgentMetrics { queue_depth: 7, ..Default::default() }),
        active_job_ids: vec!["j".into()],
    }))
    .await;
    let container = v1::DiscoveredContainer { name: "shop-db".into(), ..Default::default() };
    peer.say(Payload::Discovery(v1::DiscoveryReport { containers: vec![container] })).await;
    let result = v1::HealthCheckResult { check_id: "web".into(), ok: true, ..Default::default() };
    peer.say(Payload::HealthResult(result)).await;
    peer.barrier().await;
    let agent = plane.get(&format!("/v1/agents/{id}")).await;
    assert_eq!((&agent["connected"], &agent["applied_config_version"]), (&json!(true), &json!(1)));
    assert_eq!(agent["active_job_ids"], json!(["j"]));
    assert_eq!(agent["register"]["hostname"], "host");
    assert_eq!(plane.get(&format!("/v1/agents/{id}/metrics")).await["metrics"]["queue_depth"], 7);
    let found = plane.get(&format!("/v1/agents/{id}/discovered")).await;
    assert_eq!(found["containers"][0]["name"], "shop-db");
    let results = plane.get("/v1/health-checks/web/results").await;
    assert_eq!(results["items"][0]["ok"], true);
    let kinds = plane.get(&format!("/v1/agents/{id}/messages")).await;
    let kinds: Vec<_> = kinds["items"].as_array().unwrap().iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["health_result", "discovery", "heartbeat", "register"]);
}
