//! A dump that comes back out of an object: known by its first bytes, and held against the same form, with the same
//! counting, as when it was made.

use super::form::{Form, FormError};
use super::mysql::Script;
use super::postgres::Archive;
use super::redis::{self, Rdb};
use super::sqlite::Image;
use super::tally::Tally;
use crate::model::Engine;
use std::io;

/// So many bytes say which engine's dump it is.
pub const HEAD_LEN: usize = 256;

/// Where a script of MySQL or MariaDB names its tool.
const MARIADB: &[u8] = b"-- MariaDB dump ";
const MYSQL: &[u8] = b"-- MySQL dump ";

const MONGODB_MAGIC: &[u8] = &[0x6d, 0xe2, 0x99, 0x81];
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// The engine whose dumps begin so.
pub fn engine_of(head: &[u8]) -> Option<Engine> {
    let has = |text: &[u8]| head.windows(text.len()).any(|part| part == text);
    [
        (b"PGDMP" as &[u8], Engine::Postgresql),
        (SQLITE_MAGIC, Engine::Sqlite),
        (MONGODB_MAGIC, Engine::Mongodb),
    ]
    .into_iter()
    .chain(redis::MAGICS.map(|magic| (magic, Engine::Redis)))
    .find_map(|(magic, engine)| head.starts_with(magic).then_some(engine))
    .or_else(|| has(MARIADB).then_some(Engine::Mariadb))
    .or_else(|| has(MYSQL).then_some(Engine::Mysql))
}

/// Reads one dump.
pub struct DumpReader(Kind);

enum Kind {
    Postgres(Box<Archive>),
    Script(Box<Script>),
    Rdb(Box<Rdb>),
    Image(Box<Image>),
}

impl DumpReader {
    /// For dumps of that engine; None where nobody reads them here.
    pub fn of(engine: Engine) -> Option<Self> {
        Some(Self(match engine {
            Engine::Postgresql => Kind::Postgres(Box::new(Archive::new())),
            Engine::Mysql | Engine::Mariadb => Kind::Script(Box::default()),
            Engine::Redis => Kind::Rdb(Box::new(Rdb::new())),
            Engine::Sqlite => Kind::Image(Box::default()),
            Engine::Mongodb => return None,
        }))
    }

    fn form(&mut self) -> &mut dyn Form {
        match &mut self.0 {
            Kind::Postgres(form) => form.as_mut(),
            Kind::Script(form) => form.as_mut(),
            Kind::Rdb(form) => form.as_mut(),
            Kind::Image(form) => form.as_mut(),
        }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.form().take(bytes, &mut io::sink()).map_err(problem)
    }

    /// There are no more.
    ///
    /// # Errors
    /// Where the dump is not whole.
    pub fn finish(&mut self) -> Result<(), String> {
        self.form().finish(&mut io::sink()).map_err(problem)
    }

    /// The tables and their rows, after the end. `roots` are the tables of a SQLite database with their root pages,
    /// which only SQLite knows.
    pub fn tally(&mut self, roots: &[(String, u32)]) -> Option<Tally> {
        match &mut self.0 {
            Kind::Image(image) => image.pages().tally(roots),
            Kind::Postgres(_) | Kind::Script(_) | Kind::Rdb(_) => self.form().tally(),
        }
    }

    /// Of PostgreSQL's texts and rows, by its own name; None until it has come.
    pub fn encoding(&self) -> Option<&str> {
        match &self.0 {
            Kind::Postgres(archive) => archive.encoding(),
            Kind::Script(_) | Kind::Rdb(_) | Kind::Image(_) => None,
        }
    }
}

fn problem(error: FormError) -> String {
    match error {
        FormError::Wrong(problem) => problem,
        FormError::Output(cause) => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_known_by_how_its_dumps_begin() {
        for (head, engine) in [
            (&b"PGDMP\x01\x0f"[..], Some(Engine::Postgresql)),
            (b"REDIS0010", Some(Engine::Redis)),
            (b"VALKEY080", Some(Engine::Redis)),
            (b"SQLite format 3\0", Some(Engine::Sqlite)),
            (b"\x6d\xe2\x99\x81x", Some(Engine::Mongodb)),
            (b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19", Some(Engine::Mariadb)),
            (b"-- MySQL dump 10.13  Distrib 8.0.36", Some(Engine::Mysql)),
            (b"SELECT 1;", None),
            (b"", None),
        ] {
            assert_eq!(engine_of(head), engine);
        }
    }
}
