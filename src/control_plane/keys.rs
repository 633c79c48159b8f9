//! The control plane's secrets: one master key on disk, everything else derived from it.
//!
//! `master.key` (32 random bytes, 0600) never leaves the data directory. HKDF-SHA256 makes of it one key
//! for the signatures of object URLs, one for decryption tokens and one that seals the runs' data keys in
//! the state, so that a copy of the state alone opens no backup.

use super::files;
use crate::model::{Dek, Secret};
use data_encoding::{BASE64, HEXLOWER};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};
use std::io;
use std::path::Path;

const KEY_LEN: usize = 32;
/// Separates what is derived here from anything else a 32-byte file might be used for.
const SALT: &[u8] = b"backupy control plane v1";
/// Letters and digits of an agent key after its prefix (protocol section 1).
const AGENT_KEY_CHARS: usize = 32;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The keys in use.
pub struct Keys {
    urls: hmac::Key,
    tokens: hmac::Key,
    deks: LessSafeKey,
    rng: SystemRandom,
}

impl Keys {
    /// The keys of a data directory; the master key is made where there is none.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("master.key");
        let master = files::read_or_create(&path, || Ok(random::<KEY_LEN>()?.to_vec()))?;
        if master.len() != KEY_LEN {
            let what = format!("{} holds {} bytes instead of {KEY_LEN}", path.display(), master.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let derive = |purpose: &[u8]| derive(&master, purpose);
        let deks = UnboundKey::new(&AES_256_GCM, &derive(b"dek")?).map_err(unspecified)?;
        Ok(Self {
            urls: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"object url")?),
            tokens: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"decryption token")?),
            deks: LessSafeKey::new(deks),
            rng: SystemRandom::new(),
        })
    }

    /// Signs object URLs.
    pub fn urls(&self) -> &hmac::Key {
        &self.urls
    }

    /// Signs decryption tokens.
    pub fn tokens(&self) -> &hmac::Key {
        &self.tokens
    }

    /// A new data key, and the same sealed for the state: bound to its run.
    pub fn new_dek(&self, run_id: &str) -> io::Result<String> {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill(&mut nonce).map_err(unspecified)?;
        let mut sealed = random::<{ Dek::LEN }>()?.to_vec();
        let aad = Aad::from(run_id.as_bytes());
        self.deks
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(unspecified)?;
        Ok(BASE64.encode(&[nonce.as_slice(), &sealed].concat()))
    }

    /// The data key of a run.
    pub fn open_dek(&self, run_id: &str, sealed: &str) -> io::Result<Dek> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the sealed data key does not open");
        let mut bytes = BASE64.decode(sealed.as_bytes()).map_err(|_| damaged())?;
        let (nonce, ciphertext) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let aad = Aad::from(run_id.as_bytes());
        let plain = self.deks.open_in_place(nonce, aad, ciphertext).map_err(|_| damaged())?;
        Ok(Dek::from(plain.to_vec()))
    }
}

fn derive(master: &[u8], purpose: &[u8]) -> io::Result<[u8; KEY_LEN]> {
    let mut key = [0; KEY_LEN];
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(master)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(unspecified)?;
    Ok(key)
}

fn unspecified(_: ring::error::Unspecified) -> io::Error {
    io::Error::other("the cryptographic library refused")
}

/// Random bytes of the system's generator.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(unspecified)?;
    Ok(bytes)
}

/// A random name of `BYTES` bytes, in hex.
pub fn random_hex<const BYTES: usize>() -> io::Result<String> {
    Ok(HEXLOWER.encode(&random::<BYTES>()?))
}

/// A new agent key of the contract's form (protocol section 1).
pub fn new_agent_key() -> io::Result<Secret> {
    let mut key = String::from("bkpy_live_");
    let end = key.len() + AGENT_KEY_CHARS;
    // Bytes past the last whole multiple of the alphabet are thrown away: every letter is as likely.
    let fair = 256 / ALPHABET.len() * ALPHABET.len();
    while key.len() < end {
        for byte in random::<AGENT_KEY_CHARS>()? {
            if usize::from(byte) < fair && key.len() < end {
                key.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(Secret::from(key))
}

/// Whether a text has the form of an agent key (protocol section 1).
pub fn is_agent_key(key: &str) -> bool {
    let secret = key.strip_prefix("bkpy_live_").or_else(|| key.strip_prefix("bkpy_test_"));
    match secret {
        Some(rest) => rest.len() == AGENT_KEY_CHARS && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        None => key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9')),
    }
}

/// Lower-case hex of the SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Whether two texts are the same, in a time that tells nothing about where they differ.
pub fn same_secret(given: &[u8], known: &[u8]) -> bool {
    let Ok(key) = random::<KEY_LEN>() else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, given, hmac::sign(&key, known).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sealed_data_key_opens_for_its_run_only_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let sealed = keys.new_dek("run-1").unwrap();
        let dek = keys.open_dek("run-1", &sealed).unwrap();
        assert_eq!(dek.as_received().len(), 32);
        assert!(keys.open_dek("run-2", &sealed).is_err());
        assert!(keys.open_dek("run-1", "AAAA").is_err());
        assert!(Keys::open(dir.path()).unwrap().open_dek("run-1", &sealed).unwrap() == dek);
        let mode = std::fs::metadata(dir.path().join("master.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(keys.new_dek("run-1").unwrap(), sealed);
    }

    #[test]
    fn a_master_key_of_another_length_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("master.key"), b"short").unwrap();
        assert!(Keys::open(dir.path()).is_err());
        assert_eq!(std::fs::read(dir.path().join("master.key")).unwrap(), b"short");
    }

    #[test]
    fn agent_keys_have_the_form_of_the_contract() {
        let key = new_agent_key().unwrap();
        assert!(is_agent_key(key.expose()));
        assert_ne!(key, new_agent_key().unwrap());
        assert!(is_agent_key(&"0f".repeat(32)));
        for wrong in ["", "bkpy_live_", "bkpy_prod_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", &"0F".repeat(32)] {
            assert!(!is_agent_key(wrong), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_told_apart() {
        assert!(same_secret(b"token", b"token"));
        assert!(!same_secret(b"token", b"tokem"));
        assert!(!same_secret(b"", b"token"));
    }
}
