//! Objects as files below one directory. An object is visible whole or not at all: it is written under a
//! temporary name, synced, and then renamed. What comes in parts waits beside, see `object_parts`.

use super::files;
use super::object_incoming::{Incoming, MD5_LEN, Stored, Temporary};
use data_encoding::HEXLOWER;
use ring::digest;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is hashed or read at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// Uploads in the making; no object's name begins with a dot.
pub const INCOMING: &str = ".incoming";
/// Uploads in parts.
pub const UPLOADS: &str = ".uploads";

/// A directory of objects.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    root: PathBuf,
}

impl ObjectStore {
    /// Opens the directory; what uploads left behind that a crash cut is removed.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        files::make_private_dir(&incoming)?;
        for left in fs::read_dir(&incoming)? {
            fs::remove_file(left?.path())?;
        }
        files::make_private_dir(&root.join(UPLOADS))?;
        Ok(Self { root })
    }

    /// Where everything lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an object lies. The name must have passed `presign::is_object_name`.
    pub fn path_of(&self, object: &str) -> PathBuf {
        self.root.join(object)
    }

    /// Begins to receive exactly `bytes`: the object, in one piece.
    pub fn receive(&self, object: &str, bytes: u64) -> io::Result<Incoming> {
        let path = self.path_of(object);
        let publish = move |file: Temporary, _: &[u8; MD5_LEN]| file.publish_object(&path);
        Ok(Incoming::new(self.temporary()?, bytes, Box::new(publish)))
    }

    /// A new file that can become anything here.
    pub fn temporary(&self) -> io::Result<Temporary> {
        Temporary::new(&self.root.join(INCOMING))
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
        let received = incoming.finish().unwrap();
        let stored = received.stored;
        assert_eq!(stored.bytes, 6);
        assert_eq!(stored.sha256, "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
        assert_eq!(received.md5, "e80b5017098950fc58aad83c8c14978e");
        assert_eq!(store.measure(OBJECT).unwrap(), stored);
        assert_eq!(incoming_files(&store), 0);
    }

    #[test]
    fn a_short_long_or_other_upload_leaves_nothing_and_keeps_what_was_there() {
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
        let mut other = store.receive(OBJECT, 3).unwrap();
        other.expect_md5([0; MD5_LEN]);
        other.write(b"abc").unwrap();
        assert_eq!(other.finish().unwrap_err().kind(), io::ErrorKind::InvalidData);
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
