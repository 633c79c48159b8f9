//! SQLite: no server and no tool, and the same contract as far as it goes.

use crate::contract::{Database, NAME};
use crate::restored::look_at;
use crate::run::{CANCEL_LIMIT, Site, megabytes, timed};
use backupy_agent::model::{Connection, Engine as Kind, RunOutcome, Strategy, TargetSpec};
use ring::digest::{Context, SHA256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

crate::contract!(Sqlite);

pub struct Sqlite(TempDir);

impl Sqlite {
    fn path(&self) -> PathBuf {
        self.0.path().join(NAME)
    }

    fn open(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

impl Database for Sqlite {
    const VERSION: &'static str = "SQLite 3.";

    fn start() -> Self {
        let sqlite = Self(tempfile::tempdir().unwrap());
        sqlite.open().execute_batch("PRAGMA journal_mode = wal; PRAGMA user_version = 1").unwrap();
        sqlite
    }

    fn tools() -> Vec<PathBuf> {
        Vec::new()
    }

    fn fill(&self, bytes: u64) {
        let text = format!(
            "PRAGMA synchronous = off; BEGIN;
             CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, b BLOB); CREATE TABLE \"-empty \u{fc}\"(a);
             CREATE TABLE bare(k TEXT PRIMARY KEY, n) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
               INSERT INTO t SELECT i, hex(randomblob(50)) || ' row \u{1f511} ' || i, randomblob(70) FROM n;
             INSERT INTO bare SELECT 'key ' || id, id FROM t WHERE id % 50 = 0;
             CREATE INDEX by_b ON t(b); CREATE VIEW w AS SELECT count(*) FROM t; COMMIT",
            bytes / 300
        );
        self.open().execute_batch(&text).unwrap();
    }

    /// A checksum over every row and every statement of the schema, and SQLite's own check.
    fn digest(&self) -> String {
        let db = self.open();
        let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        let mut sum = Context::new(&SHA256);
        let mut add = |sql: &str| {
            let mut statement = db.prepare(sql).unwrap();
            let mut rows = statement.query([]).unwrap();
            let mut count = 0;
            while let Some(row) = rows.next().unwrap() {
                sum.update(row.get_ref(0).unwrap().as_str().unwrap().as_bytes());
                count += 1;
            }
            count
        };
        if add("SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1") > 0 {
            add("SELECT id || v || hex(b) FROM t ORDER BY id");
            add("SELECT k || n FROM bare ORDER BY k");
            add("SELECT count(*) || '' FROM \"-empty \u{fc}\"");
        }
        data_encoding::HEXLOWER.encode(sum.finish().as_ref())
    }

    fn restore(&self, dump: &Path) {
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(self.0.path().join(format!("{NAME}{end}")));
        }
        std::fs::copy(dump, self.path()).unwrap();
    }

    fn target(&self) -> TargetSpec {
        TargetSpec {
            id: "t1".into(),
            engine: Some(Kind::Sqlite),
            display_name: "main".into(),
            connection: Connection {
                database: self.path().display().to_string(),
                strategy: Strategy::Tcp,
                ..Connection::default()
            },
        }
    }
}

#[test]
#[ignore = "with the other engines: make engines"]
fn a_file_that_is_gone_or_goes_is_a_failure_in_words_or_a_whole_backup() {
    let source = Sqlite::start();
    source.fill(4 << 20);
    let mut target = source.target();
    target.connection.database.push_str(" no more");
    assert!(Site::new(&[]).failure(&target).contains("does not exist"));

    // Its name goes away while it is read: what is read is whole all the same.
    let site = Site::new(&[]).slow();
    let expected = source.digest();
    let going = site.begin(&source.target());
    site.until_spooling();
    for name in std::fs::read_dir(source.0.path()).unwrap() {
        std::fs::remove_file(name.unwrap().path()).unwrap();
    }
    let outcome = site.end(going);
    assert!(matches!(outcome, RunOutcome::Completed(_)), "{outcome:?}");
    let second = Sqlite::start();
    second.restore(&site.opened());
    assert_eq!(second.digest(), expected);
}

#[test]
#[ignore = "with the other engines: make engines"]
fn a_stopped_run_ends_in_the_middle() {
    let source = Sqlite::start();
    source.fill(16 << 20);
    let site = Site::new(&[]).slow();
    let going = site.begin(&source.target());
    site.until_spooling();
    going.cancel.cancel();
    let (outcome, took) = timed(|| site.end(going));
    assert_eq!(outcome, RunOutcome::Cancelled);
    assert!(took < CANCEL_LIMIT, "{took:?}");
}

#[test]
#[ignore = "with the other engines: make engines"]
fn a_backup_is_restored_for_a_look_and_compared() {
    let source = Sqlite::start();
    source.fill(megabytes() << 20);
    let site = Site::new(&[]);
    let completed = site.success(&source.target());
    let told = look_at(&site, completed, Sqlite::VERSION);
    assert_eq!(told["restored"]["tables"].as_object().unwrap().len(), 3, "{told}");
}
