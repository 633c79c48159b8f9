//! redb's errors and panics, told apart by what an operator can do.

use super::StoreError;
use super::panics::catch;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A [`StoreError`] before it knows its file.
#[derive(Debug)]
pub(super) enum Fault {
    WrongKey,
    Damaged(String),
    Unusable(String),
    NoSpace(String),
    Refused(String),
    Io(String),
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.to_path_buf();
        match self {
            Self::WrongKey => StoreError::WrongKey { path },
            Self::Damaged(cause) => StoreError::Damaged { path, cause },
            Self::Unusable(cause) => StoreError::Unusable { path, cause },
            Self::NoSpace(cause) => StoreError::NoSpace { path, cause },
            Self::Refused(cause) => StoreError::Refused { path, cause },
            Self::Io(cause) => StoreError::Io { path, cause },
        }
    }

    /// What happened, without the file.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::WrongKey => "sealed under another agent key",
            Self::Damaged(cause)
            | Self::Unusable(cause)
            | Self::NoSpace(cause)
            | Self::Refused(cause)
            | Self::Io(cause) => cause,
        }
    }

    /// Whether redb can be used further after it. A refusal only drops the transaction; anything else
    /// leaves redb in a state of which only the disk is sure.
    pub(super) fn spares_the_database(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::WrongKey | Self::Damaged(_) | Self::Unusable(_) | Self::NoSpace(_) | Self::Io(_) => false,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
            Self::NoSpace(error.to_string())
        } else if matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error.to_string())
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        if let redb::Error::Io(error) = error {
            Self::from(error)
        } else if matches!(
            error,
            redb::Error::Corrupted(_)
                | redb::Error::UpgradeRequired(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TypeDefinitionChanged { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::RepairAborted
        ) {
            Self::Damaged(error.to_string())
        } else {
            Self::Io(error.to_string())
        }
    }
}

/// redb has an error type an operation.
macro_rules! fault_from {
    ($($error:ty),+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}
fault_from!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CompactionError
);

impl From<super::seal::NotSealed> for Fault {
    fn from(_: super::seal::NotSealed) -> Self {
        Self::Io("the cipher or the system's randomness failed".into())
    }
}

/// Does the work; redb panics on some damage, which is an error here like any other.
pub(super) fn contained<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch(work).unwrap_or_else(|said| Err(Fault::Damaged(format!("redb met {said}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage() {
        let fault = contained(|| -> Result<(), Fault> { panic!("an unknown page") }).unwrap_err();
        assert!(matches!(&fault, Fault::Damaged(cause) if cause == "redb met an unknown page"), "{fault:?}");
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let of = |errno: nix::errno::Errno| Fault::from(redb::Error::Io(errno.into()));
        assert!(matches!(of(nix::errno::Errno::ENOSPC), Fault::NoSpace(_)));
        assert!(matches!(of(nix::errno::Errno::EDQUOT), Fault::NoSpace(_)));
        assert!(matches!(of(nix::errno::Errno::EIO), Fault::Io(_)));
    }
}
