//! The file does not grow without end. `CHURN=1000000 cargo test --lib churn` is the long form.

use super::*;

/// Messages that come and go in `make test`.
const MESSAGES: u64 = 50_000;

/// What a window of the queue has.
const WINDOW: u64 = 256;

/// The file of a queue whose messages come and go is at most so many times what it ever held at once,
/// and [`SLACK_BYTES`]: redb doubles a small file, and keeps what was freed until the next transaction.
const FACTOR: u64 = 4;
const SLACK_BYTES: u64 = 2 * 1024 * 1024;

fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn message(seq: u64, bytes: usize) -> Change {
    let kind = MessageKind::ALL[(seq % 3) as usize];
    let envelope = (0..bytes).map(|at| (at as u64 ^ seq) as u8).collect::<Vec<_>>().into();
    Change::Append(OutboxRecord { seq, kind, envelope })
}

#[test]
fn a_file_whose_messages_come_and_go_stays_within_a_factor_of_what_it_held() {
    let messages = std::env::var("CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(MESSAGES);
    let dir = memory();
    let (mut store, _) = open(dir.path());
    let (mut next, mut oldest, mut most, mut largest) = (1, 1, 0, 0);
    while next <= messages {
        // A backlog that breathes: up to 40 windows wait, then most of them go.
        let waits = (next - oldest) / WINDOW;
        let bytes = 100 + (next % 7) as usize * 60;
        let mut changes: Vec<_> = (next..next + WINDOW).map(|seq| message(seq, bytes)).collect();
        next += WINDOW;
        if waits > 40 || (next / WINDOW) % 5 > 1 {
            let to = (oldest + 2 * WINDOW).min(next);
            changes.push(Change::Remove((oldest..to).collect()));
            oldest = to;
        }
        store.commit(&changes).unwrap();
        most = most.max(store.content_bytes);
        largest = largest.max(store.status().file_bytes);
    }
    println!("{messages} messages; at most {most} bytes at once; file at most {largest} bytes");
    assert!(largest <= FACTOR * most + SLACK_BYTES, "{largest} bytes for {most}");
    // What is counted is what is there.
    let counted = store.content_bytes;
    store.recover().unwrap();
    assert_eq!(store.content_bytes, counted);
}

#[test]
fn a_full_queue_of_small_messages_needs_about_the_room_that_is_counted_for_it() {
    for bytes in [60, 300, 3_000] {
        let dir = memory();
        let (mut store, _) = open(dir.path());
        let mut seq = 1;
        while store.content_bytes < 6 * 1024 * 1024 {
            store.commit(&(seq..seq + WINDOW).map(|seq| message(seq, bytes)).collect::<Vec<_>>()).unwrap();
            seq += WINDOW;
        }
        let (file, counted) = (store.status().file_bytes, store.content_bytes);
        println!("{bytes} bytes a message: {counted} counted, {file} in the file, {} messages", seq - 1);
        assert!(file <= 3 * counted, "{file} bytes for {counted} counted, {bytes} a message");
    }
}

/// How long everybody waits for the largest compaction that is done, and how much it gives back.
#[test]
fn a_compaction_of_the_largest_content_is_done_soon_and_gives_the_rest_back() {
    let dir = memory();
    let (mut store, _) = open(dir.path());
    let mut seq = 1;
    while store.content_bytes < 3 * COMPACT_MAX_CONTENT_BYTES {
        store.commit(&(seq..seq + WINDOW).map(|seq| message(seq, 2_000)).collect::<Vec<_>>()).unwrap();
        seq += WINDOW;
    }
    // What is left is scattered over the whole file.
    store.commit(&[Change::Remove((1..seq).filter(|seq| seq % 4 != 0).collect())]).unwrap();
    assert!(store.compaction_pays());
    let before = store.status().file_bytes;
    let start = std::time::Instant::now();
    store.compact().unwrap();
    let took = start.elapsed();
    let after = store.status().file_bytes;
    println!("{} bytes of content: {before} -> {after} bytes in {took:?}", store.content_bytes);
    assert!(after < before / 2, "{before} -> {after}");
    // Far from the 10 s after which an actor counts as frozen, on any machine.
    assert!(took.as_secs() < 5, "{took:?}");
    assert_eq!(read_outbox(&mut store).records.len() as u64, (seq - 1) / 4);
}
