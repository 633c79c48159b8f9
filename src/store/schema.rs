//! What lies where in the state file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `clear` | name | in the clear: schema version, salt, key check, their checksum |
//! | `meta` | name | sealed: configuration, session, seq reservation, evictions not told yet |
//! | `outbox` | kind, seq | sealed `Envelope`; kind and size can be read without unsealing |
//! | `runs` | run_id | sealed `RunRecord` as JSON |
//! | `quarantine` | table, key | a record that did not open or decode, or that the server refused, as it was |
//! | `quarantine_notes` | table, key | when it was set aside, and why |
//!
//! The head (layout, salt, key check) is also kept as one value of `meta`, in the clear: without the salt
//! nothing opens, and the pages of `meta` are written so often that copies of it lie all over the file.

use super::fault::Fault;
use super::seal::{OVERHEAD_BYTES, SALT_BYTES, Sealer};
use crate::model::{MessageKind, RunRecord};
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use ring::digest::{SHA256, digest};
use secrecy::SecretString;
use std::io::{self, Write};
use zeroize::Zeroizing;

/// Of this layout. A file with a higher one was made by a newer agent, and is left alone.
pub(super) const SCHEMA: u32 = 1;

pub(super) const CLEAR: TableDefinition<&str, &[u8]> = TableDefinition::new("clear");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const OUTBOX: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("outbox");
pub(super) const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
pub(super) const QUARANTINE: TableDefinition<(&str, &[u8]), &[u8]> = TableDefinition::new("quarantine");
/// Unix milliseconds, and the number of the reason.
pub(super) const QUARANTINE_NOTES: TableDefinition<(&str, &[u8]), (u64, u8)> =
    TableDefinition::new("quarantine_notes");

/// Names in [`META`], and what their values seal.
pub(super) mod meta {
    /// `AgentConfig.version`, 8 bytes little-endian, then the encoded message.
    pub const CONFIG: &str = "config";
    /// UTF-8.
    pub const SESSION: &str = "session";
    /// The first seq that is not reserved, 8 bytes little-endian.
    pub const SEQ: &str = "seq";
    /// Evicted and not told: LogEvents, then HealthCheckResults, 8 bytes little-endian each.
    pub const DROPPED: &str = "dropped";
    /// [`super::Head`], in the clear.
    pub const HEAD: &str = "head";
    /// What is carried into a new file as it is; the reservation is held against what was used.
    pub const CARRIED: [&str; 3] = [CONFIG, SESSION, DROPPED];
    /// What is sealed.
    pub const SEALED: [&str; 4] = [CONFIG, SESSION, SEQ, DROPPED];
}

/// Names in [`CLEAR`].
pub(super) const SCHEMA_NAME: &str = "schema";
pub(super) const SALT_NAME: &str = "salt";
pub(super) const CHECK_NAME: &str = "check";
/// SHA-256 of the three: with it, a check that does not open is a wrong key and not damage.
pub(super) const SUM_NAME: &str = "sum";

/// Of that checksum.
const SUM_BYTES: usize = 32;

/// What the key check seals.
const CHECK: &[u8] = b"backupy-agent";

/// What a page adds to a value: its key, the offsets of both, and its share of the branches above. Without
/// it, a queue of small messages would need a file of several times what it is said to hold.
const RECORD_OVERHEAD_BYTES: u64 = 32;

/// What the file needs for a message beside its envelope.
pub const MESSAGE_OVERHEAD_BYTES: u64 = OVERHEAD_BYTES as u64 + RECORD_OVERHEAD_BYTES;

/// What a record with a value of that many bytes takes in the file.
pub(super) fn record_bytes(value: usize) -> u64 {
    value as u64 + RECORD_OVERHEAD_BYTES
}

/// The place that an outbox record's sealing is bound to.
pub(super) fn outbox_place(kind: MessageKind, seq: u64) -> [u8; 9] {
    quarantine_key(kind as u8, seq)
}

/// The key of an outbox record in the quarantine; of any kind, known or not.
pub(super) fn quarantine_key(kind: u8, seq: u64) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = kind;
    key[1..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// No seq that was ever given out is higher: a key that names one is damaged.
pub(super) const MAX_SEQ: u64 = 1 << 53;

/// Nobody knows which seqs were used, only that one was this high. No agent has sent as many messages as
/// milliseconds have passed since 1970; and should the clock stand far back, none sends as many in the
/// time between two reservations as this jump is wide.
pub(super) fn unused_seq(highest_seen: u64, now_ms: u64) -> u64 {
    const JUMP: u64 = 1 << 32;
    now_ms.max(highest_seen.saturating_add(JUMP))
}

/// What must be known before anything can be unsealed. In the clear, under a checksum of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    schema: Vec<u8>,
    salt: Vec<u8>,
    check: Vec<u8>,
}

