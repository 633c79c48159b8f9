//! Damage of every sort, and what a repair makes of it.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const MESSAGES: u64 = 150;

/// Hundreds of files: what a sync promises is not tested here, so none waits for a disk.
fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A file of several pages a table: messages, some of them delivered, runs, a configuration.
fn filled() -> (TempDir, Vec<u8>) {
    let dir = memory();
    let (mut store, _) = open(dir.path());
    store.commit(&some_of_everything()).unwrap();
    let kinds = [MessageKind::Run, MessageKind::Log, MessageKind::HealthResult];
    for chunk in (100..100 + MESSAGES).collect::<Vec<_>>().chunks(25) {
        store
            .commit(&chunk.iter().map(|seq| append(*seq, kinds[(seq % 3) as usize])).collect::<Vec<_>>())
            .unwrap();
    }
    for n in 0..30 {
        store.commit(&[finished(&format!("done-{n}"), 100 + n)]).unwrap();
    }
    store.commit(&[Change::Remove((100..120).collect())]).unwrap();
    drop(store);
    let whole = fs::read(dir.path().join(STATE_FILE)).unwrap();
    (dir, whole)
}

fn waiting() -> BTreeSet<u64> {
    [5, 6].into_iter().chain(120..100 + MESSAGES).collect()
}

fn dir_with(content: &[u8]) -> TempDir {
    let dir = memory();
    fs::write(dir.path().join(STATE_FILE), content).unwrap();
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "agent.lock");
    names.sort();
    names
}

/// What holds after a repair, whatever was damaged. Answers the report and the seqs that are there.
#[track_caller]
fn repaired(content: &[u8], what: &str) -> (RepairReport, BTreeSet<u64>) {
    let dir = dir_with(content);
    let path = dir.path().join(STATE_FILE);
    let foreseen = repair(dir.path(), &key(), true).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(names(dir.path()), [STATE_FILE], "{what}: a dry run leaves nothing");
    assert!(fs::read(&path).unwrap() == content, "{what}: a dry run changes nothing");
    let report = repair(dir.path(), &key(), false).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(
        (&report.saved, &report.lost),
        (&foreseen.saved, &foreseen.lost),
        "{what}: a dry run tells the truth"
    );
    match &report.moved_to {
        Some(aside) => assert!(fs::read(aside).unwrap() == content, "{what}: the old file is kept whole"),
        None => assert!(report.cause.is_none() && fs::read(&path).unwrap() == content, "{what}"),
    }
    assert_eq!(
        names(dir.path()).len(),
        1 + usize::from(report.moved_to.is_some()),
        "{what}: nothing else is left"
    );
    let (mut store, recovered) = Store::open(dir.path(), &key(), Options::default()).unwrap();
    assert_eq!(store.status().quarantined, 0, "{what}: everything in the new file opens");
    assert!(recovered.next_seq >= 1_000, "{what}: seq went back to {}", recovered.next_seq);
    assert_eq!(recovered.next_seq, report.next_seq, "{what}");
    let page = read_outbox(&mut store);
    assert!(
        page.records.iter().all(|found| *found == record(found.seq, found.kind)),
        "{what}: an altered message"
    );
    assert_eq!(page.records.len() as u64, report.saved.messages, "{what}");
    assert_eq!(recovered.runs.len() as u64, report.saved.runs, "{what}");
    let seqs: BTreeSet<u64> = seqs(&page).into_iter().collect();
    let missing = waiting().difference(&seqs).count() as u64;
    let told = report.lost.messages.len() as u64 + report.lost.unnamed_messages;
    assert!(
        missing == 0 || report.lost.uncounted || told >= missing,
        "{what}: {missing} messages are gone and {told} are told: {:?}",
        report.lost
    );
    assert!(recovered.config.is_none_or(|config| config == (3, Bytes::from_static(b"config"))), "{what}");
    store.commit(&[append(report.next_seq, MessageKind::Run)]).unwrap();
    drop(store);
    let again = repair(dir.path(), &key(), false).unwrap();
    assert_eq!(again.cause, None, "{what}: a repaired file is whole");
    (report, seqs)
}

