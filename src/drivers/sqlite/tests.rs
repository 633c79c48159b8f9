//! Real databases, real writers.

use super::*;
use crate::model::{Connection as Place, Engine, Strategy};
use crate::spool::Room;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    restarts: u32,
    /// Called before each write, with the bytes so far.
    before: Option<Box<dyn FnMut(usize)>>,
}

impl Taken {
    fn watched(before: Box<dyn FnMut(usize)>) -> Self {
        Self { before: Some(before), ..Self::default() }
    }
}

impl Write for Taken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(before) = &mut self.before {
            before(self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Taken {
    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        self.restarts += 1;
        Ok(())
    }
}

fn target(path: &Path) -> TargetSpec {
    TargetSpec {
        id: "t1".into(),
        engine: Some(Engine::Sqlite),
        display_name: "main".into(),
        connection: Place { database: path.display().to_string(), ..Place::default() },
    }
}

fn scratch(dir: &Path) -> Scratch {
    Scratch { dir: dir.to_owned(), room: Room::default() }
}

/// A database with rows that do not look alike.
fn make(path: &Path, journal: &str, rows: u32) -> Connection {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", journal).unwrap();
    db.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, n INTEGER, text TEXT); CREATE TABLE total(n INTEGER); INSERT INTO total VALUES(0)").unwrap();
    add_rows(&db, rows);
    db
}

/// Adds rows; the sum in `total` is right in every committed state.
fn add_rows(db: &Connection, rows: u32) {
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    {
        let mut insert = db.prepare_cached("INSERT INTO a(n, text) VALUES(?1, ?2)").unwrap();
        for n in 0..rows {
            insert.execute((n, format!("row {n} {}", "x".repeat((n % 300) as usize)))).unwrap();
        }
    }
    db.execute("UPDATE total SET n = (SELECT sum(n) FROM a)", []).unwrap();
    db.execute_batch("COMMIT").unwrap();
}

fn open(path: &Path, manners: Manners) -> Result<Sqlite, DumpError> {
    let dir = path.parent().unwrap();
    Sqlite::open_with(&target(path), scratch(dir), manners, &Cancel::new())
}

fn refused(path: &Path) -> String {
    let manners = Manners { lock_wait: Duration::from_millis(300), ..Manners::default() };
    open(path, manners).err().expect("it is refused").to_string()
}

/// The bytes are a whole database whose content belongs together.
fn assert_consistent(bytes: &[u8]) -> u32 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("restored.db");
    std::fs::write(&path, bytes).unwrap();
    let db = Connection::open(&path).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let (sum, total, rows): (i64, i64, u32) = db
        .query_row("SELECT sum(n), (SELECT n FROM total), count(*) FROM a", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(sum, total, "rows and total are of one transaction");
    rows
}

#[test]
fn a_quiet_database_comes_out_byte_for_byte() {
    for (journal, short_lock_bytes) in [("wal", 0), ("delete", u64::MAX), ("delete", 0)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(make(&path, journal, 20_000));
        let manners = Manners { short_lock_bytes, window: Duration::from_millis(2), ..Manners::default() };
        let mut sqlite = open(&path, manners).unwrap();
        let mut out = Taken::default();
        let bytes = sqlite.dump(&mut out, &Cancel::new()).unwrap();
        assert_eq!(bytes, out.bytes.len() as u64);
        assert_eq!(sqlite.estimate(&Cancel::new()).unwrap(), bytes);
        assert!(out.bytes == std::fs::read(&path).unwrap(), "{journal}");
        assert!(out.bytes.starts_with(sqlite.magic()));
        assert_eq!(sqlite.engine_version(), format!("SQLite {}", rusqlite::version()));
        assert_eq!(out.restarts, 0);
        assert_eq!(assert_consistent(&out.bytes), 20_000);
    }
}

#[test]
fn a_symbolic_link_leads_to_its_database_and_what_its_log_holds() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let real = dir.path().join("real.db");
    let _writer = make(&real, "wal", 500);
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut out = Taken::default();
    open(&link, Manners::default()).unwrap().dump(&mut out, &Cancel::new()).unwrap();
    assert_eq!(assert_consistent(&out.bytes), 500);
}

#[test]
fn a_wal_database_under_write_load_gives_one_snapshot_and_its_writer_is_never_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy.db");
    let writer = make(&path, "wal", 20_000);
    let stop = Arc::new(AtomicBool::new(false));
    let commits = Arc::new(AtomicU32::new(0));
    let thread = std::thread::spawn({
        let (stop, commits) = (stop.clone(), commits.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                // No busy timeout: a lock in the way would be an error here.
                add_rows(&writer, 200);
                writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
                commits.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut sqlite = open(&path, Manners::default()).unwrap();
    let mut out = Taken::default();
    // Every 100 pages the stream waits for a commit of the writer: they do go on side by side.
    let seen = Arc::new(AtomicU32::new(0));
    out.before = Some(Box::new({
        let (commits, seen) = (commits.clone(), seen.clone());
        let start = commits.load(Ordering::SeqCst);
        move |bytes| {
            if bytes % (4096 * 100) == 0 {
                let wanted = seen.fetch_add(1, Ordering::SeqCst) + 1 + start;
                while commits.load(Ordering::SeqCst) < wanted {
                    std::thread::yield_now();
                }
            }
        }
    }));
    sqlite.dump(&mut out, &Cancel::new()).unwrap();
    assert!(!thread.is_finished(), "the writer was never refused");
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    assert!(seen.load(Ordering::SeqCst) > 5, "the writer committed during the stream");
    assert!(assert_consistent(&out.bytes) >= 20_000);
}

#[test]
fn a_large_rollback_database_lets_writers_through_and_starts_over_after_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.db");
    let writer = make(&path, "delete", 20_000);
    writer.busy_timeout(Duration::from_secs(20)).unwrap();
    let manners = Manners { short_lock_bytes: 0, window: Duration::from_millis(1), ..Manners::default() };
    let mut sqlite = open(&path, manners).unwrap();
    let probe = Connection::open(&path).unwrap();
    let mut writer = Some(writer);
    let mut out = Taken::watched(Box::new(move |bytes| {
        if bytes == 4096 * 10
            && let Some(writer) = writer.take()
        {
            std::thread::spawn(move || add_rows(&writer, 50));
            // Until the writer has all but committed: it waits for the end of this window, and no
            // new reader gets in before it.
            while probe.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).is_ok() {
                std::thread::yield_now();
            }
        }
    }));
    sqlite.dump(&mut out, &Cancel::new()).unwrap();
    assert_eq!(out.restarts, 1);
    assert_eq!(assert_consistent(&out.bytes), 20_050);
}

