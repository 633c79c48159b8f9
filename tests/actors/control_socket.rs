//! The local control socket over real sockets, with fakes behind it.

use crate::fake;
use backupy_agent::actors::messages::{GetStatus, Recover};
use backupy_agent::daemon::client::{AskError, ask};
use backupy_agent::daemon::control::{Health, MAX_REQUEST_BYTES, Request, SOCKET_FILE};
use backupy_agent::daemon::socket::{Doors, SocketError, serve};
use backupy_agent::model::{
    AgentStatus, ChildStatus, LinkState, LinkStatus, RunOrder, RunPhase, RunRecord, unix_ms,
};
use backupy_agent::store::{Recovered, StoreError};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const LIMIT: Duration = Duration::from_secs(5);

fn status() -> AgentStatus {
    let child =
        |name: &str, alive| ChildStatus { name: name.into(), alive, panics: 0, errors: 0, freezes: 0 };
    AgentStatus {
        version: "1.0".into(),
        pid: 77,
        link: LinkStatus {
            state: LinkState::Waiting,
            last_established_ms: Some(unix_ms() - 120_000),
            ..LinkStatus::default()
        },
        children: vec![child("queue", true), child("runner", false)],
        ..AgentStatus::default()
    }
}

fn recovered() -> Recovered {
    let order = RunOrder {
        run_id: "r-1".into(),
        job_id: "j-1".into(),
        manual: false,
        put_url: "https://s3/key?sig=hunter2".into(),
        expires_at_ms: 1,
        multipart: None,
        s3_key: "key".into(),
        dek: vec![7; 32].into(),
    };
    let run = RunRecord { order, accepted_at_ms: 1, phase: RunPhase::Accepted };
    Recovered { next_seq: 9, runs: vec![run], ..Recovered::default() }
}

fn doors() -> Doors {
    Doors {
        status: fake::quick(|_: &GetStatus| status()).0,
        recover: fake::quick(|_: &Recover| Ok(recovered())).0,
        inspect: fake::gone(),
    }
}

/// Asks as the command line does, from a thread of its own.
async fn asked<T>(dir: &Path, request: Request) -> Result<T, AskError>
where
    T: DeserializeOwned + Send + 'static,
{
    let dir = dir.to_path_buf();
    tokio::task::spawn_blocking(move || ask(&dir, request, LIMIT)).await.unwrap()
}

/// Sends bytes as they are and reads the answer.
async fn sent(dir: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(dir.join(SOCKET_FILE)).await.unwrap();
    // The server may answer and close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[actix::test]
async fn the_socket_is_private_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let socket = serve(dir.path(), doors()).unwrap();
    let path = dir.path().join(SOCKET_FILE);
    let metadata = path.symlink_metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the name it was made under is gone");
    drop(socket);
    assert!(!path.exists());
}

#[actix::test]
async fn status_health_and_state_come_through() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = serve(dir.path(), doors()).unwrap();
    let answer: AgentStatus = asked(dir.path(), Request::Status).await.unwrap();
    assert_eq!((answer.pid, answer.version.as_str()), (77, "1.0"));
    let health: Health = asked(dir.path(), Request::Health).await.unwrap();
    assert_eq!((health.pid, health.connected, health.silent), (77, false, vec!["runner".to_owned()]));
    assert!((120..=130).contains(&health.disconnected_s), "{}", health.disconnected_s);
    let masked: Value = asked(dir.path(), Request::DumpState { allow_secrets: false }).await.unwrap();
    assert!(masked["next_seq"] == 9 && !masked.to_string().contains("hunter2"), "{masked}");
    let clear: Value = asked(dir.path(), Request::DumpState { allow_secrets: true }).await.unwrap();
    assert_eq!(clear["runs"][0]["put_url"], "https://s3/key?sig=hunter2");
}

