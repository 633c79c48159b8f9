//! The sealed object on its way to the store: one 0600 file, gone at every end.

mod home;

pub use home::home;

use crate::model::{RunId, Space};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ring::digest::{SHA256, digest};
use std::fs::{DirEntry, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run must leave free on the spool's file system: the state file and the logs live there too.
pub const MIN_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// Every spool's name ends so; nothing else in the agent's own directory is touched.
const SUFFIX: &str = ".part";

/// What is known of a spool stands beside it, under its name and this.
pub const LEDGER_EXTENSION: &str = "ledger";

/// What is begun with at once. A run waits for its whole spool to be on the disk before it uploads: with this little is
/// left then, and the host's memory holds few pages that wait for the disk.
const WRITE_BACK_LEN: u64 = 8 * 1024 * 1024;

/// Of a run's id in a file's name: names are at most 255 bytes everywhere.
const NAME_LEN: usize = 80;

/// What can go wrong with the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The guard was reached.
    #[error(
        "not enough room in {}: {free} bytes are free, {}{guard} must stay free. Free some space or set backup.spool_dir to a larger file system",
        dir.display(), if *needed > 0 { format!("the run needs {needed} more, and ") } else { String::new() }
    )]
    NoRoom {
        /// `backup.spool_dir`
        dir: PathBuf,
        /// What is there.
        free: u64,
        /// What is asked.
        needed: u64,
        /// What must stay.
        guard: u64,
    },
    /// A call failed.
    #[error("spool {}: {cause}{}", path.display(), hint(cause))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

fn hint(cause: &io::Error) -> &'static str {
    let kind = cause.kind();
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        ". Free some space or set backup.spool_dir to a larger file system"
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        ". Set backup.spool_dir to a file system that can be written"
    } else {
        ""
    }
}

impl SpoolError {
    /// The error of a spool that comes back out of a writer around it.
    pub fn within(error: &mut io::Error) -> Option<Self> {
        let taken = std::mem::replace(error, io::ErrorKind::Other.into());
        match taken.downcast::<Self>() {
            Ok(inner) => Some(inner),
            Err(other) => {
                *error = other;
                None
            }
        }
    }
}

/// Asks how many bytes are free for us where the path is, and how many there are.
pub type FreeBytes = dyn Fn(&Path) -> io::Result<Space> + Send + Sync;

/// The free space of a file system, and how much of it must stay.
#[derive(Clone)]
pub struct Room {
    /// Bytes that a run leaves free.
    pub min_free_bytes: u64,
    /// What is free.
    pub free: Arc<FreeBytes>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("min_free_bytes", &self.min_free_bytes).finish_non_exhaustive()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self { min_free_bytes: MIN_FREE_BYTES, free: Arc::new(free_bytes) }
    }
}

impl Room {
    /// Fails where `needed` more bytes would reach into the guard.
    pub fn ensure(&self, dir: &Path, needed: u64) -> Result<(), SpoolError> {
        let space = (self.free)(dir).map_err(|cause| SpoolError::Io { path: dir.to_owned(), cause })?;
        let (free, guard) = (space.free, space.to_keep(self.min_free_bytes));
        if free < needed.saturating_add(guard) {
            return Err(SpoolError::NoRoom { dir: dir.to_owned(), free, needed, guard });
        }
        Ok(())
    }
}

fn free_bytes(path: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let fragment = stat.fragment_size() as u64;
    Ok(Space { free: stat.blocks_available() as u64 * fragment, total: stat.blocks() as u64 * fragment })
}

/// A file of ciphertext, removed when this is dropped.
#[derive(Debug)]
pub struct Spool {
    file: File,
    path: PathBuf,
    inode: u64,
    kept: AtomicBool,
}

impl Spool {
    /// A new, empty file for that run; what an earlier life left under its name is removed.
    ///
    /// # Errors
    /// [`SpoolError::Io`]
    pub fn create(dir: &Path, run: &RunId) -> Result<Self, SpoolError> {
        make_dir(dir)?;
        let path = dir.join(file_name(run));
        let made = remove(&path).and_then(|()| {
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)
        });
        let opened = made.and_then(|file| Ok((file.metadata()?.ino(), file)));
        match opened {
            Ok((inode, file)) => Ok(Self { file, path, inode, kept: AtomicBool::new(false) }),
            Err(cause) => Err(SpoolError::Io { path, cause }),
        }
    }

    /// What an earlier life left of that run, where it is a file of that length.
    pub fn reopen(dir: &Path, run: &RunId, size_bytes: u64) -> Option<Self> {
        let path = dir.join(file_name(run));
        let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        let meta = file.metadata().ok()?;
        (meta.is_file() && meta.len() == size_bytes).then(|| Self {
            inode: meta.ino(),
            file,
            path,
            kept: AtomicBool::new(false),
        })
    }

    /// Waits until its bytes are on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Io`]
    pub fn sync(&self) -> Result<(), SpoolError> {
        self.file.sync_data().map_err(|cause| self.failed(cause))
    }

    /// A writer at the beginning of the emptied file; asks for room as it grows.
    pub fn writer(&self, room: &Room) -> Result<SpoolWriter, SpoolError> {
        let emptied = self.file.set_len(0).and_then(|()| self.handle_at_start());
        let file = emptied.map_err(|cause| self.failed(cause))?;
        Ok(SpoolWriter { written: Some(0), ..SpoolWriter::over(file, self.path.clone(), room) })
    }

    /// A reader at the beginning. Its position is its own.
    pub fn reader(&self) -> Result<File, SpoolError> {
        let file = File::open(&self.path).map_err(|cause| self.failed(cause))?;
        let same = file.metadata().map_err(|cause| self.failed(cause))?.ino() == self.inode;
        if !same {
            return Err(self.failed(io::Error::other("was replaced by another file during the run")));
        }
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn handle_at_start(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    fn failed(&self, cause: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), cause }
    }
}

