//! A disk with little room left: what is refused, what still gets in, who is told, and the way back.

use crate::bench::{Bench, deps, health, log, result_of, settle, start, text_of};
use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::messages::{
    Commit, GetQueueStatus, GetStoreStatus, QueueError, RoomChanged, Submit, Submitted, TakeSeq,
};
use backupy_agent::actors::state_store::{ROOM_INTERVAL, StateStore, StateStoreNeighbours, TIDY_DELAY};
use backupy_agent::model::{JobId, MessageKind, RunId, RunOrder, RunPhase, RunRecord, Space};
use backupy_agent::store::{Change, Options, OutboxRecord, STATE_FILE, StoreError};
use bytes::Bytes;
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MIB: u64 = 1024 * 1024;

thread_local! {
    /// What `statvfs` would say on this test's thread, and how often it was asked.
    static FREE: Cell<u64> = const { Cell::new(u64::MAX) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn space(_: &Path) -> io::Result<Space> {
    ASKED.with(|asked| asked.set(asked.get() + 1));
    Ok(Space { free: FREE.with(Cell::get), total: u64::MAX })
}

fn guarded() -> Options {
    Options { min_free_bytes: 64 * MIB, space, ..Options::default() }
}

fn append(seq: u64, kind: MessageKind) -> Commit {
    Commit(vec![Change::Append(OutboxRecord { seq, kind, envelope: Bytes::from(format!("envelope {seq}")) })])
}

fn put_run(phase: RunPhase) -> Commit {
    let order = RunOrder {
        run_id: RunId::from("run"),
        job_id: JobId::from("job"),
        manual: false,
        put_url: "https://store/object".into(),
        expires_at_ms: 9,
        multipart: None,
        s3_key: "key".into(),
        dek: vec![7; 32].into(),
    };
    Commit(vec![Change::PutRun(Box::new(RunRecord { order, accepted_at_ms: 1, phase }))])
}

#[actix::test]
async fn below_the_guard_new_work_is_refused_with_the_figures_and_accepted_work_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), guarded());
    store.send(append(1, MessageKind::Log)).await.unwrap().unwrap();
    store.send(put_run(RunPhase::Accepted)).await.unwrap().unwrap();

    FREE.with(|free| free.set(63 * MIB));
    let refused = [
        append(2, MessageKind::Log),
        append(3, MessageKind::HealthResult),
        put_run(RunPhase::Accepted),
        Commit([append(4, MessageKind::Run).0, put_run(RunPhase::Accepted).0].concat()),
    ];
    for commit in refused {
        let error = store.send(commit).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::LowSpace { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("63 MiB are free") && text.contains("64 MiB") && text.contains("free some"),
            "{text}"
        );
    }
    let taken = [
        append(5, MessageKind::Run),
        put_run(RunPhase::Started { at_ms: 2, outcome: None }),
        Commit(vec![Change::Remove(vec![1])]),
        Commit(vec![Change::ReserveSeq(2_000)]),
        Commit(vec![Change::PutConfig { version: 2, config: Bytes::from_static(b"config") }]),
    ];
    for commit in taken {
        store.send(commit).await.unwrap().unwrap();
    }
    let status = store.send(GetStoreStatus).await.unwrap();
    assert!(status.low_space.is_some() && status.write_error.is_none(), "{status:?}");

    FREE.with(|free| free.set(64 * MIB));
    store.send(append(6, MessageKind::Log)).await.unwrap().unwrap();
    assert_eq!(store.send(GetStoreStatus).await.unwrap().low_space, None);
}

#[actix::test]
async fn the_way_back_is_found_without_being_asked_and_an_agent_that_is_well_looks_at_nothing() {
    tokio::time::pause();
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), guarded());
    let (room_changed, told) = fake::quick(|_: &RoomChanged| ());
    store.send(StateStoreNeighbours { room_changed }).await.unwrap();
    store.send(append(1, MessageKind::Log)).await.unwrap().unwrap();
    let asked = ASKED.with(Cell::get);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(ASKED.with(Cell::get), asked, "an idle agent woke up");

    FREE.with(|free| free.set(MIB));
    store.send(append(2, MessageKind::Log)).await.unwrap().unwrap_err();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(told.lock().unwrap().len(), 1, "told once");
    assert!(ASKED.with(Cell::get) <= asked + 8, "looked at more often than every {ROOM_INTERVAL:?}");
    FREE.with(|free| free.set(u64::MAX));
    sleep(ROOM_INTERVAL).await;
    let told: Vec<_> = told.lock().unwrap().iter().map(|RoomChanged(why)| why.is_some()).collect();
    assert_eq!(told, [true, false]);
    let asked = ASKED.with(Cell::get);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(ASKED.with(Cell::get), asked, "and then it is left alone again");
}

/// A queue over a store with that disk.
async fn bench(options: Options) -> Bench {
    tokio::time::pause();
    let dir = tempfile::tempdir().unwrap();
    let (deps, _) = deps(dir.path(), options);
    Bench::over(dir, StateStore::new(deps).start()).await
}

