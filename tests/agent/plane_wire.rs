//! The control plane's side of the wire, held against an agent written by hand.

use crate::plane_kit::{PATIENCE, Peer, Plane, copy_dir, log};
use actix_http::ws::Message;
use awc::http::Method;
use backupy_agent::control_plane::{AgentKey, AgentSeed};
use backupy_agent::wire::{MAX_MESSAGE_BYTES, Payload, encode, v1};
use bytes::Bytes;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[actix::test]
async fn a_wrong_key_is_refused_with_401() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent("a").await;
    assert_eq!(Peer::connect(&plane, &crate::common::agent_key('x')).await.err(), Some(401));
    assert_eq!(Peer::connect(&plane, "").await.err(), Some(401));
    assert_eq!(Peer::connect(&plane, plane.running.admin_token().expose()).await.err(), Some(401));
    assert!(Peer::connect(&plane, &key).await.is_ok());
}

#[actix::test]
async fn the_first_message_must_be_register() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let mut peer = Peer::connect(&plane, &key).await.unwrap();
    peer.say(Payload::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!(peer.closed().await.0, 1008);
    assert_eq!(plane.get(&format!("/v1/agents/{id}")).await["connected"], false);
}

#[actix::test]
async fn a_registered_agent_is_told_what_it_must_know_and_then_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent_with_job("a", "nightly").await;
    let (mut peer, ack) = Peer::register(&plane, &key, 0, 0).await;
    assert_eq!(ack.heartbeat_interval_sec, 1);
    assert!(!ack.session_id.is_empty() && ack.server_time_iso.ends_with('Z'));
    let config = ack.config.unwrap();
    assert_eq!((config.version, config.jobs[0].id.as_str()), (1, "nightly"));
    assert_eq!(config.targets[0].connection.as_ref().unwrap().database, "/srv/x.db");

    let path = format!("/v1/agents/{id}/config");
    let patch = json!({"advanced": {"max_parallel_jobs": 3}});
    let (status, answer) = plane.call(Method::PATCH, &path, patch).await;
    assert_eq!((status, &answer["version"]), (200, &json!(2)));
    let update = peer.hear().await;
    assert!(!update.correlation_id.is_empty());
    let Some(Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(config) })) = update.payload else {
        panic!("instead of ConfigUpdate: {:?}", update.payload);
    };
    assert_eq!((config.version, config.jobs.len()), (2, 1));
    assert_eq!(config.advanced.unwrap().max_parallel_jobs, 3);

    let plane = plane.restart();
    let (_, ack) = Peer::register(&plane, &key, peer.seq, 2).await;
    assert_eq!(ack.config.unwrap().version, 2);
}

#[actix::test]
async fn a_configuration_is_numbered_above_what_the_agent_knows() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent_with_job("a", "nightly").await;
    let (_, ack) = Peer::register(&plane, &key, 0, 41).await;
    assert_eq!(ack.config.unwrap().version, 42);
}

#[actix::test]
async fn the_server_counts_upwards_also_over_its_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent_with_job("a", "nightly").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    plane.call(Method::PATCH, &format!("/v1/agents/{id}/config"), json!({"jobs": []})).await;
    let before = peer.hear().await.seq;
    assert!(before > 0);
    let plane = plane.restart();
    let mut peer = Peer::connect(&plane, &key).await.unwrap();
    peer.say(Payload::Register(v1::Register::default())).await;
    assert!(peer.hear().await.seq > before);
}

#[actix::test]
async fn the_pong_comes_when_everything_before_it_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("plane"), |_| {});
    let (id, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    for number in 0..500 {
        peer.say(log(&format!("line {number}"))).await;
    }
    peer.barrier().await;
    // What is in the files at this moment, as `kill -9` would leave it.
    let copy = dir.path().join("copy");
    copy_dir(&plane.data_dir, &copy);
    let survivor = Plane::start(&copy, |_| {});
    let agent = survivor.get(&format!("/v1/agents/{id}")).await;
    assert_eq!(agent["received"]["log"], 500);
    let newest = survivor.get(&format!("/v1/agents/{id}/messages?kind=log&limit=1")).await;
    assert_eq!(newest["items"][0]["body"]["message"], "line 499");
    assert_eq!(newest["has_more"], true);
}

#[actix::test]
async fn a_message_that_comes_again_is_taken_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let seq = peer.say(log("once")).await;
    peer.say_again(seq, log("once")).await;
    peer.barrier().await;
    let plane = plane.restart();
    let (mut peer, _) = Peer::register(&plane, &key, seq, 0).await;
    peer.say_again(seq, log("once")).await;
    let other = peer.say(log("another")).await;
    peer.barrier().await;
    let agent = plane.get(&format!("/v1/agents/{id}")).await;
    assert_eq!(agent["received"]["log"], 2);
    assert_eq!(agent["duplicates"], 1, "the count of repetitions itself is not written down");

    // An agent that lost its state counts from the start: its messages are new ones.
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    peer.say_again(other, log("a new life")).await;
    peer.barrier().await;
    assert_eq!(plane.get(&format!("/v1/agents/{id}")).await["received"]["log"], 3);
}

