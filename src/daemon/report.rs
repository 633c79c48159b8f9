//! `state inspect`: what the state file holds, for people and scripts. Said by the running agent, or read
//! from the file of a stopped one; the same either way.

use crate::model::{MessageKind, unix_ms};
use crate::store::{Inspection, Why};
use crate::wire;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the state file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// The state file.
    pub path: PathBuf,
    /// On the disk.
    pub file_bytes: u64,
    /// Of that, keys and values; what is over, the next messages fill.
    pub content_bytes: u64,
    /// Of the file's layout.
    pub layout: u32,
    /// Messages that wait for the server.
    pub messages: Messages,
    /// Runs that are kept.
    pub runs: Runs,
    /// Set aside.
    pub quarantine: Vec<SetAside>,
    /// None without the agent key.
    pub unsealed: Option<Unsealed>,
}

/// Messages that wait for the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// All of them.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
    /// The lowest seq.
    pub first_seq: Option<u64>,
    /// The highest.
    pub last_seq: Option<u64>,
    /// One entry a kind.
    pub by_kind: Vec<OfKind>,
}

/// Messages of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfKind {
    /// The kind.
    pub kind: MessageKind,
    /// How many.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
}

/// Runs that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// All of them.
    pub count: u64,
    /// Not started; None without the agent key, as the next two.
    pub accepted: Option<u64>,
    /// Started and not over.
    pub started: Option<u64>,
    /// Over; kept so that a repeated order gets its result again.
    pub finished: Option<u64>,
}

/// A record in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// `outbox`, `runs` or `meta`.
    pub table: String,
    /// What it is called there: a seq, a run id, a name.
    pub name: String,
    /// Of a message; None where this agent does not know the kind.
    pub kind: Option<MessageKind>,
    /// Of a message.
    pub seq: Option<u64>,
    /// As it lies in the file.
    pub bytes: u64,
    /// When, unix milliseconds; None where an agent set it aside that did not keep that.
    pub at_ms: Option<u64>,
    /// Why, for scripts.
    pub why: Why,
    /// Why, for people.
    pub reason: String,
}

/// What only the agent key shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealed {
    /// When the oldest waiting message was made, unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// Its age, seconds.
    pub oldest_age_s: Option<u64>,
    /// The first seq that no life of the agent has used.
    pub next_seq: u64,
    /// Of the applied configuration.
    pub config_version: Option<u64>,
    /// What the server called the last session.
    pub session_id: Option<String>,
    /// Runs and values that do not open or decode: the agent sets them aside when it starts.
    pub broken: u64,
}

impl StateReport {
    /// For people and scripts.
    pub fn of(inspection: &Inspection) -> Self {
        let Inspection { path, file_bytes, content_bytes, schema, outbox, runs, quarantine, unsealed } =
            inspection;
        let by_kind = outbox.by_kind.iter().map(|(kind, count, bytes)| OfKind {
            kind: *kind,
            count: *count,
            bytes: *bytes,
        });
        let counts = unsealed.as_ref().map(|unsealed| unsealed.runs);
        Self {
            path: path.clone(),
            file_bytes: *file_bytes,
            content_bytes: *content_bytes,
            layout: *schema,
            messages: Messages {
                count: outbox.depth(),
                bytes: outbox.bytes(),
                first_seq: outbox.first_seq,
                last_seq: outbox.last_seq,
                by_kind: by_kind.collect(),
            },
            runs: Runs {
                count: *runs,
                accepted: counts.map(|counts| counts.accepted),
                started: counts.map(|counts| counts.started),
                finished: counts.map(|counts| counts.finished),
            },
            quarantine: quarantine.iter().map(Self::set_aside).collect(),
            unsealed: unsealed.as_ref().map(unsealed_of),
        }
    }

    /// One record of the quarantine.
    pub fn set_aside(record: &crate::store::Quarantined) -> SetAside {
        let message = record.message();
        let name = match message {
            Some((_, seq)) => seq.to_string(),
            None => String::from_utf8(record.key.clone()).unwrap_or_else(|_| HEXLOWER.encode(&record.key)),
        };
        SetAside {
            table: record.table.clone(),
            name,
            kind: message.and_then(|(kind, _)| kind),
            seq: message.map(|(_, seq)| seq),
            bytes: record.value.len() as u64,
            at_ms: record.at_ms,
            why: record.why,
            reason: record.why.text().to_owned(),
        }
    }
}

fn unsealed_of(unsealed: &crate::store::Unsealed) -> Unsealed {
    let oldest = unsealed.oldest.as_ref().and_then(|record| wire::decode(&record.envelope).ok());
    let oldest_ms = oldest.map(|envelope| envelope.ts_ms);
    Unsealed {
        oldest_ms,
        oldest_age_s: oldest_ms.map(|oldest_ms| unix_ms().saturating_sub(oldest_ms) / 1000),
        next_seq: unsealed.next_seq,
        config_version: unsealed.config_version,
        session_id: unsealed.session_id.clone(),
        broken: unsealed.broken,
    }
}
