//! What survives the end of the Queue, of the StateStore, of the process.

use crate::bench::{self, Bench, log, result_of, settle, start};
use crate::fake;
use backupy_agent::actors::messages::{
    Commit, GetQueueStatus, QueueError, Quit, ReadOutbox, Recover, Submit, Submitted, TakeSeq,
};
use backupy_agent::actors::queue::QueueNeighbours;
use backupy_agent::model::MessageKind;
use backupy_agent::store::{Change, Options, OutboxPage, OutboxRecord, Recovered, STATE_FILE, StoreError};
use backupy_agent::wire;
use futures_util::future::join_all;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

#[actix::test]
async fn seqs_go_on_over_a_crash_even_those_that_were_never_on_disk() {
    let mut bench = Bench::new().await;
    let mut last = 0;
    for _ in 0..3 {
        let taken = bench.queue.send(TakeSeq).await.unwrap().unwrap();
        assert!(taken > last, "{taken} after {last}");
        let stored = bench.durable(log("x")).await;
        assert_eq!(stored, taken + 1);
        last = bench.queue.send(TakeSeq).await.unwrap().unwrap();
        bench = bench.crash(u64::MAX).await;
    }
    assert_eq!(bench.seqs_on_disk().len(), 3);
}

#[actix::test]
async fn seqs_are_reserved_in_blocks() {
    let bench = Bench::new().await;
    let status = |bench: &Bench| bench.store.send(backupy_agent::actors::messages::GetStoreStatus);
    let before = status(&bench).await.unwrap().commits;
    for _ in 0..3_000 {
        bench.queue.send(TakeSeq).await.unwrap().unwrap();
    }
    let commits = status(&bench).await.unwrap().commits - before;
    assert!((2..=3).contains(&commits), "{commits} writes for 3,000 seqs");
}

#[actix::test]
async fn a_new_queue_goes_on_where_the_last_one_ended() {
    let bench = Bench::new().await;
    let first = bench.durable(log("first")).await;
    bench.queue.send(Quit).await.unwrap();
    let (queue, _) = bench::queue(u64::MAX);
    queue.send(bench::neighbours(&bench.store)).await.unwrap();
    let bench = Bench { queue, ..bench };
    let second = bench.durable(log("second")).await;
    assert!(second > first);
    let wire = bench.link_up(7);
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs(), [first, second]);
}

#[actix::test]
async fn quitting_is_answered_when_everything_is_on_disk() {
    let bench = Bench::new().await;
    let submits: Vec<_> = (0..50).map(|n| bench.queue.send(Submit::new(log(&n.to_string())))).collect();
    bench.queue.send(Quit).await.unwrap();
    assert_eq!(bench.seqs_on_disk().len(), 50);
    assert!(join_all(submits).await.into_iter().all(|answer| matches!(answer, Ok(Ok(Submitted::OnDisk(_))))));
}

#[actix::test]
async fn without_a_store_senders_are_told_and_with_the_next_one_it_goes_on() {
    let bench = Bench::new().await;
    let first = bench.durable(log("first")).await;
    let wire = bench.link_up(1);
    settle().await;
    bench.store.send(Quit).await.unwrap();
    assert_eq!(bench.submit(log("nowhere")).await, Err(QueueError::StoreGone));
    // The barrier comes back while there is no store.
    bench.pass(&wire).await;

    let (store, _) = start(bench.dir.path(), Options::default());
    bench.queue.send(bench::neighbours(&store)).await.unwrap();
    let second = bench.durable(log("second")).await;
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs(), [first, second], "the first was confirmed and is not sent again");
    assert!(bench.seqs_on_disk().is_empty());
    assert_eq!(bench.queue.send(GetQueueStatus).await.unwrap().depth, 0);
}

#[actix::test]
async fn a_queue_without_neighbours_says_so() {
    tokio::time::pause();
    let (queue, _) = bench::queue(u64::MAX);
    assert_eq!(queue.send(Submit::new(log("x"))).await.unwrap(), Err(QueueError::StoreGone));
    assert_eq!(queue.send(TakeSeq).await.unwrap(), Err(QueueError::StoreGone));
}

/// A store whose commits fail while the test says so, and which tells what was committed.
struct Failing {
    error: Arc<Mutex<Option<StoreError>>>,
    commits: fake::Told<Commit>,
    neighbours: QueueNeighbours,
}

fn failing(pages: Vec<OutboxPage>) -> Failing {
    let error = Arc::new(Mutex::new(None));
    let fails = Arc::clone(&error);
    let (commit, commits) = fake::quick(move |_: &Commit| match fails.lock().unwrap().clone() {
        Some(error) => Err(error),
        None => Ok(()),
    });
    let mut pages = pages.into_iter();
    let (read, _) = fake::quick(move |_: &ReadOutbox| Ok(pages.next().unwrap_or_default()));
    let (recover, _) = fake::quick(|_: &Recover| Ok(Recovered { next_seq: 1, ..Recovered::default() }));
    Failing { error, commits, neighbours: QueueNeighbours { commit, read, recover } }
}

