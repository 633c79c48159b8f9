//! What lies where in the state file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `clear` | name | in the clear: schema version, salt, key check, their checksum |
//! | `meta` | name | sealed: configuration, session, seq reservation, evictions not told yet |
//! | `outbox` | kind, seq | sealed `Envelope`; kind and size can be read without unsealing |
//! | `runs` | run_id | sealed `RunRecord` as JSON |
//! | `quarantine` | table, key | a record that did not open or decode, or that the server refused, as it was |

use super::fault::Fault;
use super::seal::{SALT_BYTES, Sealer};
use crate::model::MessageKind;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use ring::digest::{SHA256, digest};
use secrecy::SecretString;

/// Of this layout. A file with a higher one was made by a newer agent, and is left alone.
pub(super) const SCHEMA: u32 = 1;

pub(super) const CLEAR: TableDefinition<&str, &[u8]> = TableDefinition::new("clear");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const OUTBOX: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("outbox");
pub(super) const RUNS: TableDefinition<&str, &[u8]> = TableDefinition::new("runs");
pub(super) const QUARANTINE: TableDefinition<(&str, &[u8]), &[u8]> = TableDefinition::new("quarantine");

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
}

/// Names in [`CLEAR`].
const SCHEMA_NAME: &str = "schema";
const SALT_NAME: &str = "salt";
const CHECK_NAME: &str = "check";
/// SHA-256 of the three: with it, a check that does not open is a wrong key and not damage.
const SUM_NAME: &str = "sum";

/// What the key check seals.
const CHECK: &[u8] = b"backupy-agent";

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
    txn.open_table(META)?;
    txn.open_table(OUTBOX)?;
    txn.open_table(RUNS)?;
    txn.open_table(QUARANTINE)?;
    Ok(sealer)
}

/// The sealer of an existing file, if it was made with this agent key.
pub(super) fn unlock(db: &Database, agent_key: &SecretString) -> Result<Sealer, Fault> {
    let clear = db.begin_read()?.open_table(CLEAR)?;
    let value = |name: &'static str| match clear.get(name)? {
        Some(value) => Ok(value.value().to_vec()),
        None => Err(Fault::Damaged(format!("its {name} is missing"))),
    };
    let (schema, salt, check) = (value(SCHEMA_NAME)?, value(SALT_NAME)?, value(CHECK_NAME)?);
    if value(SUM_NAME)? != sum(&schema, &salt, &check) || salt.len() != SALT_BYTES {
        return Err(Fault::Damaged("its head does not match its checksum".into()));
    }
    match schema.try_into().map(u32::from_le_bytes) {
        Ok(SCHEMA) => {}
        Ok(other) => {
            return Err(Fault::Unusable(format!(
                "its layout has version {other} and this agent knows {SCHEMA}: run the agent that wrote it, or a newer one"
            )));
        }
        Err(_) => return Err(Fault::Damaged("its layout has no version".into())),
    }
    let sealer = Sealer::new(agent_key, &salt)?;
    match sealer.open("clear", CHECK_NAME.as_bytes(), &check) {
        Ok(content) if content == CHECK => Ok(sealer),
        Ok(_) => Err(Fault::Damaged("its key check holds something else".into())),
        Err(_) => Err(Fault::WrongKey),
    }
}

fn sum(schema: &[u8], salt: &[u8], check: &[u8]) -> Vec<u8> {
    digest(&SHA256, &[schema, salt, check].concat()).as_ref().to_vec()
}
