//! One agent a state directory: a locked file that names its owner.

use super::StoreError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The name of the lock file in the state directory.
const LOCK_FILE: &str = "agent.lock";

/// A decimal pid and a newline are shorter: no more is read of a file that somebody else wrote.
const MAX_PID_BYTES: u64 = 32;

/// Holds the state directory for this process. The kernel lets go of it with the process, so what a
/// dead agent leaves never blocks.
#[derive(Debug)]
pub(super) struct DirLock {
    file: Flock<File>,
    path: PathBuf,
}

impl DirLock {
    /// Makes the directory (0700) where it is missing and takes it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the other agent's pid, [`StoreError::Unusable`].
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| unusable(dir.into(), &error))?;
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| unusable(path.clone(), &error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                match write_pid(&mut file) {
                    Ok(()) => {}
                    // The lock holds without it; only who has it cannot be read.
                    Err(error) if error.kind() == ErrorKind::StorageFull => {
                        tracing::warn!(path = %path.display(), %error, "the pid was not written");
                    }
                    Err(error) => return Err(unusable(path, &error)),
                }
                Ok(Self { file, path })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                Err(StoreError::InUse { dir: dir.into(), pid: read_pid(&mut file) })
            }
            Err((_, errno)) => Err(unusable(path, &errno.into())),
        }
    }
}

impl DirLock {
    /// Whether the locked file still is the one that others would find.
    pub(super) fn is_in_place(&self) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let ours = self.file.metadata().map(id);
        let theirs = std::fs::metadata(&self.path).map(id);
        matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs)
    }
}

fn unusable(path: PathBuf, error: &std::io::Error) -> StoreError {
    StoreError::Unusable { path, cause: error.to_string() }
}

/// In place, so that a full disk has room for it after the first time.
fn write_pid(file: &mut File) -> std::io::Result<()> {
    let line = format!("{}\n", std::process::id());
    file.rewind()?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_second_agent_is_told_the_pid_of_the_first_until_that_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        let refused = StoreError::InUse { dir: dir.path().into(), pid: Some(std::process::id()) };
        assert_eq!(DirLock::acquire(dir.path()).unwrap_err(), refused);
        drop(first);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_of_another_process_holds_until_that_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, "4242\n").unwrap();
        // `flock` holds the lock while its child reads our pipe, and says so first.
        let mut other = Command::new("flock")
            .arg(&path)
            .args(["sh", "-c", "echo locked; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 7];
        other.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let refused = StoreError::InUse { dir: dir.path().into(), pid: Some(4242) };
        assert_eq!(DirLock::acquire(dir.path()).unwrap_err(), refused);
        drop(other.stdin.take());
        other.wait().unwrap();
        DirLock::acquire(dir.path()).unwrap();
        let owner = std::fs::read_to_string(&path).unwrap();
        assert_eq!(owner, format!("{}\n", std::process::id()), "the new owner's pid replaces the old one");
    }

    #[test]
    fn a_missing_directory_is_made_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let _lock = DirLock::acquire(&state).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join(LOCK_FILE)), 0o600);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let state = file.join("state");
        assert!(matches!(DirLock::acquire(&state), Err(StoreError::Unusable { path, .. }) if path == state));
    }
}
