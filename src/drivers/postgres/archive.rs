//! The custom format of pg_dump, read as it passes: is every block of data there that the table of contents promises?
//!
//! ```text
//! "PGDMP" version sizes format | compression | time | names | count | entries | blocks of data
//! entry: id, has data, texts ..., dependencies, place
//! block: 1, id, chunks (length, bytes) ..., 0         of a table
//!        3, id, (oid, chunks ..., 0) ..., 0           of large objects
//! ```
//!
//! Numbers have a sign byte and as many bytes as the head says; a text is a number and so many bytes, -1 for none.
//! The rows of each table are counted in its block ([`super::rows`]).
//!
//! The format is versions 1.12 to 1.16: PostgreSQL 9.0 to 18. Another one is passed on unread, and said so.

use super::super::form::{Form, FormError, wrong};
use super::super::tally::Tally;
use super::lexer::{Lexer, Token, Want};
use super::rows::TableData;
use std::collections::HashSet;
use std::io::Write;

/// What every archive begins with.
pub const MAGIC: &[u8; 5] = b"PGDMP";

/// Magic, three bytes of version, two of sizes, one of format.
const HEAD_LEN: usize = 11;

/// The custom format's number.
const CUSTOM: u8 = 1;

const OLDEST: (u8, u8) = (1, 12);
const NEWEST: (u8, u8) = (1, 16);

/// A byte for the algorithm instead of a number for the level.
const ALGORITHM_SINCE: (u8, u8) = (1, 15);
/// Entries name the table's access method.
const ACCESS_METHOD_SINCE: (u8, u8) = (1, 14);
/// Entries name the relation's kind.
const RELKIND_SINCE: (u8, u8) = (1, 16);

/// Seconds, minutes, hours, day, month, year, daylight saving.
const TIME_NUMBERS: u8 = 7;

const TABLE_BLOCK: u8 = 1;
const LARGE_OBJECTS_BLOCK: u8 = 3;

/// Where in the archive the reader stands: what the token is that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Compression,
    Time(u8),
    Database,
    ServerVersion,
    ToolVersion,
    Count,
    EntryId,
    HasData,
    /// Five texts before the section: two oids, tag, description; then the section's number.
    Oids(u8),
    Section,
    /// Definition, drop, copy, schema, tablespace, and the access method where there is one.
    Definitions(u8),
    Relkind,
    Owner,
    WithOids,
    Dependency,
    Place,
    Block,
    BlockId,
    ChunkLen,
    Chunk,
    ObjectOid,
    ObjectChunkLen,
    ObjectChunk,
}

/// Holds an archive against its own table of contents.
pub struct Archive {
    lexer: Lexer,
    contents: Contents,
}

/// What was read of it.
struct Contents {
    at: At,
    version: (u8, u8),
    number_len: u8,
    offset_len: usize,
    entries_left: i64,
    entry: i64,
    block: u8,
    /// Entries whose data has not come yet.
    awaited: HashSet<i64>,
    promised: usize,
    server_version: Option<String>,
    tables: TableData,
    /// A version that this reader does not know: only passed on.
    unread: bool,
}

impl Archive {
    /// Before the first byte.
    pub fn new() -> Self {
        let contents = Contents {
            at: At::Head,
            version: OLDEST,
            number_len: 4,
            offset_len: 0,
            entries_left: 0,
            entry: 0,
            block: 0,
            awaited: HashSet::new(),
            promised: 0,
            server_version: None,
            tables: TableData::default(),
            unread: false,
        };
        Self { lexer: Lexer::new(Want::Raw(HEAD_LEN)), contents }
    }

    /// Of the server that was dumped, as the archive's head says.
    pub fn server_version(&self) -> Option<&str> {
        self.contents.server_version.as_deref()
    }

    /// The encoding of its texts and rows, by PostgreSQL's name; None until it has come.
    pub fn encoding(&self) -> Option<&str> {
        self.contents.tables.encoding()
    }

    /// Whether its version is one that this reader does not know.
    pub fn was_unread(&self) -> bool {
        self.contents.unread
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), FormError> {
        let Self { lexer, contents } = self;
        while !contents.unread {
            let before = bytes;
            let token = lexer.next(&mut bytes)?;
            if contents.at == At::Chunk && contents.block == TABLE_BLOCK {
                contents.tables.data(before.get(..before.len() - bytes.len()).unwrap_or_default());
            }
            let Some(token) = token else { break };
            let length = if let Token::Number(number) = token { number } else { 0 };
            contents.at = contents.step(token)?;
            if !lexer.set_number_len(contents.number_len) {
                return wrong("its head has an impossible size of numbers");
            }
            lexer.expect(contents.want(length)?);
        }
        Ok(())
    }
}

