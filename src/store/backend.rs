//! The file under redb: held until the key and the content proved right, then live.
//!
//! Opening a redb file writes to it (at least its header, after a crash more). A file that turns out
//! to be sealed under another key, or damaged, must stay as it is: so while it is held, every write
//! goes to a journal in memory that reads see, and only [`StateFile::release`] carries the journal out,
//! in its order and with its syncs, which keeps redb's own promises about crashes in between.

use super::disk::Medium;
use nix::errno::Errno;
use redb::StorageBackend;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state file. Clones are the same file.
#[derive(Debug, Clone)]
pub(super) struct StateFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<dyn Medium>,
    state: Mutex<State>,
    /// The file may not grow past it.
    max_bytes: AtomicU64,
    /// A sync failed: what was written since the one before may be nowhere, whatever a reader sees.
    unproven: AtomicBool,
}

#[derive(Debug)]
enum State {
    /// Nothing reaches the file.
    Held(Journal),
    /// As any file.
    Live,
    /// The journal could not be carried out to its end, or the file was given up: as after a crash.
    Closed,
}

#[derive(Debug)]
struct Journal {
    entries: Vec<Entry>,
    len: u64,
}

#[derive(Debug)]
enum Entry {
    Write { offset: u64, data: Box<[u8]> },
    SetLen(u64),
    Sync,
}

impl StateFile {
    /// A file whose content is not trusted yet.
    pub(super) fn held(file: Arc<dyn Medium>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self::new(file, State::Held(Journal { entries: Vec::new(), len })))
    }

    /// A file that this process has just made.
    pub(super) fn live(file: Arc<dyn Medium>) -> Self {
        Self::new(file, State::Live)
    }

    fn new(file: Arc<dyn Medium>, state: State) -> Self {
        Self(Arc::new(Inner {
            file,
            state: Mutex::new(state),
            max_bytes: AtomicU64::new(u64::MAX),
            unproven: AtomicBool::new(false),
        }))
    }

    /// The content proved right: carry out what was held back. After an error the file is closed for
    /// writing, and as whole as after a crash.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut state = self.state();
        let State::Held(journal) = std::mem::replace(&mut *state, State::Closed) else {
            return Err(closed());
        };
        for entry in &journal.entries {
            match entry {
                Entry::Write { offset, data } => self.0.file.write_all_at(data, *offset)?,
                Entry::SetLen(len) => self.resize(*len)?,
                Entry::Sync => self.sync()?,
            }
        }
        *state = State::Live;
        Ok(())
    }

    /// Let nothing more reach the file, whatever redb still wants to write when it is dropped.
    pub(super) fn give_up(&self) {
        *self.state() = State::Closed;
    }

    /// From now on the file may not grow past that: as if the disk were full.
    pub(super) fn set_max_bytes(&self, bytes: u64) {
        self.0.max_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.0.file.len().unwrap_or(0)
    }

    /// Whether a sync failed: what is proven is only what is written again.
    pub(super) fn is_unproven(&self) -> bool {
        self.0.unproven.load(Ordering::Relaxed)
    }

    /// Whether the file still has a name. Where that cannot be found out it counts as being there.
    pub(super) fn is_linked(&self) -> bool {
        self.0.file.is_linked().unwrap_or(true)
    }

    /// The file itself.
    pub(super) fn medium(&self) -> Arc<dyn Medium> {
        Arc::clone(&self.0.file)
    }

    /// A panic inside redb leaves this state whole: it changes in single steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room is not taken before it is written: redb doubles a small file, and a disk with less than that
    /// still has room for what is accepted already. A write that finds none ends the transaction, as a
    /// crash would.
    fn resize(&self, len: u64) -> io::Result<()> {
        if len > self.0.max_bytes.load(Ordering::Relaxed) && len > self.0.file.len()? {
            return Err(io::Error::from(Errno::ENOSPC));
        }
        self.0.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.file.sync().inspect_err(|_| self.0.unproven.store(true, Ordering::Relaxed))
    }
}

fn closed() -> io::Error {
    io::Error::other("the state file was closed after an error")
}

