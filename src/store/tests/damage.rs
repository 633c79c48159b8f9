use super::*;

/// Alters the closed file of a directory as only somebody with redb in hand could.
fn tamper(dir: &Path, alter: impl FnOnce(&redb::WriteTransaction)) {
    let db = Database::open(dir.join(STATE_FILE)).unwrap();
    let txn = db.begin_write().unwrap();
    alter(&txn);
    txn.commit().unwrap();
}

fn quarantined(dir: &Path) -> u64 {
    let db = Database::open(dir.join(STATE_FILE)).unwrap();
    db.begin_read().unwrap().open_table(QUARANTINE).unwrap().len().unwrap()
}

fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    dir
}

#[test]
fn a_broken_record_of_the_outbox_is_set_aside_and_its_neighbours_go_on() {
    let dir = filled();
    tamper(dir.path(), |txn| {
        let mut outbox = txn.open_table(OUTBOX).unwrap();
        let key = (MessageKind::Run as u8, 5);
        let sealed = outbox.get(key).unwrap().unwrap().value().to_vec();
        outbox.insert(key, [&sealed[..20], &[sealed[20] ^ 1], &sealed[21..]].concat().as_slice()).unwrap();
        // A whole record at another's place, and one of a kind that nobody knows.
        let log = outbox.get((MessageKind::Log as u8, 6)).unwrap().unwrap().value().to_vec();
        outbox.insert((MessageKind::Log as u8, 7), log.as_slice()).unwrap();
        outbox.insert((99, 8), log.as_slice()).unwrap();
    });
    let (mut store, recovered) = open(dir.path());
    assert_eq!(recovered.outbox.depth(), 3, "the unknown kind is none of the messages");
    let page = read_outbox(&mut store);
    assert_eq!(page.records, [record(6, MessageKind::Log)]);
    let set_aside: Vec<_> =
        page.set_aside.iter().map(|record| (record.seq, record.kind, record.bytes)).collect();
    assert_eq!(set_aside, [(5, MessageKind::Run, 10), (7, MessageKind::Log, 10)]);
    assert_eq!(store.status().quarantined, 3);
    assert_eq!(read_outbox(&mut store).set_aside, [], "once and for all");
    drop(store);
    assert_eq!(quarantined(dir.path()), 3);
}

#[test]
fn a_broken_run_configuration_or_session_is_set_aside() {
    let dir = filled();
    tamper(dir.path(), |txn| {
        let mut runs = txn.open_table(RUNS).unwrap();
        runs.insert("a", b"no sealed value at all".as_slice()).unwrap();
        let other = runs.get("b").unwrap().unwrap().value().to_vec();
        runs.insert("c", other.as_slice()).unwrap();
        let mut meta = txn.open_table(META).unwrap();
        meta.insert("config", b"".as_slice()).unwrap();
        meta.insert("session", [0; 64].as_slice()).unwrap();
    });
    let (mut store, recovered) = open(dir.path());
    assert_eq!(run_ids(&recovered), ["b"]);
    assert_eq!((recovered.config, recovered.session_id), (None, None));
    assert_eq!(recovered.next_seq, 1_000);
    assert_eq!(store.status().quarantined, 4);
    store.commit(&[Change::PutSession("session-2".into())]).unwrap();
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered.session_id.as_deref(), Some("session-2"));
    assert_eq!(store.status().quarantined, 0, "nothing is left to set aside");
    drop(store);
    assert_eq!(quarantined(dir.path()), 4);
}

#[test]
fn a_broken_reservation_never_gives_a_used_seq_again() {
    let dir = filled();
    tamper(dir.path(), |txn| {
        txn.open_table(META).unwrap().insert("seq", b"broken".as_slice()).unwrap();
    });
    let (_, recovered) = open(dir.path());
    assert!(recovered.next_seq > 1_700_000_000_000, "{}", recovered.next_seq);
}

#[test]
fn the_quarantine_is_bounded() {
    let dir = filled();
    tamper(dir.path(), |txn| {
        let mut runs = txn.open_table(RUNS).unwrap();
        for id in ["c", "d", "e", "f"] {
            runs.insert(id, b"broken".as_slice()).unwrap();
        }
    });
    let (store, recovered) = open_with(dir.path(), Options { max_quarantined: 3, ..Options::default() });
    assert_eq!(run_ids(&recovered), ["a", "b"]);
    assert_eq!(store.status().quarantined, 4, "all are counted");
    drop(store);
    assert_eq!(quarantined(dir.path()), 3);
}

