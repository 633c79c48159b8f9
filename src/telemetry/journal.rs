//! Is standard error the journal?

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Whether `JOURNAL_STREAM` names this descriptor, as `device:inode`. A child of a service inherits
/// the variable and may write elsewhere.
pub(super) fn is_journal(stream: Option<&OsStr>, descriptor: impl AsFd) -> bool {
    let named = stream.and_then(OsStr::to_str).and_then(|stream| stream.split_once(':'));
    let Some((Ok(device), Ok(inode))) = named.map(|(d, i)| (d.parse::<u64>(), i.parse::<u64>())) else {
        return false;
    };
    let metadata = descriptor.as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_descriptor_that_the_variable_names_is_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let stream = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(Some(OsStr::new(&stream)), &file));
        let other = format!("{}:{}", metadata.dev(), metadata.ino() + 1);
        for stream in [None, Some(other.as_str()), Some(""), Some("8"), Some("a:b")] {
            assert!(!is_journal(stream.map(OsStr::new), &file), "{stream:?}");
        }
    }
}
