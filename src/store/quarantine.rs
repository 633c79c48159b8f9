//! Records that do not open or decode: kept as they were found, with the reason, until an operator has
//! looked at them.

use super::fault::Fault;
use super::live::begin;
use super::schema::{META, OUTBOX, QUARANTINE, QUARANTINE_NOTES, RUNS, quarantine_key};
use super::{Store, StoreError};
use crate::model::{MessageKind, unix_ms};
use redb::{AccessGuard, Database, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableError};
use redb::{ReadableDatabase, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Where a record that cannot be used lies, and why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) place: Place,
    pub(super) why: Why,
}

/// A record's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Outbox(u8, u64),
    Run(String),
    Meta(&'static str),
}

/// Why a record was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The seal is broken: its bytes were altered, or it stood at another place.
    DoesNotOpen,
    /// The seal is whole and the content is none that this agent knows.
    DoesNotDecode,
    /// A message of a kind that this agent does not know.
    UnknownKind,
    /// The server said that it will never take it.
    Refused,
    /// Set aside by an agent that kept no reason.
    Unknown,
}

impl Why {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::DoesNotOpen => "its seal does not open: altered bytes",
            Self::DoesNotDecode => "it opens, and its content does not decode",
            Self::UnknownKind => "a message of an unknown kind",
            Self::Refused => "the server refused it for good",
            Self::Unknown => "no reason was kept",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::DoesNotOpen => 1,
            Self::DoesNotDecode => 2,
            Self::UnknownKind => 3,
            Self::Refused => 4,
        }
    }

    fn from_number(number: u8) -> Self {
        [Self::DoesNotOpen, Self::DoesNotDecode, Self::UnknownKind, Self::Refused]
            .into_iter()
            .find(|why| why.number() == number)
            .unwrap_or(Self::Unknown)
    }
}

/// A record in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// `outbox`, `runs` or `meta`.
    pub table: String,
    /// Its key there, as bytes: a kind and a big-endian seq, a run id, a name.
    pub key: Vec<u8>,
    /// When it was set aside, unix milliseconds; None where that was not kept.
    pub at_ms: Option<u64>,
    /// Why.
    pub why: Why,
    /// The value as it was found.
    pub value: Vec<u8>,
}

impl Quarantined {
    /// Kind and seq of a message.
    pub fn message(&self) -> Option<(Option<MessageKind>, u64)> {
        let (kind, seq) = self.key.split_first().filter(|_| self.table == "outbox")?;
        Some((MessageKind::from_u8(*kind), u64::from_be_bytes(seq.try_into().ok()?)))
    }
}

impl Place {
    /// Table and key, as the quarantine names them.
    pub(super) fn name(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Outbox(kind, seq) => ("outbox", quarantine_key(*kind, *seq).to_vec()),
            Self::Run(run_id) => ("runs", run_id.clone().into_bytes()),
            Self::Meta(name) => ("meta", name.as_bytes().to_vec()),
        }
    }
}

/// Moves a record into the quarantine, which keeps at most `max`.
pub(super) fn quarantine(txn: &WriteTransaction, broken: &Broken, max: u64) -> Result<(), Fault> {
    let to_bytes = |value: Option<AccessGuard<'_, &'static [u8]>>| value.map(|value| value.value().to_vec());
    let value = match &broken.place {
        Place::Outbox(kind, seq) => to_bytes(txn.open_table(OUTBOX)?.remove((*kind, *seq))?),
        Place::Run(run_id) => to_bytes(txn.open_table(RUNS)?.remove(run_id.as_str())?),
        Place::Meta(name) => to_bytes(txn.open_table(META)?.remove(*name)?),
    };
    let Some(value) = value else {
        return Ok(());
    };
    let (table, key) = broken.place.name();
    let record = Quarantined { table: table.into(), key, at_ms: Some(unix_ms()), why: broken.why, value };
    keep(txn, &record, max)
}

/// Puts a record into the quarantine as it is.
pub(super) fn keep(txn: &WriteTransaction, record: &Quarantined, max: u64) -> Result<(), Fault> {
    Shelf::open(txn, max)?.put(record)
}

/// The quarantine while it is written to.
pub(super) struct Shelf<'t> {
    records: Table<'t, (&'static str, &'static [u8]), &'static [u8]>,
    notes: Table<'t, (&'static str, &'static [u8]), (u64, u8)>,
    max: u64,
}

impl<'t> Shelf<'t> {
    /// Keeps at most `max`.
    pub(super) fn open(txn: &'t WriteTransaction, max: u64) -> Result<Self, Fault> {
        Ok(Self { records: txn.open_table(QUARANTINE)?, notes: txn.open_table(QUARANTINE_NOTES)?, max })
    }

    /// Beyond the bound it is dropped.
    pub(super) fn put(&mut self, record: &Quarantined) -> Result<(), Fault> {
        let place = (record.table.as_str(), record.key.as_slice());
        if self.records.len()? < self.max {
            self.records.insert(place, record.value.as_slice())?;
            if let Some(at_ms) = record.at_ms {
                self.notes.insert(place, (at_ms, record.why.number()))?;
            }
        }
        Ok(())
    }
}

/// Hands every record of the quarantine to `each`.
pub(super) fn each(
    txn: &ReadTransaction,
    mut each: impl FnMut(Quarantined) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let notes = match txn.open_table(QUARANTINE_NOTES) {
        Ok(notes) => Some(notes),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    for record in txn.open_table(QUARANTINE)?.iter()? {
        let (key, value) = record?;
        let (table, place) = key.value();
        let note = match &notes {
            Some(notes) => notes.get((table, place))?.map(|note| note.value()),
            None => None,
        };
        each(Quarantined {
            table: table.to_owned(),
            key: place.to_vec(),
            at_ms: note.map(|(at_ms, _)| at_ms),
            why: note.map_or(Why::Unknown, |(_, why)| Why::from_number(why)),
            value: value.value().to_vec(),
        })?;
    }
    Ok(())
}

/// Everything in the quarantine: at most [`super::MAX_QUARANTINED`] records.
pub(super) fn list(db: &Database) -> Result<Vec<Quarantined>, Fault> {
    let mut found = Vec::new();
    each(&db.begin_read()?, |record| {
        found.push(record);
        Ok(())
    })?;
    Ok(found)
}

impl Store {
    /// What is in the quarantine.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn quarantined(&mut self) -> Result<Vec<Quarantined>, StoreError> {
        self.work(|live, _| list(&live.db))
    }

    /// Empties the quarantine: what was in it is gone.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn drop_quarantine(&mut self) -> Result<(), StoreError> {
        self.work(|live, _| {
            let txn = begin(&live.db)?;
            txn.delete_table(QUARANTINE)?;
            txn.delete_table(QUARANTINE_NOTES)?;
            txn.open_table(QUARANTINE)?;
            txn.commit()?;
            Ok(())
        })
    }
}