#[test]
fn a_whole_file_is_left_as_it_is() {
    let (_dir, whole) = filled();
    let (report, seqs) = repaired(&whole, "nothing");
    assert!(report.cause.is_none() && report.lost.is_nothing() && report.moved_to.is_none());
    assert_eq!(seqs, waiting());
}

#[test]
fn a_zeroed_page_costs_at_most_what_was_in_it() {
    let (_dir, whole) = filled();
    let mut losses = 0;
    for page in 0..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0);
        if damaged == whole {
            continue;
        }
        let (report, seqs) = repaired(&damaged, &format!("page {page} zeroed"));
        let missing = waiting().difference(&seqs).count();
        // A leaf of these messages holds fewer.
        assert!(missing < 60, "page {page}: {missing} messages are gone: {report:?}");
        losses += usize::from(!report.lost.is_nothing());
        if page == 0 {
            assert_eq!(missing, 0, "only the file's head is gone: {report:?}");
            assert!(report.lost.uncounted && report.saved.config_version == Some(3), "{report:?}");
        }
    }
    assert!(losses > 0, "some pages hold what no other has");
}

#[test]
fn a_flipped_byte_costs_at_most_one_page() {
    let (_dir, whole) = filled();
    for page in 0..whole.len() / PAGE {
        for inner in [0, 2, 5, 40, 700, 3_001] {
            let mut damaged = whole.clone();
            damaged[page * PAGE + inner] ^= 0x41;
            let (report, seqs) = repaired(&damaged, &format!("page {page}, byte {inner} flipped"));
            let missing = waiting().difference(&seqs).count();
            assert!(missing < 60, "page {page}, byte {inner}: {missing} messages are gone: {report:?}");
        }
    }
}

#[test]
fn a_truncated_file_gives_what_is_left_of_it() {
    let (_dir, whole) = filled();
    for pages in 1..whole.len() / PAGE {
        for more in [0, 1_234] {
            let what = format!("cut to {pages} pages and {more} bytes");
            let (report, _) = repaired(&whole[..pages * PAGE + more], &what);
            assert!(report.cause.is_some(), "{what}");
        }
    }
}

