//! The numbers of the format, and the nonce.

use ring::aead::{AES_256_GCM, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::io;

/// Bytes of a DEK: AES-256.
pub const KEY_LEN: usize = 32;
/// Plaintext bytes of every frame but the last: the contract's 1 MiB.
pub const CHUNK_LEN: usize = 1024 * 1024;
/// Bytes of a GCM tag.
pub(super) const TAG_LEN: usize = 16;
/// Bytes of the length field before each frame, and of the zero at the end.
pub const END_LEN: usize = 4;
/// The smallest `len`: nonce and tag around an empty chunk.
pub const MIN_LEN: u32 = (NONCE_LEN + TAG_LEN) as u32;
/// The largest `len`: refused above, before anything is allocated.
pub const MAX_LEN: u32 = (NONCE_LEN + CHUNK_LEN + TAG_LEN) as u32;
/// Bytes on the disk of a frame with a full chunk, its length field included.
pub const FRAME_LEN: usize = END_LEN + MAX_LEN as usize;
/// Where the chunk starts in a frame.
pub(super) const CHUNK_AT: usize = END_LEN + NONCE_LEN;

/// Random bytes in front of a nonce. Seven leave room for counter and flag; each object has a key of its
/// own, so they need not be unique, and only keep the objects of a reused key apart.
pub(super) const PREFIX_LEN: usize = 7;
/// The random part of the nonces of one object.
pub(super) type Prefix = [u8; PREFIX_LEN];

/// Bytes of the object that holds this many bytes of plaintext, framing and final zero included.
pub fn sealed_len(plaintext_bytes: u64) -> u64 {
    let frames = plaintext_bytes.div_ceil(CHUNK_LEN as u64).max(1);
    plaintext_bytes
        .saturating_add(frames.saturating_mul((FRAME_LEN - CHUNK_LEN) as u64))
        .saturating_add(END_LEN as u64)
}

/// A key ready for work.
pub(super) fn cipher(key: &[u8; KEY_LEN]) -> io::Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| io::Error::other("the AES-256-GCM key was refused by the crypto library"))
}

/// The nonce of a frame: its place in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub prefix: Prefix,
    pub counter: u32,
    /// 1 on the last frame, 0 before; other values only in nonces that are random.
    pub flag: u8,
}

impl Place {
    pub fn to_bytes(self) -> [u8; NONCE_LEN] {
        let mut bytes = [0; NONCE_LEN];
        bytes[..PREFIX_LEN].copy_from_slice(&self.prefix);
        bytes[PREFIX_LEN..NONCE_LEN - 1].copy_from_slice(&self.counter.to_be_bytes());
        bytes[NONCE_LEN - 1] = self.flag;
        bytes
    }

    pub fn of(nonce: &[u8; NONCE_LEN]) -> Self {
        let [prefix @ .., c0, c1, c2, c3, flag] = *nonce;
        Self { prefix, counter: u32::from_be_bytes([c0, c1, c2, c3]), flag }
    }

    pub fn nonce(self) -> Nonce {
        Nonce::assume_unique_for_key(self.to_bytes())
    }
}
