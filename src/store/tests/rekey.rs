use super::*;

fn new_key() -> SecretString {
    SecretString::from("bkpy_test_vutsrqponmlkjihgfedcba9876543210")
}

fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    dir
}

#[test]
fn everything_opens_under_the_new_key_and_nothing_under_the_old_one() {
    let dir = filled();
    let (mut store, _) = open(dir.path());
    store.commit(&[append(7, MessageKind::Log), Change::SetAside(vec![7])]).unwrap();
    drop(store);
    let before = fs::read(dir.path().join(STATE_FILE)).unwrap();
    let done = rekey(dir.path(), &key(), &new_key()).unwrap();
    assert_eq!((done.messages, done.runs, done.config_version, done.next_seq), (2, 2, Some(3), 1_000));
    assert_eq!((done.quarantined, done.set_aside, done.already), (1, 0, false));
    assert!(matches!(Store::open(dir.path(), &key(), Options::default()), Err(StoreError::WrongKey { .. })));
    let (mut store, recovered) = Store::open(dir.path(), &new_key(), Options::default()).unwrap();
    assert_everything_is_there(&mut store, &recovered);
    assert_eq!(store.quarantined().unwrap()[0].why, Why::Refused);
    assert_ne!(fs::read(dir.path().join(STATE_FILE)).unwrap(), before);
    drop(store);
    assert!(rekey(dir.path(), &key(), &new_key()).unwrap().already, "asked again, it has nothing to do");
}

#[test]
fn a_wrong_old_key_or_a_damaged_file_changes_nothing() {
    let dir = filled();
    let path = dir.path().join(STATE_FILE);
    let whole = fs::read(&path).unwrap();
    let third = SecretString::from(format!("bkpy_test_{}", "z".repeat(32)));
    let error = rekey(dir.path(), &third, &new_key()).unwrap_err();
    assert_eq!(error, StoreError::WrongKey { path: path.clone() });
    assert!(fs::read(&path).unwrap() == whole);
    let mut damaged = whole;
    damaged[..4096].fill(0);
    fs::write(&path, &damaged).unwrap();
    assert!(matches!(rekey(dir.path(), &key(), &new_key()), Err(StoreError::Damaged { .. })));
    assert!(fs::read(&path).unwrap() == damaged);
    assert!(!dir.path().join("state.redb.rekey").exists());
}

#[test]
fn what_an_interrupted_rekey_left_is_in_nobodys_way() {
    let dir = filled();
    fs::write(dir.path().join("state.redb.rekey"), b"half a file").unwrap();
    let (mut store, recovered) = open(dir.path());
    assert_everything_is_there(&mut store, &recovered);
    assert!(
        matches!(rekey(dir.path(), &key(), &new_key()), Err(StoreError::InUse { .. })),
        "while an agent runs"
    );
    drop(store);
    rekey(dir.path(), &key(), &new_key()).unwrap();
    assert!(!dir.path().join("state.redb.rekey").exists());
}

#[test]
fn a_record_that_does_not_open_is_set_aside_on_the_way() {
    let dir = filled();
    let db = Database::open(dir.path().join(STATE_FILE)).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(OUTBOX).unwrap().insert((MessageKind::Log as u8, 6), [1; 60].as_slice()).unwrap();
    txn.open_table(META).unwrap().insert("seq", b"broken".as_slice()).unwrap();
    txn.commit().unwrap();
    drop(db);
    let done = rekey(dir.path(), &key(), &new_key()).unwrap();
    assert_eq!((done.messages, done.set_aside), (1, 2));
    assert!(done.next_seq > 1_700_000_000_000, "the record of the used seqs is lost: {}", done.next_seq);
}
