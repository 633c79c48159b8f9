//! What a damaged state file still holds, carried into a new one, and an account of what it does not.

use super::MAX_QUARANTINED;
use super::backend::StateFile;
use super::fault::{Fault, contained};
use super::live::{Live, builder};
use super::renewal::NewFile;
use super::scan::{RawFile, Scanned, Wanted};
use super::schema::{self, MAX_SEQ, meta, unused_seq};
use super::seal::Sealer;
use super::sweep::{Gap, Swept, sweep};
use super::{Options, Quarantined};
use crate::model::{MessageKind, unix_ms};
use secrecy::SecretString;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

/// Ranges of missing seqs that are told: more help nobody.
const MAX_RANGES: usize = 100;

/// What was saved, of each sort of record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Waiting messages.
    pub messages: u64,
    /// Those of them that were found in the file's raw bytes alone: some may have been delivered before,
    /// and are sent again under the same seq, which the server drops.
    pub messages_from_raw_bytes: u64,
    /// Runs.
    pub runs: u64,
    /// The applied configuration's version.
    pub config_version: Option<u64>,
    /// Whether the session's name was.
    pub session: bool,
    /// Records of the quarantine, among them those that this repair set aside.
    pub quarantined: u64,
}

/// What could not be saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Messages whose name can be read and whose content cannot.
    pub messages: Vec<LostMessage>,
    /// Messages that the file says it had, beside those, and that are nowhere in it.
    pub unnamed_messages: u64,
    /// Seqs between the first and the last saved message that no saved message has, first and last of each
    /// range: lost, delivered out of order, or never given out. Only where messages were lost.
    pub missing_seqs: Vec<(u64, u64)>,
    /// Runs whose name can be read and whose record cannot.
    pub runs: Vec<String>,
    /// Runs that the file says it had, beside those.
    pub unnamed_runs: u64,
    /// Values: `config`, `session`, `seq`.
    pub values: Vec<String>,
    /// The quarantine could not be read to its end.
    pub quarantine: bool,
    /// The file no longer says how much it had: there may have been more.
    pub uncounted: bool,
}

/// A message that could not be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LostMessage {
    /// Its seq.
    pub seq: u64,
    /// None where this agent does not know the kind.
    pub kind: Option<MessageKind>,
}