impl Contents {
    /// The next place, after this one was read.
    fn step(&mut self, token: Token<'_>) -> Result<At, FormError> {
        Ok(match (self.at, token) {
            (At::Head, Token::Raw(head)) => self.head(head)?,
            (At::Compression, _) => At::Time(0),
            (At::Time(read), _) if read + 1 < TIME_NUMBERS => At::Time(read + 1),
            (At::Time(_), _) => At::Database,
            (At::Database, _) => At::ServerVersion,
            (At::ServerVersion, Token::Text(version)) => {
                self.server_version = version.map(|text| String::from_utf8_lossy(text).into_owned());
                At::ToolVersion
            }
            (At::ToolVersion, _) => At::Count,
            (At::Count, Token::Number(count)) if count >= 0 => {
                self.entries_left = count;
                self.next_entry()
            }
            (At::EntryId, Token::Number(id)) => {
                self.entry = id;
                At::HasData
            }
            (At::HasData, Token::Number(flag)) => {
                if flag != 0 {
                    self.awaited.insert(self.entry);
                    self.promised += 1;
                }
                self.tables.entry(self.entry, flag != 0);
                At::Oids(0)
            }
            (At::Oids(read), Token::Text(text)) => {
                match read {
                    2 => self.tables.tag(text),
                    3 => self.tables.kind(text),
                    _ => {}
                }
                if read < 3 { At::Oids(read + 1) } else { At::Section }
            }
            (At::Section, _) => At::Definitions(0),
            (At::Definitions(read), Token::Text(text)) => {
                match read {
                    0 => self.tables.definition(text),
                    3 => self.tables.schema(text),
                    _ => {}
                }
                self.after_definition(read)
            }
            (At::Relkind, _) => At::Owner,
            (At::Owner, _) => At::WithOids,
            (At::WithOids, _) => At::Dependency,
            (At::Dependency, Token::Text(Some(_))) => At::Dependency,
            (At::Dependency, _) => At::Place,
            (At::Place, _) => self.next_entry(),
            (at, token) => self.data_step(at, token)?,
        })
    }

    /// The same for the blocks behind the table of contents.
    fn data_step(&mut self, at: At, token: Token<'_>) -> Result<At, FormError> {
        Ok(match (at, token) {
            (At::Block, Token::Raw(&[block @ (TABLE_BLOCK | LARGE_OBJECTS_BLOCK)])) => {
                self.block = block;
                At::BlockId
            }
            (At::BlockId, Token::Number(id)) => {
                self.entry = id;
                if !self.awaited.contains(&id) {
                    return wrong(format!(
                        "data of entry {id} is there that its table of contents does not know"
                    ));
                }
                if self.block == TABLE_BLOCK { At::ChunkLen } else { At::ObjectOid }
            }
            (At::ChunkLen | At::ObjectOid, Token::Number(0)) => {
                self.awaited.remove(&self.entry);
                self.tables.ended(self.entry);
                At::Block
            }
            (At::ChunkLen, Token::Number(_)) => At::Chunk,
            (At::Chunk, _) => At::ChunkLen,
            (At::ObjectOid, Token::Number(_)) => At::ObjectChunkLen,
            (At::ObjectChunkLen, Token::Number(0)) => At::ObjectOid,
            (At::ObjectChunkLen, Token::Number(_)) => At::ObjectChunk,
            (At::ObjectChunk, _) => At::ObjectChunkLen,
            (at, _) => return wrong(format!("its table of contents cannot be read (at {at:?})")),
        })
    }

    fn head(&mut self, head: &[u8]) -> Result<At, FormError> {
        let &[_, _, _, _, _, major, minor, _revision, number_len, offset_len, format] = head else {
            return wrong("its head is too short");
        };
        if !head.starts_with(MAGIC) {
            return wrong("it does not begin with PGDMP");
        }
        self.version = (major, minor);
        self.offset_len = usize::from(offset_len);
        if self.version > NEWEST || self.version < OLDEST {
            self.unread = true;
            return Ok(At::Head);
        }
        self.number_len = number_len;
        if format != CUSTOM || !(1..=8).contains(&offset_len) {
            return wrong("its head names another format than pg_dump's custom one");
        }
        Ok(At::Compression)
    }

    fn next_entry(&mut self) -> At {
        if self.entries_left == 0 {
            return At::Block;
        }
        self.entries_left -= 1;
        At::EntryId
    }

    fn after_definition(&self, read: u8) -> At {
        let last = if self.version >= ACCESS_METHOD_SINCE { 5 } else { 4 };
        match (read < last, self.version >= RELKIND_SINCE) {
            (true, _) => At::Definitions(read + 1),
            (false, true) => At::Relkind,
            (false, false) => At::Owner,
        }
    }

    /// What kind of token stands at the place; `last` is the number before it, where it is a length.
    fn want(&self, last: i64) -> Result<Want, FormError> {
        Ok(match self.at {
            At::Head => Want::Raw(HEAD_LEN),
            At::Compression if self.version >= ALGORITHM_SINCE => Want::Raw(1),
            At::Block => Want::Raw(1),
            At::Place => Want::Raw(1 + self.offset_len),
            At::Chunk | At::ObjectChunk => match u64::try_from(last) {
                Ok(len) => Want::Skip(len),
                Err(_) => return wrong("a block of its data has a negative length"),
            },
            At::Database
            | At::ServerVersion
            | At::ToolVersion
            | At::Oids(_)
            | At::Definitions(_)
            | At::Owner
            | At::WithOids
            | At::Dependency => Want::Text,
            At::Compression
            | At::Time(_)
            | At::Count
            | At::EntryId
            | At::HasData
            | At::Section
            | At::Relkind
            | At::BlockId
            | At::ChunkLen
            | At::ObjectOid
            | At::ObjectChunkLen => Want::Number,
        })
    }
}

impl Form for Archive {
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        self.read(bytes)?;
        Ok(out.write_all(bytes)?)
    }

    fn finish(&mut self, _: &mut dyn Write) -> Result<(), FormError> {
        let Contents { at, awaited, promised, unread, .. } = &self.contents;
        let at_the_end = *at == At::Block && self.lexer.is_between() && awaited.is_empty();
        if *unread || at_the_end {
            return Ok(());
        }
        let whole = promised - awaited.len();
        wrong(format!("it ends in the middle: the data of {whole} of {promised} entries is there, whole"))
    }

    fn tally(&mut self) -> Option<Tally> {
        (!self.contents.unread).then(|| self.contents.tables.take())
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
