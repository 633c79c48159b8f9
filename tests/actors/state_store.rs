//! Group commit, and the end and the beginning of lives.

use crate::bench::{crashed_copy, deps, key, seqs_on_disk, start};
use actix::prelude::*;
use backupy_agent::actors::messages::{ChildExit, Commit, GetStoreStatus, Quit, ReadOutbox, Recover};
use backupy_agent::actors::state_store::StateStore;
use backupy_agent::model::MessageKind;
use backupy_agent::store::{Change, Options, OutboxRecord, STATE_FILE, Store, StoreError};
use bytes::Bytes;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::sleep;

fn append(seq: u64) -> Change {
    let envelope = Bytes::from(format!("envelope {seq}"));
    Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope })
}

/// Another message under that seq.
fn another(seq: u64) -> Change {
    Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope: Bytes::from_static(b"another") })
}

#[actix::test]
async fn senders_share_transactions_and_each_hears_after_its_own_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options::default());
    let before = store.send(GetStoreStatus).await.unwrap();
    let sent = (1..=300).map(|seq| {
        let commit = store.send(Commit(vec![append(seq)]));
        let dir = dir.path();
        async move {
            commit.await.unwrap().unwrap();
            // Looking at each answer's moment would take long; every fiftieth shows it as well.
            if seq % 50 == 0 {
                let copy = crashed_copy(dir);
                assert!(seqs_on_disk(copy.path()).contains(&seq), "{seq} was answered before it was durable");
            }
        }
    });
    join_all(sent).await;
    let after = store.send(GetStoreStatus).await.unwrap();
    assert_eq!(after.changes - before.changes, 300);
    let commits = after.commits - before.commits;
    assert!(commits <= 30, "{commits} transactions for 300 senders");
    assert_eq!(seqs_on_disk(crashed_copy(dir.path()).path()), (1..=300).collect::<Vec<_>>());
}

#[actix::test]
async fn a_list_that_cannot_be_committed_does_not_fail_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options::default());
    store.send(Commit(vec![append(2)])).await.unwrap().unwrap();
    let lists = [vec![append(1)], vec![append(9), another(2)], vec![append(3)]];
    let answers = join_all(lists.map(|list| store.send(Commit(list)))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    assert_eq!((&answers[0], &answers[2]), (&Ok(()), &Ok(())));
    assert!(matches!(&answers[1], Err(StoreError::Refused { .. })), "{:?}", answers[1]);
    assert_eq!(seqs_on_disk(crashed_copy(dir.path()).path()), [1, 2, 3], "and no part of it is there");
}

#[actix::test]
async fn quitting_commits_what_waits_and_closes_the_file_before_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ends) = start(dir.path(), Options::default());
    let commit = store.send(Commit(vec![append(1)]));
    store.send(Quit).await.unwrap();
    let (mut reopened, recovered) = Store::open(dir.path(), &key(), Options::default()).unwrap();
    assert_eq!(recovered.outbox.depth(), 1);
    reopened.commit(&[append(2)]).unwrap();
    assert_eq!(commit.await.unwrap(), Ok(()));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ends.lock().unwrap()[0].exit, ChildExit::Stopped);
}

#[actix::test]
async fn the_next_life_waits_for_the_last_one_to_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let (last, _) = Store::open(dir.path(), &key(), Options::default()).unwrap();
    let (store, _) = start(dir.path(), Options::default());
    let recovering = store.send(Recover);
    sleep(Duration::from_millis(50)).await;
    drop(last);
    assert_eq!(recovering.await.unwrap().unwrap().next_seq, 1);
}

#[actix::test]
async fn a_file_that_cannot_be_opened_ends_the_life_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(STATE_FILE), b"no state file").unwrap();
    let (store, ends) = start(dir.path(), Options::default());
    assert!(store.send(Recover).await.is_err());
    sleep(Duration::from_millis(1)).await;
    let exit = ends.lock().unwrap()[0].exit.clone();
    assert!(matches!(&exit, ChildExit::Failed(reason) if reason.contains("damaged")), "{exit:?}");
}

#[actix::test]
async fn it_works_on_a_thread_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (deps, _) = deps(dir.path(), Options::default());
    let arbiter = Arbiter::new();
    let store = StateStore::start_in_arbiter(&arbiter.handle(), |_| StateStore::new(deps));
    let sent = (1..=100).map(|seq| store.send(Commit(vec![append(seq)])));
    assert!(join_all(sent).await.into_iter().all(|answer| answer.unwrap().is_ok()));
    let read = ReadOutbox { kind: None, after: 40, max_count: 2, max_bytes: usize::MAX };
    let page = store.send(read).await.unwrap().unwrap();
    assert_eq!(page.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [41, 42]);
    store.send(Quit).await.unwrap();
    arbiter.stop();
    assert_eq!(seqs_on_disk(dir.path()).len(), 100);
}

#[actix::test]
async fn on_a_full_disk_new_work_is_refused_and_what_is_done_still_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = start(dir.path(), Options { max_file_bytes: 4 * 1024 * 1024, ..Options::default() });
    let big = |seq| {
        let envelope = Bytes::from(vec![7; 100_000]);
        Commit(vec![Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope })])
    };
    let answers = join_all((1..=100).map(|seq| store.send(big(seq)))).await;
    let stored: Vec<_> = (1..).zip(&answers).filter(|(_, answer)| matches!(answer, Ok(Ok(())))).collect();
    let stored: Vec<u64> = stored.into_iter().map(|(seq, _)| seq).collect();
    assert!((1..100).contains(&stored.len()), "{} of 100 fitted", stored.len());
    assert!(
        answers.iter().all(|answer| matches!(answer, Ok(Ok(()) | Err(StoreError::NoSpace { .. })))),
        "a full disk is told as one"
    );
    assert!(store.send(GetStoreStatus).await.unwrap().write_error.is_some());
    assert_eq!(seqs_on_disk(crashed_copy(dir.path()).path()), stored, "what was answered yes is there");

    store.send(Commit(vec![Change::Remove(stored)])).await.unwrap().unwrap();
    store.send(big(200)).await.unwrap().unwrap();
    assert_eq!(store.send(GetStoreStatus).await.unwrap().write_error, None);
}
