//! `state repair`: a damaged file is moved aside whole, and a new one with everything that could be saved
//! takes its place.
//!
//! The new file is written beside the old one, synced, and read back before anything is renamed. The old
//! one gets its second name first; then one rename puts the new one in its place. A crash in between
//! leaves the old file where it was, and the repair is simply begun anew.

use super::fault::{Fault, contained};
use super::lock::DirLock;
use super::open::STATE_FILE;
use super::renewal::NewFile;
use super::salvage::{Lost, Salvaged, Saved, salvage};
use super::{StoreError, panics, schema};
use crate::model::unix_ms;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use secrecy::SecretString;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The new file until it is whole.
const REPAIR_FILE: &str = "state.redb.repair";

/// What a file that was moved aside begins with; the unix time in seconds follows.
const DAMAGED_PREFIX: &str = "state.redb.damaged-";

/// Names that are tried for one second.
const MAX_NAMES: u32 = 100;

/// What a repair did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// The state file.
    pub path: PathBuf,
    /// What is wrong with it; None where nothing is, and nothing was done.
    pub cause: Option<String>,
    /// Nothing was changed: it was only looked at.
    pub dry_run: bool,
    /// Where the damaged file is now.
    pub moved_to: Option<PathBuf>,
    /// What the new file has.
    pub saved: Saved,
    /// What it has not.
    pub lost: Lost,
    /// The seq that the agent goes on with.
    pub next_seq: u64,
    /// The record of the used seqs was lost: the agent goes on far above all that it can have used.
    pub seq_jumped: bool,
}

/// Repairs the state file of a stopped agent; with `dry_run` only says what that would come to.
///
/// # Errors
/// [`StoreError::InUse`] while an agent runs, [`StoreError::WrongKey`], [`StoreError::Unusable`] where
/// there is no state file, [`StoreError::NoSpace`], [`StoreError::Io`]; nothing has changed then.
pub fn repair(dir: &Path, agent_key: &SecretString, dry_run: bool) -> Result<RepairReport, StoreError> {
    let path = dir.join(STATE_FILE);
    let lock = lock_existing(dir, &path)?;
    panics::working_on(&path);
    let report = contained(|| repair_file(dir, &path, agent_key, dry_run)).map_err(|fault| fault.at(&path));
    drop(lock);
    report
}

/// Takes the directory of a state file that is there; makes nothing.
pub(super) fn lock_existing(dir: &Path, path: &Path) -> Result<DirLock, StoreError> {
    fs::symlink_metadata(path).map_err(|error| Fault::Unusable(error.to_string()).at(path))?;
    DirLock::acquire(dir)
}

fn repair_file(
    dir: &Path,
    path: &Path,
    agent_key: &SecretString,
    dry_run: bool,
) -> Result<RepairReport, Fault> {
    let new_path = dir.join(REPAIR_FILE);
    let new_file = if dry_run { tempfile::tempfile_in(dir)? } else { fresh(dir, &new_path)? };
    let outcome: Result<_, Fault> = (|| {
        let new = NewFile::on(new_file, agent_key)?;
        let salvaged = if path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let old = File::open(path).map_err(|error| Fault::Unusable(error.to_string()))?;
            salvage(&old, agent_key, new)?
        } else {
            nothing(new)?
        };
        let act = salvaged.cause.is_some() && !dry_run;
        let moved_to = if act { Some(put_in_place(dir, path, &new_path)?) } else { None };
        Ok((salvaged, moved_to))
    })();
    if !dry_run && !matches!(outcome, Ok((_, Some(_)))) {
        discard(&new_path);
    }
    let (Salvaged { saved, lost, next_seq, seq_jumped, cause }, moved_to) = outcome?;
    Ok(RepairReport { path: path.into(), cause, dry_run, moved_to, saved, lost, next_seq, seq_jumped })
}

/// Of what is no file at all.
fn nothing(mut new: NewFile) -> Result<Salvaged, Fault> {
    let next_seq = schema::unused_seq(0, unix_ms());
    new.put_next_seq(next_seq)?;
    new.finish()?;
    Ok(Salvaged {
        saved: Saved::default(),
        lost: Lost { uncounted: true, ..Lost::default() },
        next_seq,
        seq_jumped: true,
        cause: Some("it is no file".to_owned()),
    })
}

/// An empty file under that name. What an interrupted attempt left goes; what is no file of ours stays.
pub(super) fn fresh(dir: &Path, path: &Path) -> Result<File, Fault> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::remove_file(path)?,
        Ok(_) => fs::rename(path, free_name(dir)?)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?)
}

/// A new file that did not come to anything. It is ours and nothing needs it; should it stay, the next
/// attempt takes it away.
pub(super) fn discard(path: &Path) {
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        let _ = fs::remove_file(path);
    }
}

/// The old one aside, the new one in its place; answers where the old one is.
fn put_in_place(dir: &Path, path: &Path, new: &Path) -> Result<PathBuf, Fault> {
    let folder = File::open(dir)?;
    if !path.symlink_metadata()?.is_file() {
        let aside = free_name(dir)?;
        renameat2(AT_FDCWD, new, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE).map_err(io::Error::from)?;
        fs::rename(new, &aside)?;
        folder.sync_all()?;
        return Ok(aside);
    }
    let aside = match earlier_name(dir, path)? {
        Some(aside) => aside,
        None => {
            let aside = free_name(dir)?;
            if fs::hard_link(path, &aside).is_err() {
                // Not every file system has links.
                fs::copy(path, &aside)?;
                File::open(&aside)?.sync_all()?;
            }
            aside
        }
    };
    folder.sync_all()?;
    fs::rename(new, path)?;
    folder.sync_all()?;
    Ok(aside)
}

/// The second name that an interrupted repair gave the very file.
fn earlier_name(dir: &Path, path: &Path) -> Result<Option<PathBuf>, Fault> {
    let own = path.metadata()?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if entry.file_name().to_string_lossy().starts_with(DAMAGED_PREFIX)
            && (metadata.dev(), metadata.ino()) == (own.dev(), own.ino())
        {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn free_name(dir: &Path) -> Result<PathBuf, Fault> {
    let seconds = unix_ms() / 1000;
    let names = (0..MAX_NAMES).map(|n| match n {
        0 => dir.join(format!("{DAMAGED_PREFIX}{seconds}")),
        n => dir.join(format!("{DAMAGED_PREFIX}{seconds}-{n}")),
    });
    for name in names {
        if fs::symlink_metadata(&name).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(name);
        }
    }
    Err(Fault::Io("no name is free for the damaged file".into()))
}
