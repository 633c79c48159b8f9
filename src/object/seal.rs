//! Sealing: a writer that turns a stream into an object.

use super::format::{CHUNK_AT, CHUNK_LEN, FRAME_LEN, KEY_LEN, MIN_LEN, PREFIX_LEN, Place, Prefix, cipher};
use ring::aead::{Aad, LessSafeKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Write};
use zeroize::Zeroizing;

/// Seals what is written to it, and writes the frames to `W`. Memory: one frame.
///
/// Only [`Sealer::finish`] makes the object whole; dropping a Sealer leaves a truncated object, which every
/// reader refuses. After an error it refuses everything: what was written so far must be thrown away.
pub struct Sealer<W: Write> {
    pub(super) writer: W,
    cipher: LessSafeKey,
    prefix: Prefix,
    counter: u32,
    /// One frame: length, nonce, chunk, room for the tag.
    frame: Zeroizing<Box<[u8]>>,
    /// Plaintext bytes that wait in `frame`. A full chunk waits until more comes, because only then is it
    /// known not to be the last.
    filled: usize,
    /// Bytes given to the writer.
    written: u64,
    failed: bool,
}

impl<W: Write> Sealer<W> {
    /// Starts an object under a key that no other object has.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(writer: W, key: &[u8; KEY_LEN]) -> io::Result<Self> {
        let mut prefix = [0; PREFIX_LEN];
        SystemRandom::new()
            .fill(&mut prefix)
            .map_err(|_| io::Error::other("the system's random source gave no bytes for a nonce"))?;
        Self::at(writer, key, prefix, 0)
    }

    /// For golden vectors and for the end of the counter: prefix and first counter are given.
    pub(super) fn at(writer: W, key: &[u8; KEY_LEN], prefix: Prefix, counter: u32) -> io::Result<Self> {
        Ok(Self {
            writer,
            cipher: cipher(key)?,
            prefix,
            counter,
            frame: Zeroizing::new(vec![0; FRAME_LEN].into_boxed_slice()),
            filled: 0,
            written: 0,
            failed: false,
        })
    }

    /// Bytes of the object that were given to the writer so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What the frames are written to.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// Seals the last frame, writes the final zero, flushes, and gives the writer back.
    ///
    /// # Errors
    /// Of the writer; and when an earlier write failed.
    pub fn finish(mut self) -> io::Result<W> {
        self.refuse_if_failed()?;
        self.emit(true)?;
        self.writer.write_all(&0_u32.to_be_bytes())?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    /// Seals the waiting chunk and writes its frame. `failed` stands until all of it went well: sealing
    /// works in place, and sealing the same buffer again under the same nonce would undo the encryption.
    fn emit(&mut self, last: bool) -> io::Result<()> {
        self.failed = true;
        let place = Place { prefix: self.prefix, counter: self.counter, flag: u8::from(last) };
        let (head, body) = self.frame.split_at_mut(CHUNK_AT);
        let (chunk, after) = body.split_at_mut(self.filled);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(place.nonce(), Aad::empty(), chunk)
            .map_err(|_| io::Error::other("sealing a frame failed in the crypto library"))?;
        let tag = tag.as_ref();
        after[..tag.len()].copy_from_slice(tag);
        let (length, nonce) = head.split_at_mut(size_of::<u32>());
        // At most CHUNK_LEN, which fits.
        length.copy_from_slice(&(MIN_LEN + self.filled as u32).to_be_bytes());
        nonce.copy_from_slice(&place.to_bytes());

        let end = CHUNK_AT + self.filled + tag.len();
        self.writer.write_all(&self.frame[..end])?;
        self.written += end as u64;
        self.filled = 0;
        if !last {
            self.counter = self.counter.checked_add(1).ok_or_else(|| {
                io::Error::new(io::ErrorKind::FileTooLarge, "an object holds at most 2^32 frames of 1 MiB")
            })?;
        }
        self.failed = false;
        Ok(())
    }

    fn refuse_if_failed(&self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the object is incomplete: an earlier frame could not be written"));
        }
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.refuse_if_failed()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.filled == CHUNK_LEN {
            self.emit(false)?;
        }
        let taken = bytes.len().min(CHUNK_LEN - self.filled);
        let from = CHUNK_AT + self.filled;
        self.frame[from..from + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        Ok(taken)
    }

    /// Flushes whole frames only: a chunk that is not full stays here until it is.
    fn flush(&mut self) -> io::Result<()> {
        self.refuse_if_failed()?;
        self.writer.flush()
    }
}
