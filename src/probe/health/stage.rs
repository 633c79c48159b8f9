//! How far a check has come: a timeout that says where it waited is half of the diagnosis.

use std::cell::Cell;
use std::fmt;

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Certificate authorities.
    #[default]
    Begin,
    /// The name's addresses.
    Resolve,
    /// The connection.
    Connect,
    /// The handshake.
    Tls,
    /// The head of the answer.
    Answer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin => "before it began",
            Self::Resolve => "resolving the name",
            Self::Connect => "connecting",
            Self::Tls => "in the TLS handshake",
            Self::Answer => "waiting for the answer",
        })
    }
}

/// Where a check writes how far it is.
pub(super) type Mark = Cell<Stage>;
