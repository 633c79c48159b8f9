//! A long queue after a reconnect, over TLS on loopback: everything arrives once and in order, others have
//! their turn meanwhile, and memory stays flat, with barriers and with end-to-end acks.
//!
//! The long form prints its figures:
//! `cargo test --test agent replay_of_100_000 -- --ignored --nocapture --test-threads 1`

use crate::common::{Agent, agent_key, eventually, process};
use crate::dial::peer::{self, Ca};
use crate::reader::{Came, Reader};
use backupy_agent::model::{MessageKind, unix_ms};
use backupy_agent::store::{Change, Options, OutboxRecord, Store};
use backupy_agent::wire::{self, Payload, v1};
use secrecy::SecretString;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
/// A debug binary on a busy machine.
const DRAINED: Duration = Duration::from_secs(120);

/// Memory that a replay may cost, however much waits.
const EXTRA_BYTES: u64 = 8 * 1024 * 1024;

/// In `make test`; several windows, and a store of several MiB.
const SHORT: u64 = 10_000;
const LONG: u64 = 100_000;

/// Commands and Pings while the old messages go out.
const COMMANDS: u64 = 10;

fn key() -> String {
    agent_key('r')
}

/// A message of about 300 bytes; of every kind in turn.
fn record(seq: u64) -> OutboxRecord {
    let text = format!("message {seq} {}", "of a queue that has grown for a while ".repeat(7));
    let (kind, payload) = match seq % 3 {
        0 => (MessageKind::Log, Payload::Log(v1::LogEvent { message: text, ..Default::default() })),
        1 => {
            let result = v1::HealthCheckResult { check_id: "c".into(), error: text, ..Default::default() };
            (MessageKind::HealthResult, Payload::HealthResult(result))
        }
        _ => {
            let status = v1::JobStatus::Failed.into();
            let update = v1::JobUpdate { status, error_message: text, ..Default::default() };
            (MessageKind::Run, Payload::JobUpdate(update))
        }
    };
    OutboxRecord { seq, kind, envelope: wire::encode(seq, unix_ms(), "", payload).unwrap() }
}

/// A state with so many messages that wait, as an agent leaves it that was offline; answers the messages.
fn fill(dir: &Path, messages: u64) -> Vec<OutboxRecord> {
    let records: Vec<_> = (1..=messages).map(record).collect();
    let (mut store, _) = Store::open(dir, &SecretString::from(key()), Options::default()).unwrap();
    store.commit(&[Change::ReserveSeq(messages + 1)]).unwrap();
    for chunk in records.chunks(5_000) {
        store.commit(&chunk.iter().cloned().map(Change::Append).collect::<Vec<_>>()).unwrap();
    }
    records
}

/// The agent, its control plane, and the strings between the test and both.
struct Scene {
    dir: TempDir,
    server: Arc<Reader>,
    port: u16,
    registered: Receiver<usize>,
    go: Sender<bool>,
    agent: Agent,
}

