//! Values sealed under a key that only the agent's key opens.
//!
//! AES-256-GCM with a random nonce a record; the table and the record's key are the additional data,
//! so that a record moved to another place does not open there.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// Bytes of the salt that the key is derived with.
pub(super) const SALT_BYTES: usize = 32;

/// Of AES-GCM.
const TAG_BYTES: usize = 16;

/// What a sealed value has more than its content: nonce and tag.
pub(super) const OVERHEAD_BYTES: usize = NONCE_LEN + TAG_BYTES;

/// Binds the derived key to this use of the agent key.
const KEY_PURPOSE: &[u8] = b"backupy-agent state file v1";

/// The sealed bytes do not open: altered, moved, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOpened;

/// The source of randomness or the cipher failed: nothing that a caller can mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSealed;

/// Seals and opens values.
pub(super) struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

impl Sealer {
    /// The sealer of a state file with this salt.
    pub(super) fn new(agent_key: &SecretString, salt: &[u8]) -> Result<Self, NotSealed> {
        let key = Salt::new(HKDF_SHA256, salt)
            .extract(agent_key.expose_secret().as_bytes())
            .expand(&[KEY_PURPOSE], &AES_256_GCM)
            .map(UnboundKey::from)
            .map_err(|_| NotSealed)?;
        Ok(Self { key: LessSafeKey::new(key), random: SystemRandom::new() })
    }

    /// A salt for a new state file.
    pub(super) fn fresh_salt() -> Result<[u8; SALT_BYTES], NotSealed> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| NotSealed)?;
        Ok(salt)
    }

    /// Nonce, ciphertext, tag.
    pub(super) fn seal(&self, table: &str, key: &[u8], content: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let mut sealed = vec![0; content.len() + OVERHEAD_BYTES];
        self.seal_into(&mut sealed, table, key, &[content])?;
        Ok(sealed)
    }

    /// The same for content that lies in parts, where it is to stay: megabytes are not copied on their way.
    /// `room` is [`OVERHEAD_BYTES`] longer than the parts together.
    pub(super) fn seal_into(
        &self,
        room: &mut [u8],
        table: &str,
        key: &[u8],
        parts: &[&[u8]],
    ) -> Result<(), NotSealed> {
        let (head, rest) = room.split_first_chunk_mut::<NONCE_LEN>().ok_or(NotSealed)?;
        let (content, tail) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or(NotSealed)?;
        self.random.fill(head).map_err(|_| NotSealed)?;
        let mut free = &mut *content;
        for part in parts {
            let taken;
            (taken, free) = free.split_at_mut_checked(part.len()).ok_or(NotSealed)?;
            taken.copy_from_slice(part);
        }
        if !free.is_empty() {
            return Err(NotSealed);
        }
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*head), place(table, key), content)
            .map_err(|_| NotSealed)?;
        tail.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// The content of what [`Sealer::seal`] made for the same table and key.
    pub(super) fn open(&self, table: &str, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let (nonce, content) = sealed.split_at_checked(NONCE_LEN).ok_or(NotOpened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened)?;
        let mut content = content.to_vec();
        let length =
            self.key.open_in_place(nonce, place(table, key), &mut content).map_err(|_| NotOpened)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// A zero byte parts table and key: no table's name has one.
fn place(table: &str, key: &[u8]) -> Aad<Vec<u8>> {
    let mut place = Vec::with_capacity(table.len() + 1 + key.len());
    place.extend_from_slice(table.as_bytes());
    place.push(0);
    place.extend_from_slice(key);
    Aad::from(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(key: &str, salt: u8) -> Sealer {
        Sealer::new(&SecretString::from(key), &[salt; SALT_BYTES]).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_only_at_its_place_and_under_its_key() {
        let ours = sealer("key", 1);
        let sealed = ours.seal("outbox", b"7", b"content").unwrap();
        assert_eq!(sealed.len(), b"content".len() + OVERHEAD_BYTES);
        assert_eq!(ours.open("outbox", b"7", &sealed), Ok(b"content".to_vec()));
        assert_eq!(ours.open("outbox", b"8", &sealed), Err(NotOpened), "another key of the table");
        assert_eq!(ours.open("runs", b"7", &sealed), Err(NotOpened), "another table");
        assert_eq!(sealer("other", 1).open("outbox", b"7", &sealed), Err(NotOpened), "another agent key");
        assert_eq!(sealer("key", 2).open("outbox", b"7", &sealed), Err(NotOpened), "another salt");
    }

    #[test]
    fn parts_are_sealed_as_what_they_are_together_and_only_into_room_that_fits() {
        let ours = sealer("key", 1);
        let parts: [&[u8]; 3] = [b"con", b"", b"tent"];
        let mut room = [0; 7 + OVERHEAD_BYTES];
        assert_eq!(ours.seal_into(&mut room, "t", b"k", &parts), Ok(()));
        assert_eq!(ours.open("t", b"k", &room), Ok(b"content".to_vec()));
        for wrong in [0, OVERHEAD_BYTES, 6 + OVERHEAD_BYTES, 8 + OVERHEAD_BYTES] {
            assert_eq!(ours.seal_into(&mut vec![0; wrong], "t", b"k", &parts), Err(NotSealed), "{wrong}");
        }
    }

    #[test]
    fn table_and_key_cannot_be_shifted_into_each_other() {
        let ours = sealer("key", 1);
        let sealed = ours.seal("ab", b"c", b"content").unwrap();
        assert_eq!(ours.open("a", b"bc", &sealed), Err(NotOpened));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let ours = sealer("key", 1);
        let sealed = ours.seal("runs", b"r", b"content").unwrap();
        for position in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[position / 8] ^= 1 << (position % 8);
            assert_eq!(ours.open("runs", b"r", &altered), Err(NotOpened), "bit {position}");
        }
        for length in 0..sealed.len() {
            assert_eq!(ours.open("runs", b"r", &sealed[..length]), Err(NotOpened), "cut to {length}");
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_to_the_same_bytes() {
        let ours = sealer("key", 1);
        assert_ne!(ours.seal("t", b"k", b"same").unwrap(), ours.seal("t", b"k", b"same").unwrap());
    }

    #[test]
    fn nothing_of_the_key_is_shown() {
        assert_eq!(format!("{:?}", sealer("key", 1)), "Sealer(***)");
    }
}