impl Lost {
    /// Nothing was.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a reading of the old file came to.
pub(super) struct Salvaged {
    pub(super) saved: Saved,
    pub(super) lost: Lost,
    pub(super) next_seq: u64,
    pub(super) seq_jumped: bool,
    /// What is wrong with the old file; None where nothing is.
    pub(super) cause: Option<String>,
}

/// Reads the file and carries everything into the new one. The old file is not written to.
///
/// # Errors
/// [`Fault::WrongKey`], [`Fault::Unusable`] for a newer layout, and whatever the new file meets.
pub(super) fn salvage(old: &File, agent_key: &SecretString, mut new: NewFile) -> Result<Salvaged, Fault> {
    let mut unlocked = None;
    let swept = match open(old, agent_key) {
        Ok((mut live, sealer)) => {
            let swept = sweep(&live, &sealer, &mut new);
            let mut swept = match swept {
                Ok(swept) => swept,
                Err(fault) => {
                    live.abandon();
                    return Err(fault);
                }
            };
            if swept.is_complete() && swept.broken.is_empty() {
                // Everything reads. Whether it can also be written to, its checksums tell.
                swept.cause = match contained(|| Ok(live.db.check_integrity())) {
                    Ok(Ok(true)) => None,
                    Ok(Ok(false)) => Some("its checksums do not match".to_owned()),
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(fault) => Some(fault.text().to_owned()),
                };
            } else if swept.cause.is_none() {
                swept.cause = Some("records do not open".to_owned());
            }
            live.abandon();
            unlocked = Some(sealer);
            swept
        }
        Err(fault @ (Fault::WrongKey | Fault::Unusable(_))) => return Err(fault),
        Err(fault) => Swept::nothing(fault.text().to_owned()),
    };
    let mut scanned = Scanned::default();
    if !swept.is_complete() || !swept.broken.is_empty() {
        let raw = RawFile::new(old)?;
        if unlocked.is_none() {
            unlocked = raw.unlock(agent_key)?;
        }
        if let Some(sealer) = &unlocked {
            scanned = scan(&raw, sealer, &swept, &mut new)?;
        }
    }
    account(swept, scanned, unlocked.as_ref(), new)
}

/// Opens it as the agent would, and lets nothing reach it.
pub(super) fn open(old: &File, agent_key: &SecretString) -> Result<(Live, Sealer), Fault> {
    if old.metadata()?.len() == 0 {
        return Err(Fault::Damaged("it is empty".into()));
    }
    let file = StateFile::held(Arc::new(old.try_clone()?))?;
    let db = contained(|| Ok(builder(&Options::default()).create_with_backend(file.clone())?))?;
    let live = Live { db, file };
    match contained(|| schema::unlock(&live.db, agent_key)) {
        Ok(sealer) => Ok((live, sealer)),
        Err(Fault::Damaged(cause)) => {
            // A head beyond use has copies: the tables themselves may be whole.
            let sealer = RawFile::new(old).and_then(|raw| raw.unlock(agent_key));
            match sealer {
                Ok(Some(sealer)) => Ok((live, sealer)),
                Ok(None) => {
                    live.abandon();
                    Err(Fault::Damaged(cause))
                }
                Err(fault) => {
                    live.abandon();
                    Err(fault)
                }
            }
        }
        Err(fault) => {
            live.abandon();
            Err(fault)
        }
    }
}

fn scan(raw: &RawFile<'_>, sealer: &Sealer, swept: &Swept, new: &mut NewFile) -> Result<Scanned, Fault> {
    let broken_messages: BTreeSet<(u8, u64)> = swept.broken.iter().filter_map(message_of).collect();
    let broken_runs: BTreeSet<&[u8]> = swept
        .broken
        .iter()
        .filter(|record| record.table == "runs")
        .map(|record| record.key.as_slice())
        .collect();
    let in_gap =
        |gap: &Option<Gap<(u8, u64)>>, key: &(u8, u64)| gap.as_ref().is_some_and(|gap| gap.contains(key));
    let message = |key: &(u8, u64)| in_gap(&swept.outbox.gap, key) || broken_messages.contains(key);
    let run = |run_id: &str| {
        let in_gap = swept.runs.gap.as_ref().is_some_and(|gap| gap.contains(&run_id.to_owned()));
        !swept.found_runs.contains_key(run_id) && (in_gap || broken_runs.contains(run_id.as_bytes()))
    };
    let mut put = |kind: MessageKind, seq: u64, envelope: &[u8]| new.put_message(kind, seq, envelope);
    raw.scan(sealer, &mut Wanted { message: &message, put_message: &mut put, run: &run })
}

/// The message that a broken record names, unless the name itself is damaged.
fn message_of(record: &Quarantined) -> Option<(u8, u64)> {
    let (kind, seq) = record.message()?;
    Some((kind? as u8, seq)).filter(|(_, seq)| *seq <= MAX_SEQ)
}

/// Writes what is not written yet, and holds what was saved against what was there.
fn account(
    mut swept: Swept,
    scanned: Scanned,
    sealer: Option<&Sealer>,
    mut new: NewFile,
) -> Result<Salvaged, Fault> {
    let mut lost = Lost { quarantine: swept.quarantine_damaged, ..Lost::default() };
    lost.uncounted = swept.outbox.expected.is_none() || swept.runs.expected.is_none();
    let values = carry_values(&mut swept, scanned.meta, &mut new, &mut lost)?;

    // What is broken and was found whole elsewhere needs no quarantine.
    let mut unreadable = scanned.unreadable;
    let mut set_aside = 0;
    for record in std::mem::take(&mut swept.broken) {
        let name = String::from_utf8_lossy(&record.key).into_owned();
        let mended = match (record.table.as_str(), message_of(&record)) {
            ("outbox", Some((number, seq))) => new.has_message(number, seq)?,
            ("runs", _) => scanned.runs.contains_key(&name),
            _ => values.contains_key(name.as_str()),
        };
        if mended {
            continue;
        }
        unreadable.extend(message_of(&record));
        if record.table == "runs" {
            lost.runs.push(name);
        }
        if let Some(sealer) = sealer {
            new.put_quarantined(record, sealer)?;
        }
        set_aside += 1;
    }
    for (number, seq) in unreadable {
        if !new.has_message(number, seq)? {
            lost.messages.push(LostMessage { seq, kind: MessageKind::from_u8(number) });
        }
    }
    lost.messages.sort_unstable();
    let mut runs = swept.found_runs;
    runs.extend(scanned.runs);
    let runs = new.put_runs(runs.into_values())?;

    let reserved =
        values.get(meta::SEQ).and_then(|value| value.first_chunk()).map_or(0, |seq| u64::from_le_bytes(*seq));
    // Every file in use has one: where it is missing, it went with the damage, though the table shows no gap.
    let seq_is_known = values.contains_key(meta::SEQ);
    let highest = scanned.highest_seq.max(swept.highest_seq).max(reserved);
    // A reservation from the raw bytes may be an old one.
    new.put_next_seq(if seq_is_known { highest.max(1) } else { unused_seq(highest, unix_ms()) })?;

    let (there, seqs) = new.finish()?;
    let named = lost.messages.len() as u64;
    lost.unnamed_messages = swept.outbox.expected.unwrap_or(0).saturating_sub(seqs.len() as u64 + named);
    lost.unnamed_runs = swept.runs.expected.unwrap_or(0).saturating_sub(runs + lost.runs.len() as u64);
    if named + lost.unnamed_messages > 0 || lost.uncounted {
        lost.missing_seqs = missing(&seqs);
    }
    lost.values.retain(|name| name != meta::SEQ);
    let saved = Saved {
        messages: seqs.len() as u64,
        messages_from_raw_bytes: scanned.messages.values().sum(),
        runs,
        config_version: there.config.map(|(version, _)| version),
        session: there.session_id.is_some(),
        quarantined: (swept.quarantined + set_aside).min(MAX_QUARANTINED),
    };
    Ok(Salvaged { saved, lost, next_seq: there.next_seq, seq_jumped: !seq_is_known, cause: swept.cause })
}

/// Carries configuration and session, and answers every value that there is. Where the reservation is not
/// the one of the table, its name is among what is lost.
fn carry_values(
    swept: &mut Swept,
    raw: BTreeMap<&'static str, Vec<u8>>,
    new: &mut NewFile,
    lost: &mut Lost,
) -> Result<BTreeMap<&'static str, Vec<u8>>, Fault> {
    let mut values = std::mem::take(&mut swept.meta);
    for name in meta::SEALED {
        if values.contains_key(name) || !(swept.meta_damaged || swept.is_broken(name)) {
            continue;
        }
        match raw.get(name) {
            Some(value) if name != meta::SEQ => drop(values.insert(name, value.clone())),
            Some(_) | None => lost.values.push(name.to_owned()),
        }
    }
    for name in meta::CARRIED {
        if let Some(value) = values.get(name) {
            new.put_meta(name, value)?;
        }
    }
    Ok(values)
}

/// The ranges that are missing between the first and the last, at most [`MAX_RANGES`].
fn missing(seqs: &[u64]) -> Vec<(u64, u64)> {
    let gaps = seqs.windows(2).filter(|pair| pair[1] > pair[0] + 1).map(|pair| (pair[0] + 1, pair[1] - 1));
    gaps.take(MAX_RANGES).collect()
}
