//! Objects as files below one directory. An object is visible whole or not at all: it is written under a
//! temporary name, synced, and then renamed.

use super::files;
use data_encoding::HEXLOWER;
use ring::digest;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is hashed or read at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// Uploads in the making; no object's name begins with a dot.
const INCOMING: &str = ".incoming";

/// A directory of objects.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    root: PathBuf,
}

/// What a stored object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl ObjectStore {
    /// Opens the directory; what uploads left behind that a crash cut is removed.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        files::make_private_dir(&incoming)?;
        for left in fs::read_dir(&incoming)? {
            fs::remove_file(left?.path())?;
        }
        Ok(Self { root })
    }

    /// Where an object lies. The name must have passed `presign::is_object_name`.
    pub fn path_of(&self, object: &str) -> PathBuf {
        self.root.join(object)
    }

    /// Begins an upload of exactly `bytes`.
    pub fn receive(&self, object: &str, bytes: u64) -> io::Result<Incoming> {
        let temporary = self.root.join(INCOMING).join(super::keys::random_hex::<16>()?);
        let file = OpenOptions::new().write(true).create_new(true).mode(files::FILE_MODE).open(&temporary)?;
        Ok(Incoming {
            file,
            temporary,
            target: self.path_of(object),
            expected: bytes,
            received: 0,
            sha256: digest::Context::new(&digest::SHA256),
        })
    }

    /// Reads the whole object. Blocks for as long as that takes.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub fn measure(&self, object: &str) -> io::Result<Stored> {
        let mut file = File::open(self.path_of(object))?;
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut block = vec![0; BLOCK_BYTES];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(Stored { bytes, sha256: HEXLOWER.encode(sha256.finish().as_ref()) });
            }
            sha256.update(&block[..read]);
            bytes += read as u64;
        }
    }
}

/// An upload in the making. Dropped before its end, it leaves nothing.
pub struct Incoming {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    expected: u64,
    received: u64,
    sha256: digest::Context,
}

impl Incoming {
    /// Takes the next bytes. Blocks.
    ///
    /// # Errors
    /// Where the disk refuses, or more comes than was announced.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.received += bytes.len() as u64;
        if self.received > self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than Content-Length said"));
        }
        self.sha256.update(bytes);
        self.file.write_all(bytes)
    }

    /// Makes the object visible under its name. Blocks until it is on the disk.
    ///
    /// # Errors
    /// `UnexpectedEof` where less came than was announced; nothing is visible then.
    pub fn finish(self) -> io::Result<Stored> {
        if self.received != self.expected {
            let what = format!("{} of {} bytes came", self.received, self.expected);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.file.sync_all()?;
        if let Some(parent) = self.target.parent() {
            files::make_private_dir(parent)?;
            // The directories' own names, up to the store's root.
            parent.ancestors().take(3).try_for_each(sync_if_there)?;
        }
        fs::rename(&self.temporary, &self.target)?;
        files::sync_parent(&self.target)?;
        Ok(Stored { bytes: self.received, sha256: HEXLOWER.encode(self.sha256.clone().finish().as_ref()) })
    }
}

fn sync_if_there(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Gone already where the upload ended well.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "a/j/r.bkpy";

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(dir.path().join("objects")).unwrap();
        (dir, store)
    }

    fn incoming_files(store: &ObjectStore) -> usize {
        fs::read_dir(store.root.join(INCOMING)).unwrap().count()
    }

    #[test]
    fn an_object_is_visible_at_its_end_and_is_what_was_sent() {
        let (_dir, store) = store();
        let mut incoming = store.receive(OBJECT, 6).unwrap();
        incoming.write(b"abc").unwrap();
        assert!(!store.path_of(OBJECT).exists());
        incoming.write(b"def").unwrap();
        let stored = incoming.finish().unwrap();
        assert_eq!(stored.bytes, 6);
        assert_eq!(stored.sha256, "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
        assert_eq!(store.measure(OBJECT).unwrap(), stored);
        assert_eq!(incoming_files(&store), 0);
    }

    #[test]
    fn a_short_or_long_upload_leaves_nothing_and_keeps_what_was_there() {
        let (_dir, store) = store();
        let mut first = store.receive(OBJECT, 1).unwrap();
        first.write(b"1").unwrap();
        first.finish().unwrap();
        let mut short = store.receive(OBJECT, 6).unwrap();
        short.write(b"abc").unwrap();
        assert_eq!(short.finish().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut long = store.receive(OBJECT, 2).unwrap();
        assert!(long.write(b"abc").is_err());
        drop(long);
        assert_eq!(incoming_files(&store), 0);
        assert_eq!(fs::read(store.path_of(OBJECT)).unwrap(), b"1");
    }

    #[test]
    fn what_a_crash_left_is_removed_at_the_next_start() {
        let (dir, store) = store();
        fs::write(store.root.join(INCOMING).join("half"), b"half").unwrap();
        let store = ObjectStore::open(dir.path().join("objects")).unwrap();
        assert_eq!(incoming_files(&store), 0);
        assert_eq!(store.measure(OBJECT).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