#[actix::test]
async fn a_stale_socket_is_replaced_and_a_living_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_FILE);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead agent's socket stays");
    let _first = serve(dir.path(), doors()).unwrap();
    assert!(matches!(serve(dir.path(), doors()), Err(SocketError::InUse(_))));
    assert!(asked::<AgentStatus>(dir.path(), Request::Status).await.is_ok(), "the first still answers");
}

#[actix::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_FILE);
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(serve(dir.path(), doors()), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
}

#[actix::test]
async fn a_path_that_is_too_long_for_a_socket_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let long: PathBuf = dir.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    let error = serve(&long, doors()).unwrap_err();
    assert!(matches!(error, SocketError::PathTooLong(_)) && error.to_string().contains("107"), "{error}");
}

#[actix::test]
async fn garbage_is_answered_with_what_is_wrong_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = serve(dir.path(), doors()).unwrap();
    let too_long = vec![b'x'; MAX_REQUEST_BYTES + 1];
    for (bytes, expected) in [
        (&b"\n"[..], "not a request"),
        (b"hello\n", "not a request"),
        (b"{\"command\":\"format-disk\"}\n", "unknown variant"),
        (b"\xff\xfe\n", "not a request"),
        (b"{\"command\":\"status\"}\nmore", "\"pid\":77"),
        (&too_long, "at most 4096 bytes"),
    ] {
        let answer = sent(dir.path(), bytes).await;
        assert!(answer.contains(expected), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    assert!(asked::<AgentStatus>(dir.path(), Request::Status).await.is_ok());
}

#[actix::test]
async fn clients_that_say_nothing_are_few_and_do_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = serve(dir.path(), doors()).unwrap();
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(UnixStream::connect(dir.path().join(SOCKET_FILE)).await.unwrap());
    }
    assert_eq!(sent(dir.path(), b"{\"command\":\"status\"}\n").await, "", "all seats are taken");
    let start = Instant::now();
    let mut rest = Vec::new();
    idle[0].read_to_end(&mut rest).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "closed after 5 s");
    assert!(asked::<AgentStatus>(dir.path(), Request::Status).await.is_ok(), "there is a seat again");
}

#[actix::test]
async fn an_agent_that_is_stuck_is_told_apart_from_one_that_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = Doors { status: fake::silent(), recover: fake::gone(), inspect: fake::gone() };
    let _socket = serve(dir.path(), stuck).unwrap();
    let start = Instant::now();
    let error = asked::<Health>(dir.path(), Request::Health).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let error = asked::<Value>(dir.path(), Request::DumpState { allow_secrets: false }).await.unwrap_err();
    assert!(error.to_string().contains("ending"), "{error}");
}

#[actix::test]
async fn a_store_that_cannot_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let broken = || StoreError::Io { path: "/s/state.redb".into(), cause: "input/output error".into() };
    let recover = fake::quick(move |_: &Recover| Err(broken())).0;
    let _socket = serve(dir.path(), Doors { recover, ..doors() }).unwrap();
    let error = asked::<Value>(dir.path(), Request::DumpState { allow_secrets: false }).await.unwrap_err();
    assert_eq!(error.to_string(), "the agent answers: /s/state.redb: input/output error");
}

#[actix::test]
async fn where_no_agent_runs_the_client_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let not_there = asked::<AgentStatus>(dir.path(), Request::Status).await;
    assert!(matches!(not_there, Err(AskError::NotRunning(_))));
    drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_FILE)).unwrap());
    let stale = asked::<AgentStatus>(dir.path(), Request::Status).await;
    assert!(matches!(stale, Err(AskError::NotRunning(_))));
}

#[actix::test]
async fn a_daemon_that_takes_a_connection_and_never_answers_costs_the_client_its_limit_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let _frozen = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_FILE)).unwrap();
    let start = Instant::now();
    let path = dir.path().to_path_buf();
    let limit = Duration::from_millis(300);
    let asked = tokio::task::spawn_blocking(move || ask::<Health>(&path, Request::Health, limit));
    assert!(matches!(asked.await.unwrap(), Err(AskError::Timeout { .. })));
    assert!(start.elapsed() < Duration::from_secs(2));
}
