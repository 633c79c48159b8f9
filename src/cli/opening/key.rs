//! What opens an object: a decryption token, or the key itself.

use super::{Failure, input};
use crate::model::Dek;
use crate::object::{Digest, Token};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

/// A key in base64 has 44 characters, in hex 64; what is longer is another file.
const MAX_KEY_FILE_BYTES: usize = 256;

/// The key of an object, and what is known of the object.
#[derive(Debug)]
pub enum Key {
    /// From a control plane.
    Token(Box<Token>),
    /// From a file: `backup --key-out` makes such.
    Bare(Dek),
}

impl Key {
    /// The 32 bytes.
    ///
    /// # Errors
    /// None that a key made here can have.
    pub fn dek(&self) -> Result<&[u8; Dek::LEN], Failure> {
        match self {
            Self::Token(token) => Ok(token.dek()),
            Self::Bare(key) => key.plain().ok_or(Failure::Usage("a key has 32 bytes")),
        }
    }

    /// The run that made the object, where that is known.
    pub fn run_id(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(&token.run_id),
            Self::Bare(_) => None,
        }
    }

    /// Of the whole object, where that is known.
    pub fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Token(token) => token.sha256,
            Self::Bare(_) => None,
        }
    }
}

/// A key file: 32 bytes as they are, in base64 or in hex, blanks and newlines around them.
///
/// # Errors
/// 66 where it cannot be read, 65 where it is no key.
pub fn read_key(path: &Path) -> Result<Dek, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES + 1));
    let (reader, _) = input::open(path)?;
    let read = reader.take(MAX_KEY_FILE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|cause| Failure::Input { name: input::name(path), cause })?;
    parse(&bytes).ok_or_else(|| Failure::KeyFile { name: input::name(path) })
}

fn parse(bytes: &[u8]) -> Option<Dek> {
    if bytes.len() == Dek::LEN {
        return Some(bytes.to_vec().into());
    }
    let text = bytes.trim_ascii();
    // Hex digits are base64 as well, of something longer: each is tried.
    [BASE64.decode(text), HEXLOWER_PERMISSIVE.decode(text)]
        .into_iter()
        .filter_map(Result::ok)
        .map(Dek::from)
        .find(|key| key.plain().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_every_form_and_nothing_else() {
        let key: Vec<u8> = (200..232).collect();
        let forms = [
            key.clone(),
            BASE64.encode(&key).into_bytes(),
            format!("  {}\n", BASE64.encode(&key)).into_bytes(),
            HEXLOWER_PERMISSIVE.encode(&key).to_uppercase().into_bytes(),
        ];
        for form in &forms {
            assert_eq!(parse(form).unwrap().as_received(), key);
        }
        let short = BASE64.encode(&key[1..]);
        for wrong in [&b""[..], &key[1..], short.as_bytes(), b"not a key", &[b'a'; 63]] {
            assert!(parse(wrong).is_none());
        }
    }
}
