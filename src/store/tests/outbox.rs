use super::*;

#[test]
fn the_outbox_is_read_in_the_order_of_seq_whatever_the_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    use MessageKind::{HealthResult, Log, Run};
    let kinds = [Log, Run, HealthResult, Log, Run, Run, HealthResult];
    let changes: Vec<_> = (1..).zip(kinds).map(|(seq, kind)| append(seq, kind)).collect();
    store.commit(&changes).unwrap();
    assert_eq!(seqs(&read_outbox(&mut store)), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(seqs(&store.read_outbox(None, 3, 2, usize::MAX).unwrap()), [4, 5], "after a cursor");
    assert_eq!(seqs(&store.read_outbox(Some(Log), 0, 9, usize::MAX).unwrap()), [1, 4], "of one kind");
    assert!(store.read_outbox(None, u64::MAX, 9, usize::MAX).unwrap().records.is_empty());
}

#[test]
fn a_page_is_bounded_in_bytes_and_a_larger_message_still_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[1, 2, 3].map(|seq| append(seq, MessageKind::Run))).unwrap();
    let one = "envelope 1".len();
    assert_eq!(seqs(&store.read_outbox(None, 0, 9, 2 * one).unwrap()), [1, 2]);
    assert_eq!(seqs(&store.read_outbox(None, 0, 9, 2 * one - 1).unwrap()), [1]);
    assert_eq!(seqs(&store.read_outbox(None, 0, 9, 0).unwrap()), [1]);
}

#[test]
fn a_waiting_message_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[append(1, MessageKind::Run)]).unwrap();
    for kind in MessageKind::ALL {
        let other = OutboxRecord { seq: 1, kind, envelope: "another".into() };
        let error = store.commit(&[append(2, kind), Change::Append(other)]).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    assert_eq!(seqs(&read_outbox(&mut store)), [1], "and the transaction had no part");
    assert_eq!(store.status().write_error, None, "the disk is not to blame");
}

#[test]
fn the_same_message_once_more_is_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[append(1, MessageKind::Run)]).unwrap();
    store.commit(&[append(1, MessageKind::Run), append(2, MessageKind::Run)]).unwrap();
    assert_eq!(seqs(&read_outbox(&mut store)), [1, 2]);
    assert!(store.commit(&[append(1, MessageKind::Log)]).is_err(), "of another kind it is another message");
}

#[test]
fn what_was_removed_is_gone_and_removing_it_again_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&[1, 2, 3].map(|seq| append(seq, MessageKind::Log))).unwrap();
    store.commit(&[Change::Remove(vec![1, 3])]).unwrap();
    store.commit(&[Change::Remove(vec![1, 3, 77])]).unwrap();
    assert_eq!(seqs(&read_outbox(&mut store)), [2]);
}

#[test]
fn a_group_is_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let before = store.status();
    let lists: Vec<_> = (1..=100).map(|seq| vec![append(seq, MessageKind::Log)]).collect();
    let lists: Vec<_> = lists.iter().map(Vec::as_slice).collect();
    store.commit_group(&lists).unwrap();
    let after = store.status();
    assert_eq!((after.commits - before.commits, after.changes - before.changes), (1, 100));
    assert_eq!(store.recover().unwrap().outbox.depth(), 100);
}

#[test]
fn what_the_server_refuses_goes_to_the_quarantine_as_it_is_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open_with(dir.path(), Options { max_quarantined: 2, ..Options::default() });
    store.commit(&[1, 2, 3, 4].map(|seq| append(seq, MessageKind::Run))).unwrap();
    store.commit(&[Change::SetAside(vec![1, 77]), Change::Remove(vec![2])]).unwrap();
    assert_eq!((seqs(&read_outbox(&mut store)), store.status().quarantined), (vec![3, 4], 1));
    store.commit(&[Change::SetAside(vec![1, 3, 4])]).unwrap();
    assert_eq!((seqs(&read_outbox(&mut store)), store.status().quarantined), (vec![], 3));
    drop(store);
    let db = Database::open(dir.path().join(STATE_FILE)).unwrap();
    let kept = db.begin_read().unwrap().open_table(QUARANTINE).unwrap();
    assert_eq!(kept.len().unwrap(), 2, "the bound holds");
}