#[actix::test]
async fn the_queue_refuses_without_spending_seqs_and_tells_the_server_when_it_is_over() {
    let bench = bench(guarded()).await;
    FREE.with(|free| free.set(MIB));
    let wire = bench.link_up(1);
    let result = bench.durable(result_of("run")).await;
    for _ in 0..100 {
        for payload in [log("x"), health("check")] {
            let refused = bench.submit(payload).await.unwrap_err();
            assert!(matches!(&refused, QueueError::Store(StoreError::LowSpace { .. })), "{refused}");
        }
    }
    let last = bench.queue.send(GetQueueStatus).await.unwrap().last_seq;
    assert!(last <= result + 3, "{} seqs for what was refused", last - result);

    FREE.with(|free| free.set(u64::MAX));
    sleep(2 * ROOM_INTERVAL).await;
    bench.confirm_everything(&wire).await;
    let told: Vec<_> = wire.envelopes().into_iter().skip(1).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let text = text_of(&told[0]);
    assert!(text.contains("takes on new work again") && text.contains("199 health check results"), "{text}");
    bench.durable(log("x")).await;
}

#[actix::test]
async fn on_a_disk_that_is_full_from_the_start_there_are_seqs_for_the_link_and_none_comes_twice() {
    let full = Options { max_file_bytes: 0, ..Options::default() };
    let bench = bench(full).await;
    let mut given = Vec::new();
    for _ in 0..5 {
        given.push(bench.queue.send(TakeSeq).await.unwrap().unwrap());
    }
    assert!(given.is_sorted() && given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
    let refused = bench.submit(result_of("run")).await.unwrap_err();
    assert!(matches!(&refused, QueueError::Store(StoreError::NoSpace { .. })), "{refused}");
    assert!(!bench.dir.path().join(STATE_FILE).exists());
    let status = bench.store.send(GetStoreStatus).await.unwrap();
    assert!(status.write_error.is_some(), "{status:?}");
}

#[actix::test]
async fn with_a_state_that_cannot_be_written_the_link_goes_on_above_what_was_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let first = Bench::in_dir(dir, u64::MAX).await;
    let durable = first.durable(result_of("run")).await;
    let dir = crate::bench::crashed_copy(first.dir.path());
    let (deps, _) = deps(dir.path(), Options { max_file_bytes: 0, ..Options::default() });
    // As large as it is, and no larger: whether a commit fits is redb's affair.
    let next = Bench::over(dir, StateStore::new(deps).start()).await;
    let seq = next.queue.send(TakeSeq).await.unwrap().unwrap();
    assert!(seq > durable + 1_000, "{seq} may have been given before");
}

#[actix::test]
async fn a_drained_queue_gives_its_room_back_while_messages_come_and_go() {
    tokio::time::pause();
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options::default());
    let big = |seq| {
        let envelope = Bytes::from(vec![7; 256 * 1024]);
        Change::Append(OutboxRecord { seq, kind: MessageKind::Run, envelope })
    };
    for from in (1..=160).step_by(16) {
        store.send(Commit((from..from + 16).map(big).collect())).await.unwrap().unwrap();
    }
    let full = store.send(GetStoreStatus).await.unwrap().file_bytes;
    assert!(full > 40 * MIB, "{full}");
    store.send(Commit(vec![Change::Remove((1..=159).collect())])).await.unwrap().unwrap();
    let begin = Instant::now();
    while store.send(GetStoreStatus).await.unwrap().file_bytes > 2 * MIB {
        assert!(begin.elapsed() < 2 * TIDY_DELAY, "not compacted");
        sleep(Duration::from_secs(1)).await;
    }
    store.send(append(200, MessageKind::Run)).await.unwrap().unwrap();
    settle().await;
    assert_eq!(crate::bench::seqs_on_disk(crate::bench::crashed_copy(dir.path()).path()), [160, 200]);
}

#[actix::test]
async fn a_state_directory_that_is_deleted_under_the_agent_is_written_anew() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("state");
    let (store, _) = start(&dir, Options::default());
    store.send(append(1, MessageKind::Run)).await.unwrap().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    store.send(append(2, MessageKind::Run)).await.unwrap().unwrap();
    assert_eq!(crate::bench::seqs_on_disk(crate::bench::crashed_copy(&dir).path()), [1, 2]);
    // An idle agent finds out when the Supervisor asks whether it is there.
    std::fs::remove_file(dir.join(STATE_FILE)).unwrap();
    store.send(backupy_agent::actors::messages::AreYouThere).await.unwrap();
    assert_eq!(crate::bench::seqs_on_disk(crate::bench::crashed_copy(&dir).path()), [1, 2]);
    // Somebody else's file is not touched.
    std::fs::remove_file(dir.join(STATE_FILE)).unwrap();
    std::fs::write(dir.join(STATE_FILE), b"another one").unwrap();
    let refused = store.send(append(3, MessageKind::Run)).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("replaced"), "{refused}");
    assert_eq!(std::fs::read(dir.join(STATE_FILE)).unwrap(), b"another one");
    std::fs::remove_file(dir.join(STATE_FILE)).unwrap();
    store.send(append(3, MessageKind::Run)).await.unwrap().unwrap();
    assert_eq!(crate::bench::seqs_on_disk(crate::bench::crashed_copy(&dir).path()), [1, 2, 3]);
}

#[actix::test]
async fn a_submitted_message_that_the_disk_refused_is_in_the_end_durable_once() {
    let bench = bench(guarded()).await;
    FREE.with(|free| free.set(0));
    let answer = bench.queue.send(Submit::new(result_of("run"))).await.unwrap();
    assert!(matches!(answer, Ok(Submitted::OnDisk(_))), "{answer:?}");
    assert_eq!(bench.seqs_on_disk().len(), 1);
}