/// Fills `out` or says that the file ends before.
fn read_exact_at(file: &dyn Medium, offset: u64, out: &mut [u8]) -> io::Result<()> {
    if read_some_at(file, offset, out)? < out.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Reads what is there, and answers how much that was.
fn read_some_at(file: &dyn Medium, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read_at(&mut out[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl StorageBackend for StateFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.state() {
            State::Held(journal) => Ok(journal.len),
            State::Live | State::Closed => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.state() {
            State::Held(journal) => journal.read(&*self.0.file, offset, out),
            State::Live | State::Closed => read_exact_at(&*self.0.file, offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.state() {
            State::Held(journal) => {
                journal.entries.push(Entry::SetLen(len));
                journal.len = len;
                Ok(())
            }
            State::Live => self.resize(len),
            State::Closed => Err(closed()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.state() {
            State::Held(journal) => {
                journal.entries.push(Entry::Sync);
                Ok(())
            }
            State::Live => self.sync(),
            State::Closed => Err(closed()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.state() {
            State::Held(journal) => {
                journal.len = journal.len.max(offset + data.len() as u64);
                journal.entries.push(Entry::Write { offset, data: data.into() });
                Ok(())
            }
            State::Live => self.0.file.write_all_at(data, offset),
            State::Closed => Err(closed()),
        }
    }
}

impl Journal {
    /// What a reader would find had everything been carried out.
    fn read(&self, file: &dyn Medium, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let filled = read_some_at(file, offset, out)?;
        out[filled..].fill(0);
        for entry in &self.entries {
            entry.show(offset, out);
        }
        Ok(())
    }
}

impl Entry {
    /// Lays this entry over `out`, which begins at `offset`.
    fn show(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        match self {
            Self::Write { offset: at, data } => {
                let (from, to) = (offset.max(*at), end.min(at + data.len() as u64));
                if from < to {
                    let source = &data[(from - at) as usize..(to - at) as usize];
                    out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
                }
            }
            Self::SetLen(len) => {
                let from = offset.max(*len);
                if from < end {
                    out[(from - offset) as usize..].fill(0);
                }
            }
            Self::Sync => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn read(file: &StateFile, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0xff; length];
        file.read(offset, &mut out).unwrap();
        out
    }

    fn held(content: &[u8]) -> (tempfile::NamedTempFile, StateFile) {
        let temp = tempfile::NamedTempFile::new().unwrap();
        fs::write(temp.path(), content).unwrap();
        let file = File::options().read(true).write(true).open(temp.path()).unwrap();
        (temp, StateFile::held(Arc::new(file)).unwrap())
    }

    #[test]
    fn a_held_file_shows_its_writes_and_keeps_them_from_the_disk() {
        let (temp, file) = held(b"0123456789");
        file.write(3, b"abc").unwrap();
        file.set_len(8).unwrap();
        file.set_len(12).unwrap();
        file.write(11, b"z").unwrap();
        assert_eq!(file.len().unwrap(), 12);
        assert_eq!(read(&file, 0, 12), b"012abc67\0\0\0z");
        assert_eq!(read(&file, 4, 3), b"bc6");
        assert!(file.read(10, &mut [0; 3]).is_err(), "past the end");
        assert_eq!(fs::read(temp.path()).unwrap(), b"0123456789");

        file.release().unwrap();
        assert_eq!(fs::read(temp.path()).unwrap(), b"012abc67\0\0\0z");
        file.write(0, b"!").unwrap();
        assert_eq!(fs::read(temp.path()).unwrap()[0], b'!');
    }

    #[test]
    fn a_file_that_was_given_up_takes_nothing_more() {
        let (temp, file) = held(b"0123");
        file.write(0, b"x").unwrap();
        file.give_up();
        assert!(file.write(0, b"y").is_err() && file.set_len(9).is_err() && file.release().is_err());
        assert_eq!(fs::read(temp.path()).unwrap(), b"0123");
    }

    #[test]
    fn growth_past_the_bound_is_a_full_disk() {
        let temp = tempfile::tempfile().unwrap();
        let file = StateFile::live(Arc::new(temp));
        file.set_max_bytes(4096);
        file.set_len(4096).unwrap();
        let error = file.set_len(4097).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
