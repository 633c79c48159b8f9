//! Backup object format v1 (protocol section 6) and decryption tokens (section 7).
//!
//! # The bytes
//!
//! The stream is cut in chunks of 1 MiB; only the last may be shorter. Each chunk is a frame,
//! integers big-endian, and the object ends with a zero:
//!
//! ```text
//! u32 len | 12-byte nonce | AES-256-GCM ciphertext | 16-byte tag      len = 12 + ciphertext + 16
//! ...
//! u32 0
//! ```
//!
//! The AAD is empty and the key is the object's own DEK. Nothing in that notices a frame that was
//! dropped, doubled or moved, so the nonce carries the order (the STREAM construction):
//!
//! ```text
//! 7 random bytes, one draw an object | u32 frame counter from 0 | u8, 1 on the last frame and 0 before
//! ```
//!
//! Any v1 reader opens such an object. [`Opener`] authenticates a frame first and then holds its nonce
//! against the sequence: an authentic frame in the wrong place is [`OpenError::OutOfOrder`], a
//! changed byte is [`OpenError::Authentication`]. Objects of other writers have random nonces
//! and open only with [`Order::AllowUnordered`].
//!
//! # The empty stream
//!
//! is one frame with an empty chunk and the last flag (len 28, the smallest that is allowed), then the
//! zero: 36 bytes. Zero frames would be an object that anybody can make without the key, and what
//! an attacker who may truncate makes of every object; so a strict reader refuses it.

mod digest;
mod ends;
mod error;
mod format;
mod open;
mod seal;
mod token;

pub use digest::{Digest, HashingReader, HashingWriter};
pub use ends::check_ends;
pub use error::{Disorder, OpenError};
pub use format::{CHUNK_LEN, END_LEN, FRAME_LEN, KEY_LEN, MAX_LEN, MIN_LEN, sealed_len};
pub use open::{Opener, Order};
pub use seal::Sealer;
pub use token::{MAX_TOKEN_LEN, Token, TokenError};

#[cfg(test)]
mod tests;
