//! A spool that stays: it gets a name of its own instead of going to a store.

use super::error::RunError;
use crate::spool::{Spool, SpoolError};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::File;
use std::io;
use std::path::Path;

/// Lets the spool's file appear under this name, durable. It is no spool any more then.
///
/// # Errors
/// [`RunError::Exists`] where there is something and `replace` is not asked, [`RunError::Spool`].
pub fn keep_as(spool: &Spool, file: &Path, replace: bool) -> Result<(), RunError> {
    let failed = |cause: io::Error| -> RunError {
        if cause.kind() == io::ErrorKind::AlreadyExists {
            return RunError::Exists(file.display().to_string());
        }
        SpoolError::Io { path: file.to_owned(), cause }.into()
    };
    spool.reader()?.sync_all().map_err(failed)?;
    if replace {
        std::fs::rename(spool.path(), file).map_err(failed)?;
    } else {
        rename_to_nothing(spool.path(), file).map_err(failed)?;
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Renames where nothing has the new name.
fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // Some network file systems do not know it: a look is the next best.
        Err(Errno::EINVAL | Errno::ENOSYS) if std::fs::symlink_metadata(to).is_err() => {
            std::fs::rename(from, to)
        }
        Err(Errno::EINVAL | Errno::ENOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::spool::Room;
    use std::io::Write;

    #[test]
    fn a_spool_becomes_a_file_and_replaces_another_one_only_where_that_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.bkpy");
        for (round, replace, kept) in [("one", false, true), ("two", false, false), ("three", true, true)] {
            let spool = Spool::create(dir.path(), &RunId::from(round)).unwrap();
            spool.writer(&Room::default()).unwrap().write_all(round.as_bytes()).unwrap();
            let result = keep_as(&spool, &out, replace);
            assert_eq!(result.is_ok(), kept);
            if let Err(error) = result {
                assert!(matches!(&error, RunError::Exists(name) if name.ends_with("out.bkpy")), "{error}");
            }
            drop(spool);
            let expected = if kept { round } else { "one" };
            assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the file is left");
        }
    }
}
