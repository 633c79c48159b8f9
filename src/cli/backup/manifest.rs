//! The manifest of a backup that nobody ordered: a small object of its own, under the backup's key. What the tables
//! are called is as private as what is in them.

use super::super::opening::{Failure, Target};
use crate::model::{Dek, Manifest};
use crate::object::Sealer;
use std::io::{self, Write};
use std::path::Path;

/// Writes it, durable and whole or not at all.
///
/// # Errors
/// [`Failure::Create`], [`Failure::Write`].
pub fn write(path: &Path, manifest: &Manifest, key: &Dek) -> Result<(), Failure> {
    let key = key.plain().ok_or(Failure::Usage("a key has 32 bytes"))?;
    let text = serde_json::to_vec(manifest).map_err(|error| Failure::Internal(error.into()))?;
    let seal = || -> io::Result<Vec<u8>> {
        let mut sealer = Sealer::new(Vec::new(), key)?;
        sealer.write_all(&text)?;
        sealer.finish()
    };
    let sealed = seal().map_err(Failure::Internal)?;
    let mut target = Target::create(path, true)?;
    target.write_all(&sealed).map_err(Failure::Write)?;
    target.commit()
}