impl Spool {
    /// It stays for the next life of the agent.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    /// Removes the file now; whoever still has it open writes into nothing.
    pub fn discard(&self) {
        if self.kept.load(Ordering::SeqCst) {
            return;
        }
        // A run of a later life may have taken the name over: its file is not ours to remove.
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if ours && let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a spool could not be removed");
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Writes a spool, never into the guard: before each write it asks for the free space, a system call of a microsecond
/// beside a frame of a mebibyte.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    path: PathBuf,
    room: Room,
    /// Of a whole spool, from its beginning.
    written: Option<u64>,
}

impl SpoolWriter {
    /// Watches a file of its own, for what is not the spool but fills the same disk.
    pub fn over(file: File, path: PathBuf, room: &Room) -> Self {
        Self { file, path, room: room.clone(), written: None }
    }

    /// The file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Lets the disk begin with each whole piece that was written, while the next one is made.
    fn write_back(&mut self, len: usize) {
        let Some(written) = &mut self.written else { return };
        let before = *written / WRITE_BACK_LEN;
        *written += len as u64;
        let begin = i64::try_from(before * WRITE_BACK_LEN).unwrap_or(i64::MAX);
        if *written / WRITE_BACK_LEN > before {
            // "Not needed" of what is dirty starts its way to the disk, and drops nothing before it is there. Where a file
            // system does not know that, all of it goes at the end.
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = posix_fadvise(&self.file, begin, WRITE_BACK_LEN as i64, advice);
        }
    }
}

impl Write for SpoolWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let dir = self.path.parent().unwrap_or(&self.path);
        self.room.ensure(dir, bytes.len() as u64).map_err(io::Error::other)?;
        let written = self.file.write(bytes).map_err(|cause| {
            if cause.kind() == io::ErrorKind::Interrupted {
                return cause;
            }
            io::Error::other(SpoolError::Io { path: self.path.clone(), cause })
        })?;
        self.write_back(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where that run's spool is, or would be.
pub fn path_of(dir: &Path, run: &RunId) -> PathBuf {
    dir.join(file_name(run))
}

/// Removes what an earlier life left of that run.
pub fn remove_of(dir: &Path, run: &RunId) {
    let spool = path_of(dir, run);
    for path in [spool.with_extension(LEDGER_EXTENSION), spool] {
        if let Err(error) = remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a spool could not be removed");
        }
    }
}

/// Removes the spools of earlier lives, but for those of `keep` that are known to be whole. Only when no run is
/// going on; gives how many there were.
///
/// # Errors
/// [`SpoolError::Io`], after having tried every file.
pub fn remove_stale(dir: &Path, keep: &[RunId]) -> Result<usize, SpoolError> {
    let kept: Vec<PathBuf> = keep
        .iter()
        .map(|run| path_of(dir, run))
        .filter(|spool| spool.with_extension(LEDGER_EXTENSION).exists())
        .flat_map(|spool| [spool.with_extension(LEDGER_EXTENSION), spool])
        .collect();
    let is_stale = |entry: &DirEntry| {
        let path = entry.path();
        let name = path.to_string_lossy();
        let ours = name.ends_with(SUFFIX) || name.ends_with(&format!(".{LEDGER_EXTENSION}"));
        ours && !kept.contains(&path)
    };
    remove_each(dir, is_stale, remove)
}

/// Removes what is stale in a directory, which need not be there; gives how many there were.
///
/// # Errors
/// [`SpoolError::Io`], after having tried every one.
pub fn remove_each(
    dir: &Path,
    is_stale: impl Fn(&DirEntry) -> bool,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> Result<usize, SpoolError> {
    let failed = |path: &Path, cause| SpoolError::Io { path: path.to_owned(), cause };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(dir, error)),
    };
    let mut removed = 0;
    let mut first_error = Ok(());
    for entry in entries {
        let entry = entry.map_err(|cause| failed(dir, cause))?;
        if !is_stale(&entry) {
            continue;
        }
        match remove(&entry.path()) {
            Ok(()) => removed += 1,
            Err(cause) => first_error = first_error.and(Err(failed(&entry.path(), cause))),
        }
    }
    first_error.map(|()| removed)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes a directory for spools, 0700, where it is missing.
///
/// # Errors
/// [`SpoolError::Io`]
pub fn make_dir(dir: &Path) -> Result<(), SpoolError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|cause| SpoolError::Io { path: dir.to_owned(), cause })
}

/// The run's id as a file's name. What is not plain is replaced, and a digest keeps ids apart that look
/// the same then.
fn file_name(run: &RunId) -> String {
    let id = run.as_str();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !id.is_empty() && id.len() <= NAME_LEN && id.chars().all(|c| plain(&c)) {
        return format!("{id}{SUFFIX}");
    }
    let kept: String = id.chars().filter(plain).take(NAME_LEN).collect();
    let hash = digest(&SHA256, id.as_bytes());
    let hash = data_encoding::HEXLOWER.encode(hash.as_ref().get(..8).unwrap_or_default());
    format!("{kept}.{hash}{SUFFIX}")
}

#[cfg(test)]
mod tests;
