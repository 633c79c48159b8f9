//! Where parts wait until the store has them: some places, in memory or in files, and, where none of them comes free in
//! time, one file more.

use super::super::http::Source;
use super::size::Sizes;
use crate::spool::{self, Room, SpoolError, SpoolWriter};
use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a dump waits for a place: a server hangs up on a dump tool that reads nothing for a minute (MariaDB's and
/// MySQL's `net_write_timeout`, Redis' `repl-timeout`).
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What must be free before a part is begun in a file: all of it, but one that grew may be an object's short last one.
const SURE_BYTES: u64 = 64 * 1024 * 1024;

/// Stretches of the file begin on pages, so that their room can be given back.
const PAGE_BYTES: u64 = 4096;

/// The places of one upload. A lock and not a message: what is waited for is a sum of bytes, not a turn.
#[derive(Debug, Default)]
pub struct Places {
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    places: usize,
    memory_bytes: u64,
}

/// What a part takes up until nobody has it any more.
#[derive(Debug)]
pub enum Held {
    /// One of the places, and so much of their memory.
    Place { of: Arc<Places>, memory_bytes: u64 },
    /// A stretch of the file for what found none.
    Stretch { file: Arc<File>, offset: u64, bytes: u64, aside_bytes: Arc<AtomicU64> },
}

impl Places {
    /// A place as the plan has them; None where none comes free in time that is `usable`.
    pub fn take(
        self: &Arc<Self>,
        sizes: &Sizes,
        patience: Duration,
        usable: impl Fn() -> bool,
    ) -> Option<Held> {
        let memory_bytes = if sizes.in_memory { sizes.part_bytes } else { 0 };
        let is_full = |taken: &mut Taken| {
            taken.places >= sizes.buffers()
                || taken.memory_bytes + memory_bytes > sizes.memory_bytes
                || !usable()
        };
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, waited) =
            self.freed.wait_timeout_while(taken, patience, is_full).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
        }
        taken.places += 1;
        taken.memory_bytes += memory_bytes;
        Some(Held::Place { of: Arc::clone(self), memory_bytes })
    }
}

impl Held {
    /// Others wait for what it takes up.
    pub fn is_place(&self) -> bool {
        matches!(self, Self::Place { .. })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            Self::Place { of, memory_bytes } => {
                let mut taken = of.taken.lock().unwrap_or_else(PoisonError::into_inner);
                taken.places = taken.places.saturating_sub(1);
                taken.memory_bytes = taken.memory_bytes.saturating_sub(*memory_bytes);
                of.freed.notify_all();
            }
            Self::Stretch { file, offset, bytes, aside_bytes } => {
                aside_bytes.fetch_sub(*bytes, Ordering::SeqCst);
                // Where a file system cannot, its room comes back with the file's.
                let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let _ = fallocate(&**file, hole, signed(*offset), signed(*bytes));
            }
        }
    }
}

/// No file is so long that this matters.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The file for parts that find no place: without a name, in the spool's directory, one for the whole upload, so that a
/// store which is away for hours costs one descriptor.
#[derive(Debug)]
pub struct Aside {
    dir: PathBuf,
    room: Room,
    patience: Duration,
    file: Option<Arc<File>>,
    end: u64,
    bytes: Arc<AtomicU64>,
    /// The last part went there, and no place has come free since.
    open: bool,
}

impl Aside {
    /// Nothing is on the disk yet.
    pub fn new(dir: &Path, room: &Room, patience: Duration) -> Self {
        let (dir, room) = (dir.to_owned(), room.clone());
        Self { dir, room, patience, file: None, end: 0, bytes: Arc::default(), open: false }
    }

    /// How long the next part waits for a place. Behind others that found none, hardly at all, but the longer the less
    /// room is left: what there is must last, for the dump must not stand still.
    pub fn patience(&self) -> Duration {
        let used = self.bytes.load(Ordering::SeqCst);
        let space = (self.room.free)(&self.dir).ok().filter(|_| self.open && used > 0);
        let Some(space) = space else { return self.patience };
        let left = space.free.saturating_sub(space.to_keep(self.room.min_free_bytes));
        self.patience.mul_f64(used as f64 / used.saturating_add(left) as f64)
    }

    /// Whether a part of such a size may be begun at a place now. One that needs a file waits while the disk has no room
    /// for all of it, as long as what waits here makes some when it goes up.
    pub fn leaves_room(&self, sizes: &Sizes) -> bool {
        sizes.in_memory
            || self.bytes.load(Ordering::SeqCst) == 0
            || self.room.ensure(&self.dir, sizes.part_bytes).is_ok()
    }

