//! What a request carries: bytes in memory, or a piece of a file; hashed while it goes out.

use super::super::Rate;
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::time::sleep_until;

/// Read at once: large enough to make system calls rare; a connection keeps one.
const READ_LEN: usize = 256 * 1024;

/// Where the bytes are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a file. Reads block: the runtime is the run's own, and the file was written a moment ago.
    File {
        /// Read by position.
        file: Arc<File>,
        /// Of the first byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Source {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Up to [`READ_LEN`] bytes from that place on; none at the end.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let count = left.min(most).min(READ_LEN);
        match self {
            Self::Memory(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(at..at + count))
            }
            Self::File { file, offset, .. } => {
                let mut piece = BytesMut::zeroed(count);
                file.read_exact_at(&mut piece, offset + at)?;
                Ok(piece.freeze())
            }
        }
    }
}

/// A source on its way out.
pub struct Body<'a> {
    source: &'a Source,
    at: u64,
    rate: Rate,
    hash: Option<&'a mut Md5>,
    moved: &'a dyn Fn(u64),
}

impl<'a> Body<'a> {
    /// From the first byte; `moved` hears how many bytes the store took more.
    pub fn new(source: &'a Source, rate: Rate, moved: &'a dyn Fn(u64)) -> Self {
        Self { source, at: 0, rate, hash: None, moved }
    }

    /// `hash` takes all that is read.
    pub fn hashed(self, hash: &'a mut Md5) -> Self {
        Self { hash: Some(hash), ..self }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.source.len()
    }

    /// The next piece, when the host's owner lets it through.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let piece = self.source.read(self.at, self.rate.portion(READ_LEN))?;
        if piece.is_empty() {
            return Ok(None);
        }
        if let Some(until) = self.rate.take(piece.len() as u64, std::time::Instant::now()) {
            sleep_until(until.into()).await;
        }
        self.at += piece.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&piece);
        }
        Ok(Some(piece))
    }

    /// The store took so many bytes.
    pub fn sent(&self, bytes: u64) {
        (self.moved)(bytes);
    }
}
