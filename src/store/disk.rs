//! What the store asks of a file system, as traits: the tests put a disk in its place that loses or tears
//! whatever was not synced.

use crate::model::Space;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What the store may do with its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A directory's files.
pub(super) trait Disk: Send + Sync {
    /// A file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Medium>>;
    /// A new file for its owner alone; what stood under that name is removed.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn Medium>>;
    /// Whether something has that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Whether it is a file; an error where there is nothing.
    fn is_file(&self, path: &Path) -> io::Result<bool>;
    /// Gives a file another name, and whatever had it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The names in this directory are durable when it answers.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. What was written is durable after the next [`Medium::sync`] that succeeds.
pub(super) trait Medium: Send + Sync + Debug {
    fn len(&self) -> io::Result<u64>;
    /// Answers how much was there.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// A grown file takes room as it is written, not before.
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// Whether it still has a name.
    fn is_linked(&self) -> io::Result<bool>;
}

/// The host's own.
#[derive(Debug)]
pub(super) struct HostDisk;

impl Disk for HostDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Medium>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(access == Access::Write).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Medium>> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        Ok(path.metadata()?.is_file())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl Medium for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}

/// What the file system of that path has, as `statvfs` says.
pub(super) fn host_space(path: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let fragment = stat.fragment_size() as u64;
    Ok(Space { free: stat.blocks_available() as u64 * fragment, total: stat.blocks() as u64 * fragment })
}

/// As much as is copied or read at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// Hands the whole file to the disk once more and syncs it. After a sync that failed, the kernel counts
/// pages as written that never were, and a later sync that succeeds says nothing of them: only what is
/// written again is proven.
pub(super) fn write_again(file: &dyn Medium) -> io::Result<()> {
    each_piece(file, |piece, offset| file.write_all_at(piece, offset))?;
    file.sync()
}

/// The content of one file in another, synced.
pub(super) fn copy(from: &dyn Medium, to: &dyn Medium) -> io::Result<()> {
    each_piece(from, |piece, offset| to.write_all_at(piece, offset))?;
    to.sync()
}

fn each_piece(file: &dyn Medium, mut give: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset)? {
            0 => return Ok(()),
            bytes => {
                give(&piece[..bytes], offset)?;
                offset += bytes as u64;
            }
        }
    }
}
