//! Opening: a reader that gives an object's plaintext back, frame by authenticated frame.

use super::error::{Disorder, OpenError};
use super::format::{END_LEN, KEY_LEN, MAX_LEN, MIN_LEN, Place, Prefix, cipher};
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use std::io::{self, Read};
use zeroize::Zeroizing;

/// What is asked of the order of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The nonces must follow the STREAM construction: every frame there, once, in its place.
    Strict,
    /// Any nonces, for objects of other writers. Then only the object's SHA-256 tells a dropped, doubled or
    /// moved frame; even an object without any frame opens.
    AllowUnordered,
}

/// Where the sequence stands.
enum Sequence {
    First,
    /// The counter that comes next; one past the last number after it, so that nothing fits there.
    Next {
        prefix: Prefix,
        counter: u64,
    },
    Ended,
}

/// Opens an object. Memory: one frame, whatever the object says.
///
/// Every byte that it gives out is authentic and in its place; that the object is whole is known only when it
/// has said so, by `Ok(None)` of [`Opener::next_chunk`] or the end of the [`Read`].
pub struct Opener<R: Read> {
    reader: R,
    cipher: LessSafeKey,
    order: Order,
    sequence: Sequence,
    /// Nonce, ciphertext and tag of the frame at hand; then its plaintext.
    frame: Zeroizing<Vec<u8>>,
    /// What of `frame` [`Read`] has not given out yet.
    unread: std::ops::Range<usize>,
    frames: u64,
    object_bytes: u64,
    plaintext_bytes: u64,
    /// How it ended.
    end: Option<Result<(), OpenError>>,
}

impl<R: Read> Opener<R> {
    /// Starts at the first byte of an object. `reader` is read in pieces of up to 1 MiB, and to its end.
    ///
    /// # Errors
    /// When the crypto library refuses the key, which it has no reason for.
    pub fn new(reader: R, key: &[u8; KEY_LEN], order: Order) -> io::Result<Self> {
        Ok(Self {
            reader,
            cipher: cipher(key)?,
            order,
            sequence: Sequence::First,
            frame: Zeroizing::new(Vec::new()),
            unread: 0..0,
            frames: 0,
            object_bytes: 0,
            plaintext_bytes: 0,
            end: None,
        })
    }

    /// Frames opened so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes of the object read so far, framing included.
    pub fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// Bytes of plaintext opened so far.
    pub fn plaintext_bytes(&self) -> u64 {
        self.plaintext_bytes
    }

    /// What the object is read from.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Gives the reader back.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The next frame's plaintext (may be empty); None when the object ended as it must.
    ///
    /// # Errors
    /// See [`OpenError`]; the same one again ever after.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, OpenError> {
        if self.end.is_none() {
            match self.open_frame() {
                Ok(true) => {}
                Ok(false) => self.end = Some(Ok(())),
                Err(error) => self.end = Some(Err(error)),
            }
        }
        match &self.end {
            None => Ok(Some(&self.frame[self.unread.clone()])),
            Some(Ok(())) => Ok(None),
            Some(Err(error)) => Err(error.clone()),
        }
    }

    /// Reads, authenticates and places one frame; false at the object's end.
    fn open_frame(&mut self) -> Result<bool, OpenError> {
        self.unread = 0..0;
        let mut length = [0; END_LEN];
        self.fill(&mut length)?;
        let len = u32::from_be_bytes(length);
        if len == 0 {
            self.check_end()?;
            return Ok(false);
        }
        if !(MIN_LEN..=MAX_LEN).contains(&len) {
            return Err(OpenError::BadLength { frame: self.frames, len });
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(len as usize, 0);
        let filled = self.fill(&mut frame);
        self.frame = frame;
        filled?;

        let authentication = OpenError::Authentication { frame: self.frames };
        let (nonce, sealed) =
            self.frame.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(|| authentication.clone())?;
        let plaintext_len = self
            .cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), sealed)
            .map_err(|_| authentication)?
            .len();
        let place = Place::of(nonce);
        self.check_order(place)?;
        self.frames += 1;
        self.plaintext_bytes += plaintext_len as u64;
        self.unread = NONCE_LEN..NONCE_LEN + plaintext_len;
        Ok(true)
    }

    /// Holds an authentic frame's nonce against the sequence.
    fn check_order(&mut self, place: Place) -> Result<(), OpenError> {
        if self.order == Order::AllowUnordered {
            return Ok(());
        }
        let found = match self.sequence {
            Sequence::First if place.counter != 0 || place.flag > 1 => Some(Disorder::NotTheFirst),
            Sequence::First => None,
            Sequence::Next { prefix, .. } if place.prefix != prefix => Some(Disorder::OtherObject),
            Sequence::Next { counter, .. } if u64::from(place.counter) != counter => {
                Some(Disorder::Counter { expected: counter, found: place.counter })
            }
            Sequence::Next { .. } if place.flag > 1 => Some(Disorder::Flag(place.flag)),
            Sequence::Next { .. } => None,
            Sequence::Ended => Some(Disorder::AfterLast),
        };
        if let Some(found) = found {
            return Err(OpenError::OutOfOrder { frame: self.frames, found });
        }
        self.sequence = if place.flag == 0 {
            Sequence::Next { prefix: place.prefix, counter: u64::from(place.counter) + 1 }
        } else {
            Sequence::Ended
        };
        Ok(())
    }

    /// After the final zero: the last frame was there, and nothing follows.
    fn check_end(&mut self) -> Result<(), OpenError> {
        if self.order == Order::Strict && !matches!(self.sequence, Sequence::Ended) {
            return Err(OpenError::OutOfOrder { frame: self.frames, found: Disorder::LastMissing });
        }
        let bytes = self.object_bytes;
        match self.fill(&mut [0]) {
            Ok(()) => Err(OpenError::TrailingData { bytes }),
            Err(OpenError::Truncated { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Fills `buffer`, counting, whatever pieces the reader gives.
    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), OpenError> {
        while !buffer.is_empty() {
            match self.reader.read(buffer) {
                Ok(0) => return Err(OpenError::Truncated { frame: self.frames, bytes: self.object_bytes }),
                Ok(read) => {
                    self.object_bytes += read as u64;
                    buffer = buffer.get_mut(read..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(OpenError::Read { kind: error.kind(), cause: error.to_string() });
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    /// Fails with an error in which [`OpenError::within`] finds the reason.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.unread.is_empty() {
            if self.next_chunk()?.is_none() {
                return Ok(0);
            }
        }
        let chunk = &self.frame[self.unread.clone()];
        let given = chunk.len().min(buffer.len());
        buffer[..given].copy_from_slice(&chunk[..given]);
        self.unread.start += given;
        Ok(given)
    }
}
