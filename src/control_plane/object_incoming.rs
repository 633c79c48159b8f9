//! Bytes on their way into the store: a temporary file, hashed as it grows, that gets its name at the end or is gone.

use super::files;
use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};
use ring::digest;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Of an MD5.
pub const MD5_LEN: usize = 16;

/// What a stored object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Length and SHA-256.
    pub stored: Stored,
    /// The ETag of one PUT, lower-case hex.
    pub md5: String,
}

/// A new file in the store, gone when it is dropped without having got a name.
#[derive(Debug)]
pub struct Temporary {
    /// For writing.
    pub file: File,
    path: PathBuf,
}

impl Temporary {
    /// An empty one in that directory.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(super::keys::random_hex::<16>()?);
        let file = OpenOptions::new().write(true).create_new(true).mode(files::FILE_MODE).open(&path)?;
        Ok(Self { file, path })
    }

    /// Makes it visible under that name, in place of what was there. Blocks until it is on the disk.
    pub fn publish(&self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        files::sync_parent(target)
    }

    /// The same for an object, whose directories may not be there yet.
    pub fn publish_object(&self, target: &Path) -> io::Result<()> {
        if let Some(parent) = target.parent() {
            files::make_private_dir(parent)?;
            // The directories' own names, up to the store's root.
            parent.ancestors().take(3).try_for_each(|dir| File::open(dir)?.sync_all())?;
        }
        self.publish(target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where it has got its name.
        let _ = fs::remove_file(&self.path);
    }
}

/// What becomes of a file that is whole, with the MD5 of its bytes.
pub type Publish = Box<dyn FnOnce(Temporary, &[u8; MD5_LEN]) -> io::Result<()> + Send>;

/// An upload in the making. Dropped before its end, it leaves nothing.
pub struct Incoming {
    file: Temporary,
    publish: Publish,
    expected: u64,
    expected_md5: Option<[u8; MD5_LEN]>,
    received: u64,
    sha256: digest::Context,
    md5: Md5,
}

impl Incoming {
    /// Begins to receive exactly `bytes`.
    pub fn new(file: Temporary, bytes: u64, publish: Publish) -> Self {
        Self {
            file,
            publish,
            expected: bytes,
            expected_md5: None,
            received: 0,
            sha256: digest::Context::new(&digest::SHA256),
            md5: Md5::new(),
        }
    }

    /// Its sender told the MD5 beforehand (`Content-MD5`): anything else is refused at the end.
    pub fn expect_md5(&mut self, md5: [u8; MD5_LEN]) {
        self.expected_md5 = Some(md5);
    }

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
        self.md5.update(bytes);
        self.file.file.write_all(bytes)
    }

    /// Makes what came visible. Blocks until it is on the disk.
    ///
    /// # Errors
    /// `UnexpectedEof` where less came than was announced, `InvalidData` where something else came; nothing is
    /// visible then.
    pub fn finish(self) -> io::Result<Received> {
        if self.received != self.expected {
            let what = format!("{} of {} bytes came", self.received, self.expected);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let md5: [u8; MD5_LEN] = self.md5.finalize().into();
        if self.expected_md5.is_some_and(|expected| expected != md5) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the Content-MD5 is not that of what came",
            ));
        }
        (self.publish)(self.file, &md5)?;
        let sha256 = HEXLOWER.encode(self.sha256.finish().as_ref());
        Ok(Received { stored: Stored { bytes: self.received, sha256 }, md5: HEXLOWER.encode(&md5) })
    }
}
