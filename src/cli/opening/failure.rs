//! Everything that can go wrong between a token and its plaintext.

use crate::cli::CliError;
use crate::model::SysExit;
use crate::object::{Digest, OpenError, TokenError};
use serde::Serialize;
use std::io;

/// Why there is no plaintext.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The flags do not fit together.
    #[error("{0}")]
    Usage(&'static str),
    /// The token is of no use.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The object or the token file cannot be opened.
    #[error("cannot read {name}: {cause}")]
    Input {
        /// A path, or standard input.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The key file holds no key.
    #[error("{name} is no key: it must hold 32 bytes, as they are, in base64 or in hex")]
    KeyFile {
        /// A path, or standard input.
        name: String,
    },
    /// The object does not open.
    #[error("{0}")]
    Object(OpenError),
    /// Each frame is authentic and in its place, and yet it is not the object of the token.
    #[error(
        "SHA-256 mismatch: the token names {expected}, the object has {found}: it is not the object of this token, \
         or it was changed; fetch it again"
    )]
    Sha256 {
        /// The token's.
        expected: Digest,
        /// The object's.
        found: Digest,
    },
    /// The object is whole, and its content does not unpack.
    #[error(
        "the object is whole, but its content does not unpack as {encoding}: {cause}; --skip-decompress gives it as \
         it is"
    )]
    Content {
        /// `zstd` or `gzip`.
        encoding: &'static str,
        /// What the decompressor said.
        cause: io::Error,
    },
    /// `verify --restore` of an engine that it does not know.
    #[error(
        "the object opens, but what is in it is {what}: this version restores PostgreSQL, MariaDB, Redis and SQLite \
         for a look, and nothing else"
    )]
    NotRestorable {
        /// For people.
        what: &'static str,
    },
    /// The host has no server to restore into.
    #[error(
        "{tool} is not installed on this host: to restore this backup for a look, install the package {package}"
    )]
    ServerTools {
        /// Its name.
        tool: &'static str,
        /// Debian's.
        package: &'static str,
    },
    /// A throwaway server did not do its part, whatever the backup is like.
    #[error("the backup could not be restored for a look: {name} {how}")]
    Server {
        /// The program.
        name: &'static str,
        /// What happened, with its last words.
        how: String,
    },
    /// The backup and what was noted of it, or what came out of it, are not the same.
    #[error("the object opens, but it does not have what it must: {0}")]
    Differs(String),
    /// The manifest is none.
    #[error("{name} is no manifest of a backup: {cause}")]
    Manifest {
        /// A path, or the local agent.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
    /// What came out of the object is no sound database.
    #[error("the object opens, but the database that comes out of it is not sound: {0}")]
    Restored(String),
    /// The output is there already.
    #[error("{0} exists; --force replaces it")]
    Exists(String),
    /// The output cannot be made.
    #[error("cannot create {name}: {cause}")]
    Create {
        /// A path.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The output refused bytes.
    #[error("writing failed: {0}")]
    Write(io::Error),
    /// A fault of this program or of a library.
    #[error("{0}")]
    Internal(io::Error),
}

/// `--json` of a failure.
#[derive(Serialize)]
struct Told {
    ok: bool,
    error: &'static str,
    message: String,
}

impl Failure {
    /// A name for scripts. Part of the interface.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Token(error) => match error {
                TokenError::Expired { .. } => "token_expired",
                TokenError::WrongIssuer { .. } => "token_wrong_issuer",
                TokenError::WrongAudience { .. } => "token_wrong_audience",
                TokenError::Malformed { .. } => "token_malformed",
                TokenError::UnsupportedAlgorithm { .. } => "token_unsupported_algorithm",
                TokenError::UnsupportedVersion { .. } => "token_unsupported_version",
            },
            Self::Input { .. } => "input_unreadable",
            Self::KeyFile { .. } => "key_malformed",
            Self::Object(error) => match error {
                OpenError::Truncated { .. } => "truncated",
                OpenError::Authentication { .. } => "authentication_failed",
                OpenError::OutOfOrder { .. } => "out_of_order",
                OpenError::BadLength { .. } => "bad_length",
                OpenError::TrailingData { .. } => "trailing_data",
                OpenError::Read { .. } => "read_failed",
            },
            Self::Sha256 { .. } => "sha256_mismatch",
            Self::Content { .. } => "content_broken",
            Self::NotRestorable { .. } => "not_restorable",
            Self::ServerTools { .. } => "server_missing",
            Self::Server { .. } => "server_failed",
            Self::Differs(_) => "manifest_differs",
            Self::Manifest { .. } => "manifest_malformed",
            Self::Restored(_) => "database_broken",
            Self::Exists(_) => "output_exists",
            Self::Create { .. } => "output_not_created",
            Self::Write(_) => "write_failed",
            Self::Internal(_) => "internal",
        }
    }

    /// The exit code.
    pub fn exit(&self) -> SysExit {
        match self {
            Self::Usage(_) => SysExit::Usage,
            Self::Object(OpenError::Read { .. }) | Self::Write(_) => SysExit::Io,
            Self::Token(_)
            | Self::KeyFile { .. }
            | Self::Object(_)
            | Self::Sha256 { .. }
            | Self::Content { .. }
            | Self::Differs(_)
            | Self::Manifest { .. }
            | Self::Restored(_) => SysExit::Data,
            Self::NotRestorable { .. } | Self::ServerTools { .. } | Self::Server { .. } => {
                SysExit::Unavailable
            }
            Self::Input { .. } => SysExit::NoInput,
            Self::Exists(_) | Self::Create { .. } => SysExit::CannotCreate,
            Self::Internal(_) => SysExit::Internal,
        }
    }

    /// What the command ends with; `subject` is what it worked on, `after` what became of the output.
    pub fn told(&self, subject: &str, after: &str) -> CliError {
        let subject = match self {
            // These name what they are about.
            Self::Usage(_)
            | Self::Token(_)
            | Self::Input { .. }
            | Self::KeyFile { .. }
            | Self::Manifest { .. }
            | Self::Exists(_)
            | Self::Create { .. } => "",
            Self::Object(_)
            | Self::Sha256 { .. }
            | Self::Content { .. }
            | Self::NotRestorable { .. }
            | Self::ServerTools { .. }
            | Self::Server { .. }
            | Self::Differs(_)
            | Self::Restored(_)
            | Self::Write(_)
            | Self::Internal(_) => subject,
        };
        let colon = if subject.is_empty() { "" } else { ": " };
        CliError::new(self.exit(), format_args!("{subject}{colon}{self}{after}"))
    }

    /// The same for scripts, as one line of JSON.
    pub fn json(&self) -> impl Serialize {
        Told { ok: false, error: self.kind(), message: self.to_string() }
    }
}
