//! The directory that one agent's runs work in: its own, below `backup.spool_dir`, which may be anybody's.
//!
//! Its name comes from the agent's state directory, of which every agent has one to itself, so that the next life finds what
//! this one leaves. A lock on it keeps agents apart that call their state directories the same, as in two containers.

use super::{SpoolError, make_dir};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;
use ring::digest::{SHA256, digest};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Every such directory's name begins so.
const PREFIX: &str = "backupy-agent-";

/// So many agents may call their state directories the same.
const NAMESAKES: u32 = 16;

/// One agent's, as long as this lives.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: Option<Flock<File>>,
}

impl Home {
    /// That agent's directory, 0700, made where it is missing. Where it cannot be made now, as on a full disk, the first
    /// run tries again; where it cannot be locked, nobody else is kept out.
    pub fn take(spool_dir: &Path, state_dir: &Path) -> Self {
        let state_dir = state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned());
        let hash = digest(&SHA256, state_dir.as_os_str().as_bytes());
        let hash = data_encoding::HEXLOWER.encode(hash.as_ref().get(..8).unwrap_or_default());
        let first = spool_dir.join(format!("{PREFIX}{hash}"));
        for number in 1..=NAMESAKES {
            let path =
                if number == 1 { first.clone() } else { spool_dir.join(format!("{PREFIX}{hash}-{number}")) };
            match make_own(&path) {
                Ok(lock) => return Self { path, _lock: Some(lock) },
                // Another agent's, or a stranger's.
                Err(Refused::Taken) => {}
                Err(Refused::Failed(error)) => {
                    tracing::warn!(dir = %path.display(), %error, "the spool's directory could not be made and locked");
                    return Self { path, _lock: None };
                }
            }
        }
        tracing::warn!(dir = %first.display(), "every name of the spool's directory is taken by others");
        Self { path: first, _lock: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

enum Refused {
    Taken,
    Failed(io::Error),
}

fn make_own(path: &Path) -> Result<Flock<File>, Refused> {
    match make_dir(path) {
        Ok(()) => {}
        Err(SpoolError::Io { cause, .. }) if cause.kind() == ErrorKind::AlreadyExists => {
            return Err(Refused::Taken);
        }
        Err(SpoolError::Io { cause, .. }) => return Err(Refused::Failed(cause)),
        Err(SpoolError::NoRoom { .. }) => return Err(Refused::Failed(ErrorKind::StorageFull.into())),
    }
    let lock = lock(path).map_err(|error| {
        let is_others =
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
                // A link of somebody's.
                || error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
        if is_others { Refused::Taken } else { Refused::Failed(error) }
    })?;
    lock.set_permissions(Permissions::from_mode(0o700)).map_err(Refused::Failed)?;
    Ok(lock)
}

/// Locks a directory of this user's, and no link to one.
///
/// # Errors
/// `WouldBlock` where another process holds it; `PermissionDenied` where it is another user's; `NotFound` where it has gone
/// meanwhile.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if opened.metadata()?.uid() != geteuid().as_raw() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    let still = std::fs::symlink_metadata(path)?.ino() == lock.metadata()?.ino();
    if still { Ok(lock) } else { Err(ErrorKind::NotFound.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn agents_of_one_spool_directory_have_a_directory_each_and_find_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, a, b) = (dir.path().join("spool"), dir.path().join("a"), dir.path().join("b"));
        let first = Home::take(&spool, &a);
        let other = Home::take(&spool, &b);
        // In two containers both may be called the same.
        let namesake = Home::take(&spool, &a);
        let paths = [first.path(), other.path(), namesake.path()].map(Path::to_owned);
        assert!(paths[0] != paths[1] && paths[0] != paths[2] && paths[1] != paths[2], "{paths:?}");
        for path in &paths {
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        }
        drop(first);
        assert_eq!(Home::take(&spool, &a).path(), paths[0]);
    }

    #[test]
    fn a_strangers_link_under_the_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, state, elsewhere) = (dir.path().join("s"), dir.path().join("a"), dir.path().join("e"));
        let name = Home::take(&spool, &state).path().to_owned();
        fs::remove_dir(&name).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &name).unwrap();
        assert_ne!(Home::take(&spool, &state).path(), name);
    }
}
