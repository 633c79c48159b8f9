//! Objects that come in parts (S3's multipart upload): each part a file below the upload's own directory, until they
//! are put together or given up.
//!
//! A part's file is its bytes and then their MD5, so that both appear by one rename. Whoever changes an upload holds
//! the lock on its directory. Once it is put together, the directory keeps the ETag alone: a question that comes
//! again gets the same answer.

use super::files;
use super::object_incoming::{Incoming, MD5_LEN, Temporary};
use super::object_store::{ObjectStore, UPLOADS};
use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// In an upload's directory: its ETag, once the object is put together.
const DONE: &str = "done";
/// Of each part but the last (AWS: "Amazon S3 multipart upload limits").
pub const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;
/// Of a part, and of an object in one piece (the same page).
pub const MAX_PART_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Of one upload (the same page).
pub const MAX_PARTS: u32 = 10_000;

/// A part as whoever completes an upload names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// From 1.
    pub number: u32,
    /// As the store gave it; the quotes may be missing.
    pub etag: String,
}

/// Why an upload is not put together. The words are S3's.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Given up, expired, or never begun.
    #[error("the upload does not exist: it was completed, aborted, or has expired")]
    NoSuchUpload,
    /// Not there, or another one.
    #[error("part {0} was not uploaded, or its ETag is not the one given")]
    InvalidPart(u32),
    /// Numbers must grow.
    #[error("the parts are not in the order of their numbers")]
    InvalidPartOrder,
    /// Only the last part may be.
    #[error("part {0} is smaller than 5 MiB and not the last one")]
    TooSmall(u32),
    /// Together they are longer than the store takes.
    #[error("the object is longer than this store takes")]
    TooLarge,
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ObjectStore {
    /// Makes room for an upload of that name, durable.
    pub fn begin_upload(&self, id: &str) -> io::Result<()> {
        let dir = self.upload_dir(id);
        files::make_private_dir(&dir)?;
        files::sync_parent(&dir)
    }

    /// Begins to receive exactly `bytes`: that part of the upload, in place of an earlier one of its number. At its
    /// end it is `NotFound` where the upload is gone or was put together.
    pub fn receive_part(&self, id: &str, number: u32, bytes: u64) -> io::Result<Incoming> {
        let dir = self.upload_dir(id);
        let publish = move |file, md5: &[u8; MD5_LEN]| publish(file, &dir, number, md5);
        Ok(Incoming::new(self.temporary()?, bytes, Box::new(publish)))
    }

    /// Whether that upload is there, put together or not.
    pub fn has_upload(&self, id: &str) -> bool {
        self.upload_dir(id).is_dir()
    }

    /// Whether that upload is there and was not put together.
    pub fn takes_parts(&self, id: &str) -> bool {
        self.has_upload(id) && !self.upload_dir(id).join(DONE).exists()
    }

    /// Where an upload's parts lie. The id must be one of ours: it came under a signature.
    fn upload_dir(&self, id: &str) -> PathBuf {
        self.root().join(UPLOADS).join(id)
    }

    /// Puts the object together out of these parts, and answers its ETag; the upload is over then. Blocks for as long
    /// as copying takes.
    ///
    /// # Errors
    /// [`Fault`]; the upload stays as it was.
    pub fn complete(
        &self,
        id: &str,
        object: &str,
        parts: &[Named],
        max_object_bytes: u64,
    ) -> Result<String, Fault> {
        let dir = self.upload_dir(id);
        let _lock = lock(&dir)?.ok_or(Fault::NoSuchUpload)?;
        let etag = composite(parts)?;
        if let Some(done) = done(&dir)? {
            let other = || Fault::InvalidPart(parts.last().map_or(0, |part| part.number));
            return if done == etag { Ok(etag) } else { Err(other()) };
        }
        check(&dir, parts, max_object_bytes)?;
        let mut whole = self.temporary()?;
        for part in parts {
            let mut from = File::open(part_path(&dir, part.number))?;
            let bytes = part_len(&from)?;
            // The kernel copies between files: nothing of it passes through here.
            let copied = io::copy(&mut Read::by_ref(&mut from).take(bytes), &mut whole.file)?;
            if copied != bytes {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        whole.publish_object(&self.path_of(object))?;
        files::write_private(&dir.join(DONE), etag.as_bytes())?;
        for left in fs::read_dir(&dir)? {
            let path = left?.path();
            if path.file_name().is_some_and(|name| name != DONE) {
                fs::remove_file(path)?;
            }
        }
        Ok(etag)
    }

    /// Gives an upload up: its parts are removed. False where there is none, or where it was put together.
    pub fn abort(&self, id: &str) -> io::Result<bool> {
        let dir = self.upload_dir(id);
        let Some(_lock) = lock(&dir)? else { return Ok(false) };
        if done(&dir)?.is_some() {
            return Ok(false);
        }
        fs::remove_dir_all(&dir)?;
        Ok(true)
    }

    /// The names of all uploads.
    pub fn uploads(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.root().join(UPLOADS))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Removes an upload, whatever became of it.
    pub fn forget_upload(&self, id: &str) -> io::Result<()> {
        let dir = self.upload_dir(id);
        match lock(&dir)? {
            Some(_lock) => fs::remove_dir_all(&dir),
            None => Ok(()),
        }
    }
}

/// Lets a part appear in its upload.
fn publish(mut temporary: Temporary, dir: &Path, number: u32, md5: &[u8; MD5_LEN]) -> io::Result<()> {
    temporary.file.write_all(md5)?;
    // Before the lock: the others need not wait for the disk.
    temporary.file.sync_all()?;
    let _lock = lock(dir)?.ok_or(io::ErrorKind::NotFound)?;
    if done(dir)?.is_some() {
        return Err(io::ErrorKind::NotFound.into());
    }
    temporary.publish(&part_path(dir, number))
}

/// The only one who changes that upload, until it is dropped; None where the upload is gone. Blocks.
fn lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    let opened = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let lock = Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    // Whoever had it before may have removed the directory. Names are never used again.
    Ok(dir.is_dir().then_some(lock))
}

fn part_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:05}"))
}

