//! Files that only one tool may read, and only while it runs: 0600 in a directory of their own, 0700.

use crate::spool::{self, SpoolError};
use std::fs::{DirBuilder, DirEntry, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Every such directory's name begins so: what a crash left is found by it.
const PREFIX: &str = "private-";

/// Letters and digits behind that.
const RANDOM_LEN: usize = 6;

/// What drivers call the files in it: of MySQL's and MariaDB's tools,
pub const OPTION_FILE: &str = "client.cnf";
/// and of mongodump.
pub const MONGODB_CONFIG: &str = "mongodump.yaml";
const FILES: [&str; 2] = [OPTION_FILE, MONGODB_CONFIG];

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
    let before = spool::of_earlier_builds(dir);
    let before = before.map(|dir| spool::remove_each(dir, is_of_earlier_builds, remove_whole));
    Ok(spool::remove_each(dir, is_stale, remove_whole)? + before.transpose()?.unwrap_or(0))
}

/// Whether an earlier build made it, in a directory that may be anybody's: its name, its owner, its rights and what is in
/// it must all be a build's.
fn is_of_earlier_builds(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_named = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|rest| {
        rest.len() == RANDOM_LEN && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let is_private = || entry.metadata().is_ok_and(|meta| meta.is_dir() && spool::is_ours(&meta, 0o700));
    let holds_ours = || {
        let mut files = entry.path().read_dir().into_iter().flatten();
        files.all(|file| {
            file.is_ok_and(|file| {
                let is_ours =
                    file.metadata().is_ok_and(|meta| meta.is_file() && spool::is_ours(&meta, 0o600));
                is_ours && FILES.iter().any(|name| file.file_name() == *name)
            })
        })
    };
    is_named && is_private() && holds_ours()
}

fn remove_whole(dir: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(dir)
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

    #[test]
    fn beside_the_agents_own_directory_only_an_earlier_builds_work_goes() {
        let dir = tempfile::tempdir().unwrap();
        let home = spool::Home::take(dir.path(), &dir.path().join("state"));
        let left = PrivateDir::create(dir.path()).unwrap();
        left.write(OPTION_FILE, b"secret").unwrap();
        std::mem::forget(left);
        for (name, mode, file) in [
            ("private-photos", 0o700, "a.jpg"),
            ("private-fotos1", 0o700, "a.jpg"),
            ("private-abcdef", 0o755, OPTION_FILE),
        ] {
            DirBuilder::new().mode(mode).create(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(file), "mine").unwrap();
        }
        assert_eq!(remove_stale(home.path()).unwrap(), 1);
        assert_eq!(dir.path().read_dir().unwrap().count(), 4);
    }
}
