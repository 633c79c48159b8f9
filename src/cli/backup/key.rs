//! The key of a backup that nobody ordered: given, or made here and written down before it is used.

use super::super::CliError;
use super::super::opening::{Failure, read_key};
use crate::model::Dek;
use data_encoding::BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A key, and the file that was made for it.
pub struct Key {
    dek: Dek,
    /// Removed when this is dropped: an object that was not made needs no key.
    made: Option<PathBuf>,
}

impl Key {
    /// The key in `file`, or a new one, durable in `out` before anything is sealed with it.
    ///
    /// # Errors
    /// Where the file is no key, or `out` cannot be made or exists.
    pub fn of(file: Option<&Path>, out: Option<&Path>) -> Result<Self, Failure> {
        match (file, out) {
            (Some(file), _) => Ok(Self { dek: read_key(file)?, made: None }),
            (None, Some(out)) => Self::make(out),
            (None, None) => Err(Failure::Usage("--key-file or --key-out is needed")),
        }
    }

    fn make(out: &Path) -> Result<Self, Failure> {
        let mut bytes = Zeroizing::new([0; Dek::LEN]);
        let random = |_| Failure::Internal(io::Error::other("the kernel gives no randomness"));
        SystemRandom::new().fill(bytes.as_mut_slice()).map_err(random)?;
        let fault = |cause: io::Error| {
            // A key that is lost is every backup that was made with it: nothing replaces it.
            let exists = cause.kind() == io::ErrorKind::AlreadyExists;
            let taken = || io::Error::other("it exists; --key-file uses the key that is in it");
            Failure::Create { name: out.display().to_string(), cause: if exists { taken() } else { cause } }
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(out).map_err(fault)?;
        let key = Self { dek: bytes.to_vec().into(), made: Some(out.to_owned()) };
        let mut text = Zeroizing::new(BASE64.encode(bytes.as_slice()));
        text.push('\n');
        let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(fault)?;
        Ok(key)
    }

    /// The key itself.
    pub fn dek(&self) -> Dek {
        self.dek.clone()
    }

    /// Leaves the file where it is.
    pub fn keep(mut self) {
        self.made = None;
    }

    /// The same after a failure that leaves open whether something is stored that only this key opens.
    pub fn kept_with(mut self, error: CliError) -> CliError {
        let Some(made) = self.made.take() else { return error };
        error.and(format_args!(
            "; the store may have the object all the same: its key stays in {}",
            made.display()
        ))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Then an unused key stays behind: no harm.
            let _ = fs::remove_file(made);
        }
    }
}
