//! Why an object does not open, told apart.

use super::format::{MAX_LEN, MIN_LEN};
use std::io;

/// Why an object does not open. Frames are counted from 0. Clone: once failed, an [`Opener`](super::Opener) repeats itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes end before the final zero.
    #[error("truncated: the object ends inside frame {frame}, after {bytes} bytes; fetch it again, whole")]
    Truncated {
        /// The frame (or end mark) that is not whole.
        frame: u64,
        /// Bytes of the object that were there.
        bytes: u64,
    },
    /// The tag does not fit: another key, or changed bytes.
    #[error(
        "authentication failed at frame {frame}: {}",
        if *frame == 0 { "the key is not this object's, or the object was changed" } else { "the object was changed" }
    )]
    Authentication {
        /// Where.
        frame: u64,
    },
    /// Every frame so far is authentic, and they are not the frames of one object in their order.
    #[error("frames out of order at frame {frame}: {found}")]
    OutOfOrder {
        /// Where.
        frame: u64,
        /// What is wrong with the order.
        found: Disorder,
    },
    /// A length that no frame of the format has.
    #[error(
        "frame {frame} gives its length as {len}, allowed are {MIN_LEN} to {MAX_LEN}: \
         the object is damaged, or is no backup object"
    )]
    BadLength {
        /// Where.
        frame: u64,
        /// `len` as it stands there.
        len: u32,
    },
    /// Bytes after the final zero.
    #[error("bytes follow the end of the object (after {bytes} bytes): something was appended to it")]
    TrailingData {
        /// Where the object ended.
        bytes: u64,
    },
    /// The reader failed.
    #[error("reading the object failed: {cause}")]
    Read {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// What the reader said.
        cause: String,
    },
}

/// How an order is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// The first frame's nonce is not that of a first frame.
    #[error(
        "the object does not begin with its first frame. Frames were dropped or moved, or another program wrote \
         it with random nonces; such an object opens with --allow-unordered, with its SHA-256 as the only check"
    )]
    NotTheFirst,
    /// The frame belongs to another object under the same key.
    #[error("the frame belongs to another object under the same key")]
    OtherObject,
    /// The counter jumps.
    #[error(
        "frame number {expected} should be here, frame number {found} is: frames were dropped, doubled or moved"
    )]
    Counter {
        /// What should stand there.
        expected: u64,
        /// What stands there.
        found: u32,
    },
    /// The flag byte is neither 0 nor 1.
    #[error("the frame's last-frame mark is {0}, neither 0 nor 1")]
    Flag(u8),
    /// Frames follow the one that calls itself last.
    #[error("a frame follows the object's last one")]
    AfterLast,
    /// The object ends with a frame that does not call itself last.
    #[error("the object ends before its last frame: frames were dropped")]
    LastMissing,
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            OpenError::Read { kind, .. } => *kind,
            OpenError::Authentication { .. }
            | OpenError::OutOfOrder { .. }
            | OpenError::BadLength { .. }
            | OpenError::TrailingData { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl OpenError {
    /// The error of an [`Opener`](super::Opener) that comes back out of a reader around it (a decompressor, say).
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}