fn part_len(file: &File) -> io::Result<u64> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a part without its checksum");
    file.metadata()?.len().checked_sub(MD5_LEN as u64).ok_or_else(short)
}

/// The ETag of an upload that was put together.
fn done(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(DONE)) {
        Ok(etag) => Ok(Some(etag)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Holds the list against what is there.
fn check(dir: &Path, parts: &[Named], max_object_bytes: u64) -> Result<(), Fault> {
    if !parts.is_sorted_by(|one, next| one.number < next.number) {
        return Err(Fault::InvalidPartOrder);
    }
    let mut total = 0_u64;
    for (at, part) in parts.iter().enumerate() {
        let file = match File::open(part_path(dir, part.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::InvalidPart(part.number));
            }
            other => other?,
        };
        let bytes = part_len(&file)?;
        let mut md5 = [0; MD5_LEN];
        file.read_exact_at(&mut md5, bytes)?;
        if Some(md5) != md5_of(&part.etag) {
            return Err(Fault::InvalidPart(part.number));
        }
        if bytes < MIN_PART_BYTES && at + 1 < parts.len() {
            return Err(Fault::TooSmall(part.number));
        }
        total = total.saturating_add(bytes);
    }
    if total > max_object_bytes { Err(Fault::TooLarge) } else { Ok(()) }
}

fn md5_of(etag: &str) -> Option<[u8; MD5_LEN]> {
    let hex = etag.trim().trim_matches('"').to_ascii_lowercase();
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// The ETag of the object: the MD5 of the parts' MD5s, a dash, and how many there are.
fn composite(parts: &[Named]) -> Result<String, Fault> {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(md5_of(&part.etag).ok_or(Fault::InvalidPart(part.number))?);
    }
    Ok(format!("{}-{}", HEXLOWER.encode(&hash.finalize()), parts.len()))
}

#[cfg(test)]
#[path = "object_parts_tests.rs"]
mod tests;
