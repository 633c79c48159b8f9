//! Where one `backup` writes before it is done: a directory of its own, gone with it. What it left when it was killed,
//! the next one in the same place removes.

use super::warn_of;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tempfile::TempDir;

/// Every such directory's name begins so.
const PREFIX: &str = "backupy-run-";

/// A directory, 0700, locked as long as its process lives: the kernel lets go of the lock, however that ends.
pub struct Place {
    // Removed while it is locked.
    dir: TempDir,
    _lock: Option<Flock<File>>,
}

impl Place {
    /// Makes one below `parent`, which is made where it is missing, and removes those of the dead beside it.
    ///
    /// # Errors
    /// Of the directories.
    pub fn create(parent: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        remove_dead(parent);
        let mode = Permissions::from_mode(0o700);
        loop {
            let dir = tempfile::Builder::new().prefix(PREFIX).permissions(mode.clone()).tempdir_in(parent)?;
            match lock(dir.path()) {
                Ok(lock) => return Ok(Self { dir, _lock: Some(lock) }),
                // Another `backup` came before the lock, and took it for a dead one's.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound) => {}
                // A file system without locks: there nobody else gets one either, and removes nothing.
                Err(_) => return Ok(Self { dir, _lock: None }),
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes this user's directories whose processes have ended.
fn remove_dead(parent: &Path) {
    for entry in parent.read_dir().into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        // Held while it is removed: who made it this moment sees it, and makes another one.
        let Ok(_lock) = lock(&path) else { continue };
        if let Err(error) = std::fs::remove_dir_all(&path) {
            warn_of(&format!("{}, left by a backup that was killed, stays: {error}", path.display()));
        }
    }
}

/// Locks a directory of this user's, and no link to one.
///
/// # Errors
/// `WouldBlock` where its process lives; `NotFound` where it has gone meanwhile.
fn lock(path: &Path) -> io::Result<Flock<File>> {
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

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let living = Place::create(dir.path()).unwrap();
        let dead = dir.path().join("backupy-run-dead");
        let elsewhere = dir.path().join("elsewhere");
        for made in [&dead, &elsewhere, &dir.path().join("backupy-restore-1")] {
            std::fs::create_dir(made).unwrap();
            std::fs::write(made.join("r.part"), b"x").unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("backupy-run-link")).unwrap();
        let second = Place::create(dir.path()).unwrap();
        assert!(!dead.exists() && elsewhere.join("r.part").exists());
        assert!(living.path().exists() && second.path().exists());
        assert_eq!(dir.path().read_dir().unwrap().count(), 5);
        drop((living, second));
        assert_eq!(dir.path().read_dir().unwrap().count(), 3);
    }

    #[test]
    fn many_at_once_keep_what_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let place = Place::create(dir.path()).unwrap();
                        std::fs::write(place.path().join("r.part"), b"x").unwrap();
                    }
                });
            }
        });
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
