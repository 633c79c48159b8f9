//! Files that only one tool may read, and only while it runs: 0600 in a directory of their own, 0700.

use crate::spool::{self, SpoolError};
use std::fs::{DirBuilder, DirEntry, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Every such directory's name begins so: what a crash left is found by it.
const PREFIX: &str = "private-";

/// A directory that goes with this value.
pub struct PrivateDir(TempDir);

impl PrivateDir {
    /// A new one in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// [`SpoolError::Io`]
    pub fn create(dir: &Path) -> Result<Self, SpoolError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let mode = Permissions::from_mode(0o700);
        let new = || tempfile::Builder::new().prefix(PREFIX).permissions(mode).tempdir_in(dir);
        let made = made.and_then(|()| new());
        made.map(Self).map_err(|cause| failed(dir, cause))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file of that name, 0600.
    ///
    /// # Errors
    /// [`SpoolError::Io`]
    pub fn write(&self, name: &str, text: &[u8]) -> Result<PathBuf, SpoolError> {
        let path = self.path().join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text)).map_err(|cause| failed(&path, cause))?;
        Ok(path)
    }
}

/// Removes what earlier lives left in `dir`, the agent's own. Only when no run is going on; gives how many there were.
///
/// # Errors
/// [`SpoolError::Io`], after having tried every one.
pub fn remove_stale(dir: &Path) -> Result<usize, SpoolError> {
    let is_stale = |entry: &DirEntry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_dir && entry.file_name().to_string_lossy().starts_with(PREFIX)
    };
    spool::remove_each(dir, is_stale, |path| std::fs::remove_dir_all(path))
}

fn failed(path: &Path, cause: io::Error) -> SpoolError {
    SpoolError::Io { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_private_and_goes_with_its_tool() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("spool");
        let private = PrivateDir::create(&below).unwrap();
        let file = private.write("config", b"secret").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(private.path())), (0o600, 0o700));
        assert_eq!(std::fs::read(&file).unwrap(), b"secret");
        drop(private);
        assert_eq!(below.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remove_stale(&dir.path().join("none")).unwrap(), 0);
        let left = PrivateDir::create(dir.path()).unwrap();
        left.write("config", b"secret").unwrap();
        std::mem::forget(left);
        std::fs::write(dir.path().join("private-notes.txt"), "mine").unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        assert_eq!(remove_stale(dir.path()).unwrap(), 1);
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    }
}
