//! What can go wrong with the state file.

use crate::model::SysExit;
use std::path::PathBuf;

/// For people.
const MIB: u64 = 1024 * 1024;

/// An error of the store. Clone: one failed commit is told to every sender of its group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file is whole, and was sealed under another agent key.
    #[error(
        "{}: sealed under another agent key. Start with the key that it was made with, or run `backupy-agent rekey` to seal it under the new one",
        path.display()
    )]
    WrongKey {
        /// The state file.
        path: PathBuf,
    },
    /// The file is damaged. It is never overwritten.
    #[error(
        "{}: damaged: {cause}. The file was left as it is: run `backupy-agent state repair`, which moves it aside and saves what is in it",
        path.display()
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// Another agent has it.
    #[error("{}: in use by another backupy-agent{}", dir.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// The other agent, where it could be read.
        pid: Option<u32>,
    },
    /// The directory cannot be made, read or written.
    #[error("{}: {cause}", path.display())]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// What the kernel said.
        cause: String,
    },
    /// No room left: the agent stays up and refuses new durable work.
    #[error("{}: no space left on the disk: {cause}", path.display())]
    NoSpace {
        /// The state file.
        path: PathBuf,
        /// What the kernel said.
        cause: String,
    },
    /// Nearly none is left, and that is kept for what was accepted already.
    #[error(
        "{}: only {} MiB are free on the disk, and {} MiB are kept for work that was accepted already (state.min_free_bytes): new work is refused until there is room, so free some space",
        dir.display(), free / MIB, keep / MIB
    )]
    LowSpace {
        /// The state directory.
        dir: PathBuf,
        /// Bytes.
        free: u64,
        /// Bytes.
        keep: u64,
    },
    /// A change contradicts what is stored: it would overwrite a message that waits.
    #[error("{}: refused: {cause}", path.display())]
    Refused {
        /// The state file.
        path: PathBuf,
        /// What contradicts what.
        cause: String,
    },
    /// A read or write failed for another reason.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The state file.
        path: PathBuf,
        /// What redb or the kernel said.
        cause: String,
    },
}

impl StoreError {
    /// What a process ends with that cannot go on without the state.
    pub fn exit(&self) -> SysExit {
        match self {
            Self::WrongKey { .. } => SysExit::Config,
            Self::Damaged { .. } => SysExit::Data,
            Self::InUse { .. } => SysExit::Temporary,
            // The directory is a setting.
            Self::Unusable { .. } => SysExit::Config,
            Self::Refused { .. } => SysExit::Internal,
            Self::NoSpace { .. } | Self::LowSpace { .. } | Self::Io { .. } => SysExit::Io,
        }
    }
}
