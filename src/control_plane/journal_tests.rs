//! The journal under crashes, growth and a disk that refuses.

use super::*;
use std::time::{Duration, Instant};

fn named(id: &str) -> Event {
    Event::AgentNamed { agent_id: id.into(), name: id.into(), key_sha256: "00".into(), at_ms: 1 }
}

fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap();
    line.push(b'\n');
    line
}

fn append(journal: &Journal, id: &str) -> io::Result<()> {
    let (answer, written) = oneshot::channel();
    journal.jobs.send(Job::Append(line(&named(id)), answer)).unwrap();
    written.blocking_recv().unwrap()
}

fn close(journal: Journal) {
    drop(journal.jobs);
    journal.thread.join().unwrap();
}

fn ids(dir: &Path) -> Vec<String> {
    let (state, journal) = open(dir).unwrap();
    close(journal);
    state.agents.into_keys().collect()
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (_, journal) = open(dir.path()).unwrap();
    append(&journal, "a").unwrap();
    append(&journal, "b").unwrap();
    close(journal);
    assert_eq!(ids(dir.path()), ["a", "b"]);
}

#[test]
fn a_half_written_last_line_is_cut_off_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_, journal) = open(dir.path()).unwrap();
    append(&journal, "a").unwrap();
    close(journal);
    let path = path_of(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&line(&named("b"))[..20]);
    fs::write(&path, bytes).unwrap();
    let (state, journal) = open(dir.path()).unwrap();
    assert_eq!(state.agents.len(), 1);
    append(&journal, "c").unwrap();
    close(journal);
    assert_eq!(ids(dir.path()), ["a", "c"]);
}

#[test]
fn a_damaged_line_in_the_middle_is_told_and_nothing_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_of(dir.path(), 0);
    let damaged = [line(&named("a")), b"{\"event\":\n".to_vec(), line(&named("b"))].concat();
    fs::write(&path, &damaged).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("line 2"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[test]
fn a_grown_journal_is_replaced_by_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, journal) = open_with(dir.path(), 100).unwrap();
    for id in ["a", "b", "c"] {
        append(&journal, id).unwrap();
        state.apply(named(id));
    }
    assert!(journal.wants_snapshot.load(Ordering::Acquire));
    journal.jobs.send(Job::Snapshot(Box::new(state))).unwrap();
    append(&journal, "d").unwrap();
    close(journal);
    assert!(!path_of(dir.path(), 0).exists());
    assert_eq!(fs::read(path_of(dir.path(), 1)).unwrap(), line(&named("d")));
    assert_eq!(ids(dir.path()), ["a", "b", "c", "d"]);
}

#[test]
fn a_crash_before_the_new_journal_was_used_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    state.apply(named("a"));
    let snapshot = serde_json::to_vec(&Snapshot { generation: 5, state }).unwrap();
    fs::write(dir.path().join("snapshot.json"), snapshot).unwrap();
    fs::write(path_of(dir.path(), 4), line(&named("old"))).unwrap();
    assert_eq!(ids(dir.path()), ["a"]);
}

#[test]
fn after_a_failed_write_only_a_snapshot_opens_the_journal_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_of(dir.path(), 0);
    fs::write(&path, b"").unwrap();
    let (jobs, received) = channel();
    let wants_snapshot = Arc::new(AtomicBool::new(false));
    let mut writer = Writer {
        dir: dir.path().to_owned(),
        generation: 0,
        // Open for reading only: every write fails, as on a full disk.
        file: File::open(&path).unwrap(),
        length: 0,
        snapshot_after: u64::MAX,
        broken: false,
        wants_snapshot: Arc::clone(&wants_snapshot),
    };
    let thread = std::thread::spawn(move || writer.run(&received));
    let journal = Journal { jobs, wants_snapshot, thread };
    assert!(append(&journal, "a").is_err());
    assert!(append(&journal, "b").is_err());
    assert!(journal.wants_snapshot.load(Ordering::Acquire));
    let mut state = State::default();
    state.apply(named("a"));
    state.apply(named("b"));
    journal.jobs.send(Job::Snapshot(Box::new(state))).unwrap();
    let start = Instant::now();
    append(&journal, "c").unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    close(journal);
    assert_eq!(ids(dir.path()), ["a", "b", "c"]);
}