impl Scene {
    fn new(dir: TempDir, messages: u64, acking: bool) -> Self {
        let ca = Ca::new("Replay CA");
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let ((registering, registered), (go, going)) = (channel(), channel());
        let server = Arc::new(Reader {
            acking,
            every: usize::try_from(messages / (2 * COMMANDS)).unwrap(),
            commands: usize::try_from(COMMANDS).unwrap(),
            came: Mutex::default(),
            registered: Mutex::new(registering),
            go: Mutex::new(going),
            cut: AtomicBool::new(false),
            heads: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        let port = peer::tls(&ca.leaf("localhost"), Arc::new(move |socket| serving.serve(socket)));
        let agent = Agent::run(dir.path(), &format!("https://localhost:{port}"), &key(), |command| {
            command.env("BACKUPY_CA_FILE", dir.path().join("ca.pem")).env("BACKUPY_LOG_LEVEL", "info");
        });
        Self { dir, server, port, registered, go, agent }
    }

    /// The next connection has registered, and is answered, or cut.
    fn answer(&self, go: bool) {
        self.registered.recv_timeout(SOON).expect("the agent registers");
        self.go.send(go).unwrap();
    }

    fn depth(&self) -> u64 {
        let mut command = process::command();
        command.args(["status", "--json"]).env("BACKUPY_STATE_DIR", self.dir.path());
        command
            .env("BACKUPY_AGENT_KEY", key())
            .env("BACKUPY_SERVER_URL", format!("https://localhost:{}", self.port));
        let output = command.output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        status["queue"]["depth"].as_u64().unwrap()
    }
}

fn payload(came: &Came) -> Option<Payload> {
    wire::decode(&came.envelope).unwrap().payload
}

/// The answer to one of this server's Pings is never stored.
fn is_durable(came: &Came) -> bool {
    match payload(came) {
        Some(Payload::Register(_) | Payload::Heartbeat(_)) => false,
        Some(Payload::Ack(ack)) => !ack.correlation_id.starts_with("p-"),
        _ => true,
    }
}

/// Everything once, in order, as it was stored; the new behind the old; the others between.
fn check_what_came(came: &[Came], stored: &[OutboxRecord]) {
    let durable: Vec<_> = came.iter().filter(|came| is_durable(came)).collect();
    assert!(durable.is_sorted_by(|a, b| a.seq < b.seq), "in the order of seq, each once");
    let (old, new) = durable.split_at(stored.len());
    for (came, stored) in old.iter().zip(stored) {
        assert_eq!((came.seq, &came.envelope[..]), (stored.seq, &stored.envelope[..]));
    }
    let answered: Vec<_> = new
        .iter()
        .map(|came| match payload(came) {
            Some(Payload::Ack(ack)) => ack.correlation_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answered, (1..=COMMANDS).map(|n| format!("c-{n}")).collect::<Vec<_>>());
    let last_old = came.iter().rposition(|came| came.seq == stored.len() as u64).unwrap();
    let pings = came[..last_old].iter().filter(|came| matches!(payload(came), Some(Payload::Ack(_)))).count();
    assert!(pings > 5, "{pings} of {COMMANDS} Pings were answered while the old messages went out");
    let (begin, end) = (came[1].at, came[last_old].at);
    let beats: Vec<_> =
        came.iter().filter(|came| matches!(payload(came), Some(Payload::Heartbeat(_)))).collect();
    let during = beats.iter().filter(|beat| beat.at <= end).count();
    // Each second, but for what a busy machine makes late.
    assert!(during as u64 + 2 >= (end - begin).as_secs(), "{during} heartbeats in {:?}", end - begin);
}

fn replay(messages: u64, acking: bool) {
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    let stored = fill(dir.path(), messages);
    let scene = Scene::new(dir, messages, acking);
    let Scene { server, agent, .. } = &scene;
    // The first connection is cut before anything was sent: what follows is the reconnect.
    scene.answer(false);
    scene.registered.recv_timeout(SOON).expect("the agent comes back");
    // From here on the peak is the replay's.
    fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").unwrap();
    let (before, cpu, start) = (agent.rss_bytes(), agent.cpu(), Instant::now());
    scene.go.send(true).unwrap();
    let expected = usize::try_from(messages + 2 * COMMANDS).unwrap();
    eventually("all messages at the server", DRAINED, || (server.count(1) > expected).then_some(()));
    eventually("an empty queue", SOON, || (scene.depth() == 0).then_some(()));
    let (peak, cpu) = (agent.peak_rss_bytes(), agent.cpu() - cpu);
    let heads = server.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.to_lowercase().contains("sec-websocket-protocol: backupy.ack.v1")));

    server.cut.store(true, Ordering::SeqCst);
    scene.registered.recv_timeout(SOON).expect("the agent comes back");
    scene.go.send(true).unwrap();
    eventually("a heartbeat after it", SOON, || (server.count(2) > 2).then_some(()));
    let came = server.came.lock().unwrap();
    check_what_came(&came[1], &stored);
    let again = came[2].iter().filter(|came| is_durable(came)).count();
    assert_eq!(again, 0, "what was confirmed came again");

    let last = came[1].iter().rfind(|came| came.seq == messages).unwrap().at;
    let seconds = (last - start).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (rate, before, peak) =
        (messages as f64 / seconds, before as f64 / 1048576.0, peak as f64 / 1048576.0);
    println!(
        "replay of {messages} with {}: {seconds:.1} s, {rate:.0} messages/s, {:.1} s of processor, RSS {before:.1} MiB before, {peak:.1} MiB at the peak",
        if acking { "acks" } else { "barriers" },
        cpu.as_secs_f64()
    );
    assert!(peak - before < EXTRA_BYTES as f64 / 1048576.0, "{:.1} MiB more", peak - before);
}

#[test]
fn a_long_queue_is_replayed_in_order_and_in_flat_memory_with_barriers() {
    replay(SHORT, false);
}

#[test]
fn a_long_queue_is_replayed_in_order_and_in_flat_memory_with_acks() {
    replay(SHORT, true);
}

#[test]
#[ignore = "the long form: a minute"]
fn replay_of_100_000_with_barriers() {
    replay(LONG, false);
}

#[test]
#[ignore = "the long form: a minute"]
fn replay_of_100_000_with_acks() {
    replay(LONG, true);
}