impl Head {
    /// None where the checksum is not theirs.
    pub(super) fn of(schema: &[u8], salt: &[u8], check: &[u8], sum: &[u8]) -> Option<Self> {
        let whole = salt.len() == SALT_BYTES && sum == self::sum(schema, salt, check);
        whole.then(|| Self { schema: schema.into(), salt: salt.into(), check: check.into() })
    }

    fn encode(&self) -> Vec<u8> {
        let Self { schema, salt, check } = self;
        [schema.as_slice(), salt, check, &sum(schema, salt, check)].concat()
    }

    /// What [`Head::encode`] made.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (schema, rest) = bytes.split_at_checked(size_of::<u32>())?;
        let (salt, rest) = rest.split_at_checked(SALT_BYTES)?;
        let (check, sum) = rest.split_at_checked(rest.len().checked_sub(SUM_BYTES)?)?;
        Self::of(schema, salt, check, sum)
    }

    /// The sealer, if the file was made with this agent key.
    pub(super) fn unlock(&self, agent_key: &SecretString) -> Result<Sealer, Fault> {
        match self.schema.as_slice().try_into().map(u32::from_le_bytes) {
            Ok(SCHEMA) => {}
            Ok(other) => {
                return Err(Fault::Unusable(format!(
                    "its layout has version {other} and this agent knows {SCHEMA}: run the agent that wrote it, or a newer one"
                )));
            }
            Err(_) => return Err(Fault::Damaged("its layout has no version".into())),
        }
        let sealer = Sealer::new(agent_key, &self.salt)?;
        match sealer.open("clear", CHECK_NAME.as_bytes(), &self.check) {
            Ok(content) if content == CHECK => Ok(sealer),
            Ok(_) => Err(Fault::Damaged("its key check holds something else".into())),
            Err(_) => Err(Fault::WrongKey),
        }
    }
}

/// Makes the tables of a new file.
pub(super) fn create(txn: &WriteTransaction, agent_key: &SecretString) -> Result<Sealer, Fault> {
    let salt = Sealer::fresh_salt()?;
    let sealer = Sealer::new(agent_key, &salt)?;
    let check = sealer.seal("clear", CHECK_NAME.as_bytes(), CHECK)?;
    let schema = SCHEMA.to_le_bytes();
    let mut clear = txn.open_table(CLEAR)?;
    clear.insert(SCHEMA_NAME, schema.as_slice())?;
    clear.insert(SALT_NAME, salt.as_slice())?;
    clear.insert(CHECK_NAME, check.as_slice())?;
    clear.insert(SUM_NAME, sum(&schema, &salt, &check).as_slice())?;
    let head = Head { schema: schema.to_vec(), salt: salt.to_vec(), check };
    txn.open_table(META)?.insert(meta::HEAD, head.encode().as_slice())?;
    txn.open_table(OUTBOX)?;
    txn.open_table(RUNS)?;
    txn.open_table(QUARANTINE)?;
    Ok(sealer)
}

/// The head of an open file.
pub(super) fn head(db: &Database) -> Result<Head, Fault> {
    let clear = db.begin_read()?.open_table(CLEAR)?;
    let value = |name: &'static str| match clear.get(name)? {
        Some(value) => Ok(value.value().to_vec()),
        None => Err(Fault::Damaged(format!("its {name} is missing"))),
    };
    let (schema, salt, check) = (value(SCHEMA_NAME)?, value(SALT_NAME)?, value(CHECK_NAME)?);
    let head = Head::of(&schema, &salt, &check, &value(SUM_NAME)?);
    head.ok_or_else(|| Fault::Damaged("its head does not match its checksum".into()))
}

/// The sealer of an existing file, if it was made with this agent key.
pub(super) fn unlock(db: &Database, agent_key: &SecretString) -> Result<Sealer, Fault> {
    head(db)?.unlock(agent_key)
}

fn sum(schema: &[u8], salt: &[u8], check: &[u8]) -> Vec<u8> {
    digest(&SHA256, &[schema, salt, check].concat()).as_ref().to_vec()
}

/// A run's record as it is sealed. It has the run's key in it: a buffer that grows would leave copies behind, so it is
/// counted first.
///
/// # Errors
/// None that a record has.
pub(super) fn run_json(record: &RunRecord) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, record)?;
    let mut json = Zeroizing::new(Vec::with_capacity(count.0));
    serde_json::to_writer(&mut *json, record)?;
    Ok(json)
}

/// Counts what is written to it.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