#[actix::test]
async fn a_newer_connection_supersedes_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let (mut older, first) = Peer::register(&plane, &key, 0, 0).await;
    let (mut newer, second) = Peer::register(&plane, &key, 1, 0).await;
    assert_ne!(first.session_id, second.session_id);
    let (code, reason) = older.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "superseded by another connection"));
    newer.barrier().await;
    let agent = plane.get(&format!("/v1/agents/{id}")).await;
    assert_eq!(agent["connection"]["session_id"], second.session_id.as_str());
}

#[actix::test]
async fn a_rotated_key_ends_the_connection_and_the_old_key() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let rotated = plane.post(&format!("/v1/agents/{id}/rotate-key"), json!(null)).await;
    assert_eq!(peer.closed().await.0, 1008);
    assert_eq!(Peer::connect(&plane, &key).await.err(), Some(401));
    assert!(Peer::connect(&plane, rotated["agent_key"].as_str().unwrap()).await.is_ok());
}

#[actix::test]
async fn an_orderly_end_is_told_to_the_agents_and_takes_no_patience() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    let running = plane.running;
    let start = Instant::now();
    let stopped = std::thread::spawn(move || running.stop());
    assert_eq!(peer.closed().await.0, 1001);
    drop(peer);
    stopped.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[actix::test]
async fn fragments_are_put_together_and_text_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (id, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    peer.send(Message::Text("hello".into())).await;
    let long = encode(9, 1, "", log(&"x".repeat(3_000_000))).unwrap();
    assert!(peer.send_fragments(&long, 100_000).await);
    peer.barrier().await;
    assert_eq!(plane.get(&format!("/v1/agents/{id}")).await["received"]["log"], 1);
}

#[actix::test]
async fn too_long_messages_and_garbage_end_the_connection_with_their_codes() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent("a").await;
    let (mut peer, _) = Peer::register(&plane, &key, 0, 0).await;
    peer.send(Message::Binary(Bytes::from_static(b"\xff\xff\xff"))).await;
    assert_eq!(peer.closed().await.0, 1007);

    let (mut peer, _) = Peer::register(&plane, &key, 1, 0).await;
    peer.send_fragments(&vec![0; MAX_MESSAGE_BYTES + 1], 1 << 20).await;
    assert_eq!(peer.closed().await.0, 1009);
}

#[actix::test]
async fn a_frame_that_announces_too_much_is_refused_before_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path(), |_| {});
    let (_, key) = plane.agent("a").await;
    let address = plane.running.base_url().trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let upgrade = format!(
        "GET /v1/agents/connect HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Authorization: Bearer {key}\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).unwrap();
    // A masked binary frame of 200 MiB, of which nothing but the header comes.
    let header = [&[0x82, 0xff][..], &(200_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    socket.write_all(&header).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    assert_eq!(answer[head], 0x88, "a close frame");
    assert_eq!(answer[head + 2..head + 4], 1009_u16.to_be_bytes());
}

#[actix::test]
async fn agents_of_the_file_are_made_once_and_follow_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("agent.key");
    let seed = |jobs: &[&str]| {
        let jobs: Vec<_> = jobs.iter().map(|id| json!({"id": id, "target_id": "db"})).collect();
        let config = json!({"targets": [{"id": "db", "type": "sqlite"}], "jobs": jobs});
        AgentSeed {
            name: "seeded".into(),
            key: AgentKey::File(key_file.clone()),
            config: Some(serde_json::from_value(config).unwrap()),
        }
    };
    let data = dir.path().join("plane");
    let start = |jobs: &[&str]| Plane::start(&data, |config| config.agents = vec![seed(jobs)]);
    let versions = async |plane: &Plane| {
        let agents = plane.get("/v1/agents").await;
        assert_eq!(agents["items"].as_array().unwrap().len(), 1);
        agents["items"][0]["config_version"].as_u64().unwrap()
    };
    let plane = start(&["a"]);
    let key = std::fs::read_to_string(&key_file).unwrap();
    assert!(Peer::connect(&plane, key.trim()).await.is_ok());
    assert_eq!(versions(&plane).await, 1);
    drop(plane);
    let plane = start(&["a"]);
    assert_eq!(versions(&plane).await, 1, "the same file changes nothing");
    drop(plane);
    let plane = start(&["a", "b"]);
    assert_eq!(versions(&plane).await, 2);
}
