//! `rekey`: everything sealed anew under another agent key, in a new file that replaces the old one by one
//! rename. A crash at any moment leaves either the old file or the new one, whole.

use super::fault::{Fault, contained};
use super::live::Live;
use super::open::STATE_FILE;
use super::renewal::NewFile;
use super::repair::{discard, fresh, lock_existing};
use super::salvage::open;
use super::schema::{meta, unused_seq};
use super::seal::Sealer;
use super::sweep::sweep;
use super::{StoreError, panics};
use crate::model::unix_ms;
use secrecy::SecretString;
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The new file until it is whole.
const REKEY_FILE: &str = "state.redb.rekey";

/// What was sealed anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    /// The state file.
    pub path: PathBuf,
    /// It was sealed under the new key already: nothing was done.
    pub already: bool,
    /// Waiting messages.
    pub messages: u64,
    /// Runs.
    pub runs: u64,
    /// The applied configuration's version.
    pub config_version: Option<u64>,
    /// Records of the quarantine: they stay as they were found, under whatever key.
    pub quarantined: u64,
    /// Of those, the ones that did not open now.
    pub set_aside: u64,
    /// The seq that the agent goes on with.
    pub next_seq: u64,
}

/// Seals the state of a stopped agent under the new key.
///
/// # Errors
/// [`StoreError::WrongKey`] where the old key is not the one, [`StoreError::Damaged`] for a file that has
/// to be repaired first, [`StoreError::InUse`], [`StoreError::Unusable`], [`StoreError::NoSpace`],
/// [`StoreError::Io`]; nothing has changed then.
pub fn rekey(dir: &Path, old_key: &SecretString, new_key: &SecretString) -> Result<Rekeyed, StoreError> {
    let path = dir.join(STATE_FILE);
    let lock = lock_existing(dir, &path)?;
    panics::working_on(&path);
    let done = contained(|| rekey_file(dir, &path, old_key, new_key)).map_err(|fault| fault.at(&path));
    drop(lock);
    done
}

fn rekey_file(
    dir: &Path,
    path: &Path,
    old_key: &SecretString,
    new_key: &SecretString,
) -> Result<Rekeyed, Fault> {
    let old = File::open(path).map_err(|error| Fault::Unusable(error.to_string()))?;
    let (live, sealer) = match open(&old, old_key) {
        Ok(opened) => opened,
        Err(Fault::WrongKey) => {
            // An operator who asks twice has not made a mistake.
            let (live, _) = open(&old, new_key)?;
            live.abandon();
            return Ok(Rekeyed { path: path.into(), already: true, ..Rekeyed::default() });
        }
        Err(fault) => return Err(fault),
    };
    let new_path = dir.join(REKEY_FILE);
    let sealed = fresh(dir, &new_path)
        .and_then(|file| NewFile::on(file, new_key))
        .and_then(|new| contained(|| carry(&live, &sealer, new)));
    live.abandon();
    let sealed = sealed.and_then(|sealed| {
        fs::rename(&new_path, path)?;
        File::open(dir)?.sync_all()?;
        Ok(Rekeyed { path: path.into(), ..sealed })
    });
    if sealed.is_err() {
        discard(&new_path);
    }
    sealed
}

fn carry(live: &Live, sealer: &Sealer, mut new: NewFile) -> Result<Rekeyed, Fault> {
    let mut swept = sweep(live, sealer, &mut new)?;
    if let Some(cause) = swept.cause.take() {
        return Err(Fault::Damaged(cause));
    }
    for name in meta::CARRIED {
        if let Some(value) = swept.meta.get(name) {
            new.put_meta(name, value)?;
        }
    }
    let reserved =
        swept.meta.get(meta::SEQ).and_then(|value| value.first_chunk()).map(|seq| u64::from_le_bytes(*seq));
    let highest = swept.highest_seq.max(reserved.unwrap_or(0));
    new.put_next_seq(if swept.is_broken(meta::SEQ) {
        unused_seq(highest, unix_ms())
    } else {
        highest.max(1)
    })?;
    let set_aside = swept.broken.len() as u64;
    let broken_messages = swept.broken.iter().filter(|record| record.table == "outbox").count() as u64;
    for record in std::mem::take(&mut swept.broken) {
        new.put_quarantined(record, sealer)?;
    }
    let runs = new.put_runs(std::mem::take(&mut swept.found_runs).into_values())?;
    let (there, seqs) = new.finish()?;
    let messages = seqs.len() as u64;
    if messages + broken_messages + swept.broken_beyond < swept.outbox.read {
        return Err(Fault::Io(format!(
            "only {messages} of {} messages are in the new file",
            swept.outbox.read
        )));
    }
    Ok(Rekeyed {
        path: PathBuf::new(),
        already: false,
        messages,
        runs,
        config_version: there.config.map(|(version, _)| version),
        quarantined: swept.quarantined + set_aside,
        set_aside,
        next_seq: there.next_seq,
    })
}
