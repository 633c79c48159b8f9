//! SQLite: no server and no tool, but the same way from a database to a store and back.

use crate::restored::look_at;
use crate::run::{Site, megabytes};
use backupy_agent::model::{Connection, Engine as Kind, Strategy, TargetSpec};
use rusqlite::Connection as Database;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database in a folder of its own.
struct Sqlite(TempDir);

impl Sqlite {
    fn filled(bytes: u64) -> Self {
        let sqlite = Self(tempfile::tempdir().unwrap());
        let database = Database::open(sqlite.path()).unwrap();
        let sql = format!(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = off; BEGIN;
             CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, b BLOB); CREATE TABLE \"-empty \u{fc}\"(a);
             CREATE TABLE bare(k TEXT PRIMARY KEY, n) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
               INSERT INTO t SELECT i, hex(randomblob(50)) || ' row ' || i, randomblob(70) FROM n;
             INSERT INTO bare SELECT 'key ' || id, id FROM t WHERE id % 50 = 0;
             CREATE INDEX by_b ON t(b); CREATE VIEW w AS SELECT count(*) FROM t; COMMIT",
            bytes / 300
        );
        database.execute_batch(&sql).unwrap();
        sqlite
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("-d o'b \"q\" a=b \u{fc}.db")
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

/// A checksum over every row and every statement of the schema, and SQLite's own check.
fn digest(path: &Path) -> String {
    let database = Database::open(path).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let mut sum = ring::digest::Context::new(&ring::digest::SHA256);
    for sql in [
        "SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1",
        "SELECT id || v || hex(b) FROM t ORDER BY id",
        "SELECT k || n FROM bare ORDER BY k",
        "SELECT count(*) || '' FROM \"-empty \u{fc}\"",
    ] {
        let mut statement = database.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            sum.update(row.get_ref(0).unwrap().as_str().unwrap().as_bytes());
        }
    }
    data_encoding::HEXLOWER.encode(sum.finish().as_ref())
}

#[test]
#[ignore = "long: make engines"]
fn a_backup_restores_to_the_same() {
    let source = Sqlite::filled(megabytes() << 20);
    let site = Site::new(&[]);
    let completed = site.success(&source.target());
    assert!(completed.engine_version.starts_with("SQLite 3."));
    assert_eq!(digest(&site.opened()), digest(&source.path()));
}

#[test]
#[ignore = "long: make engines"]
fn a_backup_is_restored_for_a_look_and_compared() {
    let source = Sqlite::filled(megabytes() << 20);
    let site = Site::new(&[]);
    let completed = site.success(&source.target());
    let told = look_at(&site, completed, "SQLite 3.");
    assert_eq!(told["restored"]["tables"].as_object().unwrap().len(), 3, "{told}");
}