#[test]
fn garbage_gives_an_empty_state_that_never_repeats_a_seq() {
    let noise: Vec<u8> =
        (0..50_000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    for content in [&b""[..], b"x", &[0; 8192], &[1; 20_000], &noise] {
        let (report, seqs) = repaired(content, &format!("{} bytes of garbage", content.len()));
        assert!(seqs.is_empty() && report.seq_jumped && report.lost.uncounted);
        assert!(report.next_seq > 1_700_000_000_000, "{}", report.next_seq);
    }
}

#[test]
fn a_message_of_the_raw_bytes_comes_back_and_the_seq_jumps_over_everything() {
    let (_dir, mut whole) = filled();
    whole[..PAGE].fill(0xee);
    let (report, seqs) = repaired(&whole, "no head");
    assert!(seqs.is_superset(&waiting()));
    assert_eq!(report.saved.messages_from_raw_bytes, report.saved.messages);
    assert!(report.seq_jumped && report.next_seq >= 1_000 + (1 << 32));
    assert!(report.saved.runs >= 32, "{report:?}");
}

#[test]
fn a_wrong_key_changes_nothing_even_where_only_the_raw_bytes_tell_it() {
    let (_dir, whole) = filled();
    let mut headless = whole.clone();
    headless[..PAGE].fill(0);
    let other = SecretString::from("bkpy_test_vutsrqponmlkjihgfedcba9876543210");
    for content in [whole, headless] {
        let dir = dir_with(&content);
        let error = repair(dir.path(), &other, false).unwrap_err();
        assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
        assert_eq!(names(dir.path()), [STATE_FILE]);
        assert!(fs::read(dir.path().join(STATE_FILE)).unwrap() == content);
    }
}

#[test]
fn a_directory_in_its_place_is_moved_aside_with_what_is_in_it() {
    let dir = memory();
    fs::create_dir(dir.path().join(STATE_FILE)).unwrap();
    fs::write(dir.path().join(STATE_FILE).join("inside"), "x").unwrap();
    let error = Store::open(dir.path(), &key(), Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let report = repair(dir.path(), &key(), false).unwrap();
    assert!(report.moved_to.unwrap().join("inside").exists());
    assert!(open(dir.path()).1.next_seq > 1_700_000_000_000);
}

#[test]
fn a_repair_that_was_interrupted_is_done_anew_and_keeps_one_copy() {
    let (_dir, mut damaged) = filled();
    damaged[..PAGE].fill(0);
    let dir = dir_with(&damaged);
    // The new file half written, the old one with its second name.
    fs::write(dir.path().join("state.redb.repair"), b"half").unwrap();
    fs::hard_link(dir.path().join(STATE_FILE), dir.path().join("state.redb.damaged-1")).unwrap();
    let report = repair(dir.path(), &key(), false).unwrap();
    assert_eq!(report.moved_to, Some(dir.path().join("state.redb.damaged-1")));
    assert_eq!(names(dir.path()), [STATE_FILE, "state.redb.damaged-1"]);
    assert!(fs::read(dir.path().join("state.redb.damaged-1")).unwrap() == damaged);
}

#[test]
fn an_agent_that_runs_is_not_disturbed() {
    let dir = memory();
    let (_store, _) = open(dir.path());
    assert!(matches!(repair(dir.path(), &key(), false), Err(StoreError::InUse { .. })));
    assert!(matches!(inspect_without_key(dir.path()), Err(StoreError::InUse { .. })));
    let nowhere = memory();
    assert!(matches!(repair(&nowhere.path().join("no"), &key(), false), Err(StoreError::Unusable { .. })));
    assert_eq!(fs::read_dir(nowhere.path()).unwrap().count(), 0, "and nothing is made");
}

#[test]
fn an_altered_value_comes_back_from_an_older_page_or_goes_to_the_quarantine() {
    let (dir, whole) = filled();
    let path = dir.path().join(STATE_FILE);
    let stored = {
        let db = Database::open(&path).unwrap();
        let outbox = db.begin_read().unwrap().open_table(OUTBOX).unwrap();
        outbox.get((MessageKind::Run as u8, 5)).unwrap().unwrap().value().to_vec()
    };
    // Every copy of the value is altered, so that none is left to come back.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for offset in (0..whole.len() - stored.len()).filter(|at| whole[*at..*at + stored.len()] == stored) {
        file.write_all_at(&[whole[offset + 20] ^ 1], offset as u64 + 20).unwrap();
    }
    let report = repair(dir.path(), &key(), false).unwrap();
    assert_eq!(report.lost.messages, [LostMessage { seq: 5, kind: Some(MessageKind::Run) }]);
    assert_eq!((report.lost.unnamed_messages, report.lost.uncounted, report.seq_jumped), (0, false, false));
    assert_eq!((report.saved.quarantined, report.next_seq), (1, 1_000));
    let (mut store, _) = open(dir.path());
    let kept = store.quarantined().unwrap();
    assert_eq!(kept[0].message(), Some((Some(MessageKind::Run), 5)));
    assert_eq!(kept[0].why, Why::DoesNotOpen);
    assert!(kept[0].at_ms.is_some());
    let seen = store.inspect().unwrap();
    assert_eq!(seen.quarantine.len(), 1);
    // The neighbours that were delivered before may be back: better twice than never.
    assert!(seen.outbox.depth() >= waiting().len() as u64 - 1, "{seen:?}");
    store.drop_quarantine().unwrap();
    assert_eq!(store.quarantined().unwrap(), []);
}

#[test]
fn without_the_key_everything_is_counted_and_nothing_shown() {
    let (dir, whole) = filled();
    let seen = inspect_without_key(dir.path()).unwrap();
    assert_eq!((seen.outbox.depth(), seen.runs), (waiting().len() as u64, 32));
    assert!(seen.unsealed.is_none());
    assert!(seen.content_bytes > 0 && seen.content_bytes < seen.file_bytes);
    assert!(fs::read(dir.path().join(STATE_FILE)).unwrap() == whole, "looking changes nothing");
    let (mut store, _) = Store::open_read_only(dir.path(), &key()).unwrap();
    let unsealed = store.inspect().unwrap().unsealed.unwrap();
    assert_eq!(unsealed.oldest.unwrap().seq, 5);
    assert_eq!((unsealed.next_seq, unsealed.config_version, unsealed.broken), (1_000, Some(3), 0));
    assert_eq!(unsealed.runs, RunCounts { accepted: 1, started: 1, finished: 30 });
}
