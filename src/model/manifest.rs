//! What a run saw in the dump as it went by: how many tables and rows a restored copy of it must have.

use serde::{Deserialize, Serialize};

/// The tables and rows of one dump, bounded: the largest by name, all of them in numbers and in a digest.
///
/// Two dumps with the same digest have the same tables with the same numbers of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Tables; of Redis, databases that have keys.
    pub tables: u64,
    /// Rows of all of them; of Redis, keys.
    pub rows: u64,
    /// SHA-256 in lower-case hex over one line `NAME\0ROWS\n` a table, sorted by the bytes of the name.
    pub digest: String,
    /// The tables with the most rows, at most [`Self::MAX_NAMED`], the largest first.
    pub largest: Vec<TableRows>,
}

impl Manifest {
    /// Enough to say in words where a difference is. A manifest lies in the state of the agent for every run that is
    /// kept (256), and in its memory.
    pub const MAX_NAMED: usize = 32;

    /// Of all names together, bytes.
    pub const MAX_NAMES_BYTES: usize = 2048;
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// `schema.table` of PostgreSQL; `table`, or `database.table` in a dump of all databases, of MariaDB and MySQL;
    /// `table` of SQLite; `db0` and so on of Redis.
    pub name: String,
    /// Or keys.
    pub rows: u64,
}
