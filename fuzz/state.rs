//! The bodies about a damaged state file: its raw pages, and the repair of the whole.

#[path = "../src/store/leaf.rs"]
mod leaf;

use backupy_agent::model::MessageKind;
use backupy_agent::store::{Change, Options, OutboxRecord, STATE_FILE, Store, repair};
use leaf::{Keys, entries};
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::sync::OnceLock;
use tempfile::TempDir;

const PAGE: usize = 4096;

/// What the whole file has waiting: several leaves of messages.
const SEQS: Range<u64> = 1..40;

/// Seqs that it has reserved.
const RESERVED: u64 = 1_000;

/// Bytes of anything read as a leaf: entries lie behind each other, and nothing but possible ones come out.
pub fn leaf_page(data: &[u8]) {
    for keys in [Keys::Fixed(9), Keys::Variable] {
        let mut asked = 0;
        let found = entries(0, keys, &mut |range: Range<u64>| {
            asked += range.end - range.start;
            data.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?).map(<[u8]>::to_vec)
        });
        // Of a page at most as much is read as it can have ends.
        assert!(asked <= 4 + 2 * 4 * u64::from(u16::MAX), "{asked} bytes were asked for");
        for entry in found {
            let (key, value) = (entry.key, entry.value);
            assert!(4 < key.start && key.start < key.end && key.end <= value.start, "{key:?} {value:?}");
            assert!(value.start < value.end && value.end - value.start <= 16 * 1024 * 1024, "{value:?}");
            assert!(keys == Keys::Variable || key.end - key.start == 9, "{key:?}");
        }
    }
}

/// Damage anywhere in a state file: it is repaired, no message is altered or invented, and what is gone is told.
/// The input is patches: page, place in it (two bytes), length, bytes.
pub fn state_file(data: &[u8]) {
    let mut content = whole().to_vec();
    let pages = content.len() / PAGE;
    let mut rest = data;
    while let [page, high, low, length, tail @ ..] = rest {
        let (patch, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let inner = usize::from(u16::from_be_bytes([*high, *low])) % (PAGE - usize::from(u8::MAX));
        let at = usize::from(*page) % pages * PAGE + inner;
        content[at..at + patch.len()].copy_from_slice(patch);
    }
    let dir = memory();
    fs::write(dir.path().join(STATE_FILE), &content).unwrap();
    let report = repair(dir.path(), &key(), false).unwrap_or_else(|error| panic!("not repaired: {error}"));
    if let Some(aside) = &report.moved_to {
        assert!(fs::read(aside).unwrap() == content, "the damaged file is kept whole");
    }
    let (mut store, recovered) =
        Store::open(dir.path(), &key(), Options::default()).expect("a repaired file opens");
    assert!(recovered.next_seq >= RESERVED, "seq went back to {}", recovered.next_seq);
    let page = store.read_outbox(None, 0, usize::MAX, usize::MAX).expect("a repaired file reads");
    assert!(page.set_aside.is_empty(), "not everything in the new file opens");
    assert!(page.records.iter().all(|found| *found == message(found.seq)), "an altered message");
    let seqs: BTreeSet<u64> = page.records.iter().map(|found| found.seq).collect();
    let missing = SEQS.filter(|seq| !seqs.contains(seq)).count() as u64;
    let told = report.lost.messages.len() as u64 + report.lost.unnamed_messages;
    assert!(missing <= told || report.lost.uncounted, "{missing} are gone, {told} are told: {report:?}");
    assert!(
        recovered.config.is_none_or(|config| config == (3, b"config".to_vec().into())),
        "another configuration"
    );
}

/// A state file as a stopped agent leaves it, made once a process: its salt is another each time, its pages lie
/// the same.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = memory();
        let (mut store, _) = Store::open(dir.path(), &key(), Options::default()).unwrap();
        store.commit(&[Change::ReserveSeq(RESERVED), Change::PutSession("s".into())]).unwrap();
        for chunk in SEQS.collect::<Vec<_>>().chunks(13) {
            store.commit(&chunk.iter().map(|seq| Change::Append(message(*seq))).collect::<Vec<_>>()).unwrap();
        }
        store.commit(&[Change::PutConfig { version: 3, config: b"config".to_vec().into() }]).unwrap();
        drop(store);
        fs::read(dir.path().join(STATE_FILE)).unwrap()
    })
}

fn message(seq: u64) -> OutboxRecord {
    OutboxRecord { seq, kind: MessageKind::Log, envelope: format!("{seq:>300}").into_bytes().into() }
}

fn key() -> SecretString {
    SecretString::from("bkpy_test_0123456789abcdefghijklmnopqrstuv")
}

/// What a sync promises is not tested here, so nothing waits for a disk.
pub fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