#[test]
fn a_file_that_is_no_state_file_is_damaged_and_left_as_it_is() {
    let whole = filled();
    let whole = fs::read(whole.path().join(STATE_FILE)).unwrap();
    let mut contents: Vec<Vec<u8>> = vec![Vec::new(), b"x".to_vec(), vec![0; 8192], vec![0xa5; 100_000]];
    contents.extend((0..whole.len()).step_by(whole.len() / 40).map(|length| whole[..length].to_vec()));
    for content in contents {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE_FILE);
        fs::write(&path, &content).unwrap();
        let error = Store::open(dir.path(), &key(), Options::default()).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { path: at, .. } if *at == path), "{error}");
        assert!(fs::read(&path).unwrap() == content, "{} bytes: the file changed", content.len());
    }
}

#[test]
fn a_file_made_by_a_newer_agent_is_left_alone() {
    let dir = filled();
    tamper(dir.path(), |txn| {
        let mut clear = txn.open_table(schema::CLEAR).unwrap();
        let get = |name: &str| clear.get(name).unwrap().unwrap().value().to_vec();
        let (salt, check) = (get("salt"), get("check"));
        let newer = [9, 0, 0, 0];
        let sum = ring::digest::digest(&ring::digest::SHA256, &[&newer[..], &salt, &check].concat());
        clear.insert("schema", newer.as_slice()).unwrap();
        clear.insert("sum", sum.as_ref()).unwrap();
    });
    let error = Store::open(dir.path(), &key(), Options::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Unusable { cause, .. } if cause.contains("version 9")), "{error}");
}

/// Whatever is altered: a clear error that leaves the file, or a store that tells nothing untrue.
fn assert_told_or_survived(altered: &[u8], what: &str) -> bool {
    // Hundreds of files: what a sync promises is not tested here, so none waits for a disk.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join(STATE_FILE);
    fs::write(&path, altered).unwrap();
    let (mut store, recovered) = match Store::open(dir.path(), &key(), Options::default()) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(
                matches!(
                    error,
                    StoreError::Damaged { .. } | StoreError::WrongKey { .. } | StoreError::Io { .. }
                ),
                "{what}: {error}"
            );
            assert!(fs::read(&path).unwrap() == altered, "{what}: the file changed");
            return false;
        }
    };
    assert!(recovered.next_seq >= 1_000, "{what}: seq went back to {}", recovered.next_seq);
    assert!(recovered.config.is_none_or(|config| config == (3, Bytes::from_static(b"config"))), "{what}");
    if let Ok(page) = store.read_outbox(None, 0, usize::MAX, usize::MAX) {
        for found in page.records {
            assert_eq!(found, record(found.seq, found.kind), "{what}");
        }
    }
    // It may fail, never panic, and what it took is there.
    if store.commit(&[append(2_000, MessageKind::Run)]).is_ok()
        && let Ok(page) = store.read_outbox(None, 1_999, 1, usize::MAX)
    {
        assert_eq!(seqs(&page), [2_000], "{what}");
    }
    true
}

#[test]
fn no_flipped_byte_makes_the_store_panic_or_lie() {
    let dir = filled();
    let (mut store, _) = open(dir.path());
    store.commit(&[Change::Remove(vec![77])]).unwrap();
    let crashed = crashed_copy(&store);
    drop(store);
    let mut survived = 0;
    for dir in [dir.path(), crashed.path()] {
        let whole = fs::read(dir.join(STATE_FILE)).unwrap();
        // The head byte by byte, the rest by a stride that is prime to every page's inner rhythm.
        let offsets = (0..320).chain((320..whole.len()).step_by(211));
        let used = offsets.filter(|offset| *offset < 320 || whole[*offset] != 0);
        for offset in used {
            let mut altered = whole.clone();
            altered[offset] ^= 0x41;
            survived += usize::from(assert_told_or_survived(&altered, &format!("byte {offset}")));
        }
    }
    assert!(survived > 0, "a flip in an unused place harms nothing");
}
