//! Why the agent could not begin, or gave up.

use crate::channel::websocket::DialOptionsError;
use crate::model::SysExit;
use crate::store::StoreError;
use std::io;

/// One line for people, and an exit code for the init system.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The control plane cannot be dialled with these settings.
    #[error(transparent)]
    Dial(#[from] DialOptionsError),
    /// The system has no room for another process of this kind.
    #[error("the agent's runtime cannot start: {0}")]
    Runtime(#[from] io::Error),
    /// It ran, and ended for a reason of its own.
    #[error("the agent gave up because one of its parts kept ending: the log says which and why")]
    GaveUp(SysExit),
}

impl DaemonError {
    /// What the process ends with.
    pub fn exit(&self) -> SysExit {
        match self {
            Self::State(error) => error.exit(),
            Self::Dial(_) => SysExit::Config,
            Self::Runtime(_) => SysExit::Internal,
            Self::GaveUp(exit) => *exit,
        }
    }
}
