//! `state inspect`: what the state file holds, in numbers.

use super::backend::StateFile;
use super::change::OutboxTotals;
use super::fault::{Fault, contained};
use super::live::{Live, builder};
use super::open::STATE_FILE;
use super::quarantine::{Quarantined, list};
use super::read::{read_all, totals};
use super::repair::lock_existing;
use super::schema::{CLEAR, META, OUTBOX, QUARANTINE, RUNS, SCHEMA, head};
use super::seal::Sealer;
use super::{Options, OutboxRecord, Store, StoreError, panics};
use crate::model::{MessageKind, RunPhase};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableStats};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the state file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The state file.
    pub path: PathBuf,
    /// On the disk.
    pub file_bytes: u64,
    /// Of that, keys and values.
    pub content_bytes: u64,
    /// Of the layout.
    pub schema: u32,
    /// Waiting messages.
    pub outbox: OutboxTotals,
    /// Kept runs.
    pub runs: u64,
    /// What is in the quarantine.
    pub quarantine: Vec<Quarantined>,
    /// What only the agent key shows.
    pub unsealed: Option<Unsealed>,
}

/// What only the agent key shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// The oldest waiting message.
    pub oldest: Option<OutboxRecord>,
    /// Where the runs stand.
    pub runs: RunCounts,
    /// The first seq that no life has used.
    pub next_seq: u64,
    /// Of the applied configuration.
    pub config_version: Option<u64>,
    /// The last session's name.
    pub session_id: Option<String>,
    /// Runs and values that do not open or decode, and are not in the quarantine yet.
    pub broken: u64,
}

/// Where runs stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Not started.
    pub accepted: u64,
    /// Started and not over.
    pub started: u64,
    /// Over.
    pub finished: u64,
}

impl Store {
    /// What the file holds. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn inspect(&mut self) -> Result<Inspection, StoreError> {
        let path = self.path.clone();
        self.work(|live, sealer| inspect(live, Some(sealer), path))
    }
}

/// What can be said without the agent key: numbers and names, nothing that is sealed. The agent must be
/// stopped.
///
/// # Errors
/// As [`Store::open_read_only`], but for [`StoreError::WrongKey`].
pub fn inspect_without_key(dir: &Path) -> Result<Inspection, StoreError> {
    let path = dir.join(STATE_FILE);
    let _lock = lock_existing(dir, &path)?;
    panics::working_on(&path);
    let found = contained(|| {
        let file = File::open(&path).map_err(|error| Fault::Unusable(error.to_string()))?;
        let file = StateFile::held(Arc::new(file))?;
        let live = Live { db: builder(&Options::default()).create_with_backend(file.clone())?, file };
        let found = contained(|| {
            head(&live.db)?;
            inspect(&live, None, path.clone())
        });
        live.abandon();
        found
    });
    found.map_err(|fault| fault.at(&path))
}

fn inspect(live: &Live, sealer: Option<&Sealer>, path: PathBuf) -> Result<Inspection, Fault> {
    let txn = live.db.begin_read()?;
    let outbox = txn.open_table(OUTBOX)?;
    let runs = txn.open_table(RUNS)?;
    let stats = [
        outbox.stats()?,
        runs.stats()?,
        txn.open_table(META)?.stats()?,
        txn.open_table(CLEAR)?.stats()?,
        txn.open_table(QUARANTINE)?.stats()?,
    ];
    Ok(Inspection {
        path,
        file_bytes: live.file.file_bytes(),
        content_bytes: stats.iter().map(TableStats::stored_bytes).sum(),
        schema: SCHEMA,
        outbox: totals(&outbox, &mut Vec::new())?,
        runs: runs.len()?,
        quarantine: list(&live.db)?,
        unsealed: sealer.map(|sealer| unseal(live, sealer)).transpose()?,
    })
}

fn unseal(live: &Live, sealer: &Sealer) -> Result<Unsealed, Fault> {
    let found = read_all(live, sealer)?;
    let mut runs = RunCounts::default();
    for record in &found.recovered.runs {
        match record.phase {
            RunPhase::Accepted => runs.accepted += 1,
            RunPhase::Started { .. } => runs.started += 1,
            RunPhase::Finished { .. } => runs.finished += 1,
        }
    }
    Ok(Unsealed {
        oldest: oldest(&live.db, sealer)?,
        runs,
        next_seq: found.recovered.next_seq,
        config_version: found.recovered.config.map(|(version, _)| version),
        session_id: found.recovered.session_id,
        broken: found.broken.len() as u64,
    })
}

/// The waiting message with the lowest seq, where it opens.
fn oldest(db: &Database, sealer: &Sealer) -> Result<Option<OutboxRecord>, Fault> {
    let outbox = db.begin_read()?.open_table(OUTBOX)?;
    let mut oldest: Option<OutboxRecord> = None;
    for kind in MessageKind::ALL {
        let first = outbox.range((kind as u8, 0)..=(kind as u8, u64::MAX))?.next().transpose()?;
        let Some((key, sealed)) = first else { continue };
        let (_, seq) = key.value();
        if oldest.as_ref().is_none_or(|oldest| seq < oldest.seq)
            && let Ok(envelope) =
                sealer.open("outbox", &super::schema::outbox_place(kind, seq), sealed.value())
        {
            oldest = Some(OutboxRecord { seq, kind, envelope: envelope.into() });
        }
    }
    Ok(oldest)
}
