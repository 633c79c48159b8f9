//! Files that may be standard input.

use super::Failure;
use crate::object::{MAX_TOKEN_LEN, TokenError};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// Whether the path means a standard stream.
pub(super) fn is_std(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What it is called in messages.
pub(super) fn name(path: &Path) -> String {
    if is_std(path) { "standard input".into() } else { path.display().to_string() }
}

/// The bytes, and how many there are where that is known.
///
/// # Errors
/// When the file cannot be opened.
pub(super) fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if is_std(path) {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let unreadable = |cause| Failure::Input { name: name(path), cause };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), size))
}

/// The text of a token file; never more than a token can have.
///
/// # Errors
/// When the file cannot be read, or is no text.
pub(super) fn read_token(path: &Path) -> Result<Zeroizing<String>, Failure> {
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * MAX_TOKEN_LEN));
    let (reader, _) = open(path)?;
    // One byte more than is allowed, so that the parser sees that it is too long.
    match reader.take(MAX_TOKEN_LEN as u64 + 1).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(TokenError::Malformed { cause: format!("{} is not a text", name(path)) }.into())
        }
        Err(cause) => Err(Failure::Input { name: name(path), cause }),
    }
}
