use super::schema::{META, OUTBOX, QUARANTINE, RUNS};
use super::*;
use crate::model::{JobId, MessageKind, RunOrder, RunOutcome, RunPhase, RunRecord};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

mod churn;
mod damage;
mod outbox;
mod power;
mod rekey;
mod repair;
mod sim_disk;

const KEY: &str = "bkpy_test_0123456789abcdefghijklmnopqrstuv";

fn key() -> SecretString {
    SecretString::from(KEY)
}

fn open_with(dir: &Path, options: Options) -> (Store, Recovered) {
    Store::open(dir, &key(), options).unwrap()
}

fn open(dir: &Path) -> (Store, Recovered) {
    open_with(dir, Options::default())
}

fn record(seq: u64, kind: MessageKind) -> OutboxRecord {
    OutboxRecord { seq, kind, envelope: format!("envelope {seq}").into_bytes().into() }
}

fn append(seq: u64, kind: MessageKind) -> Change {
    Change::Append(record(seq, kind))
}

fn run(id: &str, accepted_at_ms: u64, phase: RunPhase) -> RunRecord {
    let order = RunOrder {
        run_id: RunId::from(id),
        job_id: JobId::from("job"),
        manual: false,
        put_url: "https://store/object?signature=secret".into(),
        expires_at_ms: 9,
        multipart: None,
        s3_key: "key".into(),
        dek: vec![7; 32].into(),
    };
    RunRecord { order, accepted_at_ms, phase }
}

fn finished(id: &str, at_ms: u64) -> Change {
    let phase = RunPhase::Finished { at_ms, outcome: RunOutcome::Cancelled };
    Change::PutRun(Box::new(run(id, at_ms, phase)))
}

fn run_ids(recovered: &Recovered) -> Vec<&str> {
    recovered.runs.iter().map(|record| record.order.run_id.as_str()).collect()
}

fn seqs(page: &OutboxPage) -> Vec<u64> {
    page.records.iter().map(|record| record.seq).collect()
}

fn read_outbox(store: &mut Store) -> OutboxPage {
    store.read_outbox(None, 0, usize::MAX, usize::MAX).unwrap()
}

/// A copy of the file as a crash would leave it now.
fn crashed_copy(store: &Store) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(store.path(), dir.path().join(STATE_FILE)).unwrap();
    dir
}

const DROPPED: Dropped = Dropped { logs: 3, health_results: 4 };

fn some_of_everything() -> Vec<Change> {
    vec![
        append(5, MessageKind::Run),
        append(6, MessageKind::Log),
        Change::PutConfig { version: 3, config: Bytes::from_static(b"config") },
        Change::PutSession("session-1".into()),
        Change::PutRun(Box::new(run("b", 20, RunPhase::Accepted))),
        Change::PutRun(Box::new(run("a", 10, RunPhase::Started { at_ms: 11, outcome: None }))),
        Change::ReserveSeq(1_000),
        Change::PutDropped(DROPPED),
    ]
}

fn assert_everything_is_there(store: &mut Store, recovered: &Recovered) {
    assert_eq!(recovered.next_seq, 1_000);
    assert_eq!(recovered.config, Some((3, Bytes::from_static(b"config"))));
    assert_eq!(recovered.session_id.as_deref(), Some("session-1"));
    assert_eq!(run_ids(recovered), ["a", "b"], "oldest first");
    assert_eq!(recovered.dropped, DROPPED);
    assert_eq!(recovered.runs[1], run("b", 20, RunPhase::Accepted));
    assert_eq!((recovered.outbox.first_seq, recovered.outbox.last_seq), (Some(5), Some(6)));
    assert_eq!((recovered.outbox.depth(), recovered.outbox.bytes()), (2, 20));
    assert_eq!(read_outbox(store).records, [record(5, MessageKind::Run), record(6, MessageKind::Log)]);
}

#[test]
fn a_new_file_is_empty_and_its_owners_only() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (store, recovered) = open(&state);
    assert_eq!(recovered.next_seq, 1);
    assert_eq!((recovered.outbox.depth(), recovered.runs.len()), (0, 0));
    assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(store.status().file_bytes, fs::metadata(store.path()).unwrap().len());
}

#[test]
fn reopening_finds_everything_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    drop(store);
    let (mut store, recovered) = open(dir.path());
    assert_everything_is_there(&mut store, &recovered);
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    let copy = crashed_copy(&store);
    let (mut store, recovered) = open(copy.path());
    assert_everything_is_there(&mut store, &recovered);
}

#[test]
fn an_interrupted_birth_of_the_file_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.redb.new"), b"half a file").unwrap();
    let (store, _) = open(dir.path());
    assert!(store.path().exists() && !dir.path().join("state.redb.new").exists());
}