    /// A place came free.
    pub fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            tracing::info!("the store takes parts again: what waits on the disk goes up beside the others");
        }
    }

    /// Room for so many bytes, where the disk has it.
    pub fn begin(&mut self, bytes: u64) -> Option<Buffer> {
        let made = self.stretch(bytes);
        let made = made.inspect_err(|error| {
            tracing::warn!(%error, "the store takes nothing, and the disk has no room for the next part: the dump waits");
        });
        let held = made.ok()?;
        if !std::mem::replace(&mut self.open, true) {
            tracing::warn!(dir = %self.dir.display(), "the store takes nothing: parts wait on the disk, so that the dump goes on");
        }
        Some(held)
    }

    fn stretch(&mut self, bytes: u64) -> Result<Buffer, SpoolError> {
        let failed = |cause| SpoolError::Io { path: self.dir.clone(), cause };
        spool::make_dir(&self.dir)?;
        self.room.ensure(&self.dir, bytes)?;
        let file = match self.file.take() {
            Some(file) => file,
            None => Arc::new(tempfile::tempfile_in(&self.dir).map_err(failed)?),
        };
        if Arc::strong_count(&file) == 1 {
            // Nobody has anything of it.
            file.set_len(0).map_err(failed)?;
            self.end = 0;
        }
        let offset = self.end.next_multiple_of(PAGE_BYTES);
        self.file = Some(Arc::clone(&file));
        // Not every file system can; the guard is far from the end of the disk.
        let full = [nix::Error::ENOSPC, nix::Error::EDQUOT, nix::Error::EFBIG, nix::Error::EIO];
        let reserved = fallocate(&*file, FallocateFlags::empty(), signed(offset), signed(bytes));
        if let Some(errno) = reserved.err().filter(|errno| full.contains(errno)) {
            return Err(failed(errno.into()));
        }
        self.end = offset + bytes;
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let aside_bytes = Arc::clone(&self.bytes);
        let held = Held::Stretch { file: Arc::clone(&file), offset, bytes, aside_bytes };
        Ok(Buffer { held, room: Filled::Stretch { file, dir: self.dir.clone(), offset, len: 0 } })
    }
}

/// A part that is filled.
pub struct Buffer {
    held: Held,
    room: Filled,
}

enum Filled {
    Memory(Vec<u8>),
    File { writer: SpoolWriter, len: u64 },
    Stretch { file: Arc<File>, dir: PathBuf, offset: u64, len: u64 },
}

impl Buffer {
    /// An empty one at that place.
    ///
    /// # Errors
    /// Where it is a file and the disk has no room for it.
    pub fn at(place: Held, sizes: &Sizes, dir: &Path, room: &Room) -> io::Result<Self> {
        if sizes.in_memory {
            let bytes = Vec::with_capacity(usize::try_from(sizes.part_bytes).unwrap_or(0));
            return Ok(Self { held: place, room: Filled::Memory(bytes) });
        }
        room.ensure(dir, sizes.part_bytes.min(SURE_BYTES)).map_err(io::Error::other)?;
        spool::make_dir(dir).map_err(io::Error::other)?;
        let file = tempfile::tempfile_in(dir)
            .map_err(|cause| io::Error::other(SpoolError::Io { path: dir.to_owned(), cause }))?;
        let writer = SpoolWriter::over(file, dir.join("part"), room);
        Ok(Self { held: place, room: Filled::File { writer, len: 0 } })
    }

    /// Bytes in it.
    pub fn len(&self) -> u64 {
        match &self.room {
            Filled::Memory(bytes) => bytes.len() as u64,
            Filled::File { len, .. } | Filled::Stretch { len, .. } => *len,
        }
    }

    /// Takes all of them.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.room {
            Filled::Memory(held) => held.extend_from_slice(bytes),
            Filled::File { writer, len } => {
                writer.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
            Filled::Stretch { file, dir, offset, len } => {
                let failed = |cause| io::Error::other(SpoolError::Io { path: dir.clone(), cause });
                file.write_all_at(bytes, *offset + *len).map_err(failed)?;
                *len += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Its bytes, and what they take up.
    pub fn into_parts(self) -> (Source, Held) {
        let source = match self.room {
            Filled::Memory(bytes) => Source::Memory(Bytes::from(bytes)),
            Filled::File { writer, len } => {
                Source::File { file: Arc::new(writer.into_file()), offset: 0, len }
            }
            Filled::Stretch { file, offset, len, .. } => Source::File { file, offset, len },
        };
        (source, self.held)
    }
}