#[test]
fn a_rollback_database_that_is_written_to_all_the_time_is_streamed_from_a_sealed_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.db");
    let writer = make(&path, "delete", 20_000);
    writer.busy_timeout(Duration::from_secs(20)).unwrap();
    let manners = Manners { short_lock_bytes: 0, window: Duration::ZERO, attempts: 2, ..Manners::default() };
    let mut sqlite = open(&path, manners).unwrap();
    let mut out = Taken::default();
    // A window of no length reads nothing: each pass between two windows the writer commits.
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::SeqCst) {
                add_rows(&writer, 1);
            }
        }
    });
    let dumped = sqlite.dump(&mut out, &Cancel::new());
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    assert_eq!(dumped.unwrap(), out.bytes.len() as u64);
    assert_eq!(out.restarts, 2);
    assert!(assert_consistent(&out.bytes) >= 20_000);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["r.db"], "the copy has no name");
}

#[test]
fn what_is_no_database_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    drop(make(&at("real.db"), "delete", 10));
    std::fs::write(at("garbage.db"), [7_u8; 8192]).unwrap();
    std::fs::write(at("empty.db"), "").unwrap();
    std::os::unix::fs::symlink(at("nowhere.db"), at("link.db")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, expected) in [
        ("none.db", "does not exist"),
        ("garbage.db", "is not a SQLite database, or it is encrypted"),
        ("empty.db", "is empty (0 bytes)"),
        ("link.db", "is a symbolic link that leads nowhere"),
        ("fifo", "is not a regular file"),
        ("", "is a directory"),
    ] {
        let text = refused(&at(name));
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.starts_with(&dir.path().display().to_string()), "the path is named: {text}");
    }
    assert!(!at("none.db").exists(), "a missing database is not made");
    assert!(refused(Path::new("real.db")).contains("not an absolute path"));

    let mut unnamed = target(Path::new("/x"));
    unnamed.connection.database = String::new();
    let error = Sqlite::open(&unnamed, scratch(dir.path()), &Cancel::new()).err().unwrap();
    assert!(error.to_string().contains("names no file"), "{error}");
    let mut docker = target(Path::new("/x"));
    docker.connection.strategy = Strategy::DockerExec;
    assert!(supports(&docker).unwrap_err().to_string().contains("path on the host"));
}

#[test]
fn a_locked_database_is_waited_for_and_then_refused_and_the_wait_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.db");
    let holder = make(&path, "delete", 10);
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let text = refused(&path);
    assert!(text.contains("stayed locked by another process"), "{text}");

    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = Sqlite::open(&target(&path), scratch(dir.path()), &cancel).err().unwrap();
    assert!(matches!(stopped, DumpError::Cancelled), "{stopped}");
    holder.execute_batch("ROLLBACK").unwrap();
    open(&path, Manners::default()).unwrap();
}

#[test]
fn a_damaged_file_is_a_failure_and_never_a_short_success() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.db");
    drop(make(&path, "delete", 20_000));
    let size = path.metadata().unwrap().len();
    // What stands behind the last page is not the database's.
    let resize = |len| std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
    resize(size + 10);
    let whole = open(&path, Manners::default()).unwrap().dump(&mut Taken::default(), &Cancel::new());
    assert_eq!(whole.unwrap(), size);
    for len in [size - 1, size / 2 / 4096 * 4096] {
        resize(len);
        let error = match open(&path, Manners::default()) {
            Err(error) => error,
            Ok(mut sqlite) => sqlite.dump(&mut Taken::default(), &Cancel::new()).unwrap_err(),
        };
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn a_stopped_run_ends_in_the_middle_of_a_stream() {
    for short_lock_bytes in [0, u64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.db");
        drop(make(&path, "delete", 20_000));
        let mut sqlite = open(&path, Manners { short_lock_bytes, ..Manners::default() }).unwrap();
        let cancel = Cancel::new();
        let mut out = Taken::watched(Box::new({
            let cancel = cancel.clone();
            move |bytes| {
                if bytes >= 4096 * 5 {
                    cancel.cancel()
                }
            }
        }));
        let error = sqlite.dump(&mut out, &cancel).unwrap_err();
        assert!(matches!(error, DumpError::Cancelled), "{error}");
        assert!(out.bytes.len() < 4096 * 8);
    }
}
