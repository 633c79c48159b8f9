//! The files of one command: none that it writes may be another one that it reads or writes. A key, an object or a
//! database that was replaced by its own backup is gone.

use super::CliError;
use crate::model::SysExit;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file is called by the command line, and where it is.
pub type Named<'a> = (&'static str, Option<&'a Path>);

/// The same for two names of one file, whether it is there or not.
#[derive(PartialEq, Eq)]
enum Identity {
    Inode(u64, u64),
    Absent(PathBuf),
}

impl Identity {
    /// None for a standard stream, and for what cannot be told.
    fn of(path: &Path) -> Option<Self> {
        if path.as_os_str() == "-" {
            return None;
        }
        if let Ok(found) = fs::metadata(path) {
            return Some(Self::Inode(found.dev(), found.ino()));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(Self::Absent(fs::canonicalize(dir).ok()?.join(path.file_name()?)))
    }
}

/// Refuses a command one of whose outputs is another of its files.
///
/// # Errors
/// 64, with both names.
pub fn check_distinct(read: &[Named<'_>], written: &[Named<'_>]) -> Result<(), CliError> {
    let known = |files: &[Named<'_>]| -> Vec<_> {
        let known = files.iter().filter_map(|(name, path)| Some((*name, Identity::of((*path)?)?, (*path)?)));
        known.map(|(name, id, path)| (name, id, path.to_owned())).collect()
    };
    let (read, written) = (known(read), known(written));
    for (at, (name, id, path)) in written.iter().enumerate() {
        let others = read.iter().chain(written.iter().skip(at + 1));
        if let Some((other, ..)) = others.into_iter().find(|(_, other, _)| other == id) {
            let text =
                format!("{name} would replace {}, which is {other}: name another file", path.display());
            return Err(CliError::new(SysExit::Usage, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_no_other_file_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("key"), "k").unwrap();
        fs::hard_link(at("key"), at("hard")).unwrap();
        std::os::unix::fs::symlink(at("key"), at("soft")).unwrap();
        for (out, fits) in [
            (at("key"), false),
            (at("hard"), false),
            (at("soft"), false),
            (dir.path().join("./key"), false),
            (at("other"), true),
            (at("absent/key"), true),
            (PathBuf::from("-"), true),
        ] {
            let checked =
                check_distinct(&[("the key", Some(&at("key"))), ("none", None)], &[("--out", Some(&out))]);
            assert_eq!(checked.is_ok(), fits, "{}", out.display());
        }
        let (new, again) = (at("new"), dir.path().join("./new"));
        let twice = check_distinct(&[], &[("--out", Some(&new)), ("--manifest-out", Some(&again))]);
        let said = twice.unwrap_err().to_string();
        assert!(said.contains("--out would replace") && said.contains("which is --manifest-out"), "{said}");
        let streams = [("--out", Some(Path::new("-"))), ("--manifest-out", Some(Path::new("-")))];
        assert!(check_distinct(&[], &streams).is_ok());
    }
}