#[test]
fn a_wrong_key_is_told_and_leaves_the_file_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    let crashed = crashed_copy(&store);
    drop(store);
    let other = SecretString::from("bkpy_test_vutsrqponmlkjihgfedcba9876543210");
    for (dir, left_by) in [(dir.path(), "a clean stop"), (crashed.path(), "a crash")] {
        let path = dir.join(STATE_FILE);
        let before = fs::read(&path).unwrap();
        let error = Store::open(dir, &other, Options::default()).unwrap_err();
        assert_eq!(error, StoreError::WrongKey { path: path.clone() }, "after {left_by}");
        assert!(fs::read(&path).unwrap() == before, "the file changed, after {left_by}");
        let (mut store, recovered) = open(dir);
        assert_everything_is_there(&mut store, &recovered);
    }
}

#[test]
fn a_second_agent_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path());
    let error = Store::open(dir.path(), &key(), Options::default()).unwrap_err();
    assert_eq!(error, StoreError::InUse { dir: dir.path().into(), pid: Some(std::process::id()) });
}

#[test]
fn looking_at_the_file_changes_nothing_even_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    let copy = crashed_copy(&store);
    let before = fs::read(copy.path().join(STATE_FILE)).unwrap();
    let (mut reader, recovered) = Store::open_read_only(copy.path(), &key()).unwrap();
    assert_everything_is_there(&mut reader, &recovered);
    assert!(matches!(reader.commit(&[Change::ReserveSeq(9)]), Err(StoreError::Refused { .. })));
    drop(reader);
    assert!(fs::read(copy.path().join(STATE_FILE)).unwrap() == before);
    let nowhere = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_read_only(nowhere.path(), &key()), Err(StoreError::Unusable { .. })));
    assert_eq!(fs::read_dir(nowhere.path()).unwrap().count(), 0, "and makes nothing");
}

#[test]
fn nothing_of_a_record_can_be_read_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    let file = fs::read(store.path()).unwrap();
    for secret in ["signature=secret", "envelope 5", "session-1", KEY] {
        assert!(
            !file.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{secret} stands in the file"
        );
    }
}

#[test]
fn a_reservation_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[Change::ReserveSeq(100)]).unwrap();
    store.commit(&[Change::ReserveSeq(50)]).unwrap();
    assert_eq!(store.recover().unwrap().next_seq, 100);
    store.commit(&[append(200, MessageKind::Log)]).unwrap();
    assert_eq!(store.recover().unwrap().next_seq, 201, "a waiting message counts as well");
}

#[test]
fn only_the_newest_finished_runs_are_kept_and_every_unfinished_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_finished_runs: 2, ..Options::default() };
    let (mut store, _) = open_with(dir.path(), options);
    store.commit(&[Change::PutRun(Box::new(run("waits", 1, RunPhase::Accepted)))]).unwrap();
    for (id, at_ms) in [("first", 10), ("second", 20), ("third", 30)] {
        store.commit(&[finished(id, at_ms)]).unwrap();
    }
    assert_eq!(run_ids(&store.recover().unwrap()), ["waits", "second", "third"]);
    drop(store);
    let (mut store, _) = open_with(dir.path(), options);
    store.commit(&[finished("fourth", 40)]).unwrap();
    assert_eq!(run_ids(&store.recover().unwrap()), ["waits", "third", "fourth"], "over a restart");
    store.commit(&[Change::ForgetRun(RunId::from("third")), finished("waits", 50)]).unwrap();
    assert_eq!(run_ids(&store.recover().unwrap()), ["fourth", "waits"]);
}

#[test]
fn what_a_drained_queue_leaves_can_be_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let envelope = Bytes::from(vec![1; 64 * 1024]);
    let records = (1..=64)
        .map(|seq| Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope: envelope.clone() }));
    store.commit(&records.collect::<Vec<_>>()).unwrap();
    store.commit(&[Change::Remove((1..=64).collect())]).unwrap();
    let before = store.status().file_bytes;
    while store.compact().unwrap() {}
    let after = store.status().file_bytes;
    assert!(after < before / 4, "{before} bytes before, {after} after");
    store.commit(&[append(65, MessageKind::Run)]).unwrap();
    assert_eq!(seqs(&read_outbox(&mut store)), [65]);
}

#[test]
fn a_full_disk_refuses_and_when_there_is_room_again_work_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    store.set_max_file_bytes(store.status().file_bytes);
    let big = |seq| {
        let envelope = Bytes::from(vec![1; 1024 * 1024]);
        Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope })
    };
    let refused = (7..100).find_map(|seq| store.commit(&[big(seq)]).err());
    assert!(matches!(refused, Some(StoreError::NoSpace { .. })), "{refused:?}");
    assert!(store.status().write_error.is_some());
    let waiting = seqs(&read_outbox(&mut store));
    assert_eq!(waiting[..2], [5, 6], "reading goes on");

    store.set_max_file_bytes(u64::MAX);
    store.commit(&[big(100)]).unwrap();
    assert_eq!(store.status().write_error, None);
    let recovered = store.recover().unwrap();
    assert_eq!(run_ids(&recovered), ["a", "b"]);
    assert_eq!(recovered.outbox.depth(), waiting.len() as u64 + 1);
}