fn no_space() -> StoreError {
    StoreError::NoSpace { path: "state.redb".into(), cause: "full".into() }
}

#[actix::test]
async fn a_failed_commit_is_told_to_its_sender_and_leaves_no_hole_that_blocks() {
    let bench = Bench::new().await;
    // The store refuses a second message of the same seq: somebody else has put one there.
    let first = bench.durable(log("first")).await;
    let theirs = Change::Append(OutboxRecord {
        seq: first + 1,
        kind: MessageKind::Run,
        envelope: wire::encode(first + 1, 1, "", log("theirs")).unwrap(),
    });
    bench.store.send(Commit(vec![theirs])).await.unwrap().unwrap();
    let refused = bench.submit(log("refused")).await;
    assert!(matches!(refused, Err(QueueError::Store(StoreError::Refused { .. }))), "{refused:?}");
    let third = bench.durable(log("third")).await;
    assert_eq!(third, first + 2);
    let wire = bench.link_up(1);
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs().last(), Some(&third));
    assert!(bench.seqs_on_disk().is_empty());
}

#[actix::test]
async fn a_full_disk_refuses_durable_messages_and_lets_heartbeats_through() {
    tokio::time::pause();
    let failing = failing(Vec::new());
    let (queue, _) = bench::queue(u64::MAX);
    queue.send(failing.neighbours.clone()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options::default());
    let bench = Bench { dir, store, queue };
    let wire = bench.link_up(1);
    *failing.error.lock().unwrap() = Some(no_space());
    assert_eq!(bench.submit(log("x")).await, Err(QueueError::Store(no_space())));
    for _ in 0..100 {
        assert_eq!(bench.submit(super::heartbeat()).await, Ok(Submitted::Sent));
        sleep(Duration::from_secs(30)).await;
    }
    *failing.error.lock().unwrap() = None;
    assert!(matches!(bench.submit(result_of("a")).await, Ok(Submitted::OnDisk(_))));
    assert_eq!(wire.seqs().len(), 100);
}

#[actix::test]
async fn confirmed_messages_that_cannot_be_removed_now_are_removed_later_and_never_sent_again() {
    tokio::time::pause();
    let record = |seq: u64| OutboxRecord {
        seq,
        kind: MessageKind::Run,
        envelope: wire::encode(seq, 1, "", result_of("a")).unwrap(),
    };
    let page = OutboxPage { records: vec![record(1)], set_aside: Vec::new() };
    let failing = failing(vec![page]);
    let (queue, _) = bench::queue(u64::MAX);
    queue.send(failing.neighbours.clone()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options::default());
    let bench = Bench { dir, store, queue };
    let wire = bench.link_up(1);
    bench.durable(result_of("a")).await;
    settle().await;
    *failing.error.lock().unwrap() = Some(no_space());
    bench.pass(&wire).await;
    sleep(Duration::from_secs(60)).await;
    let removals = || {
        let commits = failing.commits.lock().unwrap();
        commits.iter().filter(|commit| commit.0 == [Change::Remove(vec![1])]).count()
    };
    assert!((5..20).contains(&removals()), "{} attempts in a minute", removals());
    // A new link reads nothing before they are gone.
    let next = bench.link_up(2);
    settle().await;
    assert!(next.told().is_empty());
    *failing.error.lock().unwrap() = None;
    sleep(Duration::from_secs(10)).await;
    let attempts = removals();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(removals(), attempts, "once is enough");
    assert_eq!(bench.queue.send(GetQueueStatus).await.unwrap().depth, 0);
}

#[actix::test]
async fn a_damaged_message_is_passed_over_and_its_neighbours_are_sent() {
    let bench = Bench::new().await;
    let seqs = join_all((0..5).map(|n| bench.durable(log(&n.to_string())))).await;
    bench.queue.send(Quit).await.unwrap();
    bench.store.send(Quit).await.unwrap();
    let outbox = redb::TableDefinition::<(u8, u64), &[u8]>::new("outbox");
    let db = redb::Database::open(bench.dir.path().join(STATE_FILE)).unwrap();
    let txn = db.begin_write().unwrap();
    for seq in &seqs[1..3] {
        let key = (MessageKind::Log as u8, *seq);
        let mut table = txn.open_table(outbox).unwrap();
        let mut sealed = table.remove(key).unwrap().unwrap().value().to_vec();
        sealed[20] ^= 1;
        table.insert(key, sealed.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    let bench = Bench::in_dir(bench.dir, u64::MAX).await;
    let wire = bench.link_up(1);
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs(), [seqs[0], seqs[3], seqs[4]]);
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.bytes), (0, 0));
}
