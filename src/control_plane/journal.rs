//! The journal on disk: a snapshot and the lines since, written by a thread of its own.
//!
//! Why not a database: the state of one site fits into memory, is read only at start, and must be safe
//! before it is anything else. So: every change is one line of JSON that a person can read, appended to
//! `journal-N.jsonl` and synced before whoever caused it hears yes; what waits is synced together. When the
//! journal has grown, the whole state is written to `snapshot.json` (temporary name, sync, rename), naming
//! generation N+1, and the next lines go to `journal-(N+1).jsonl`. A crash between any two of these steps
//! leaves a snapshot and the journal that belongs to it.
//!
//! When a write fails (a full disk), the tail is cut off again and nothing is accepted until a snapshot of
//! the whole state could be written: memory and disk cannot drift apart.

use super::files;
use super::state::{Event, State};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A snapshot is due past this size: reading that many lines takes a fraction of a second at start.
const SNAPSHOT_AFTER_BYTES: u64 = 16 * 1024 * 1024;

/// What the writer is asked.
pub enum Job {
    /// Lines to append and sync; the answer comes after that.
    Append(Vec<u8>, oneshot::Sender<io::Result<()>>),
    /// The whole state, every line before included.
    Snapshot(Box<State>),
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    generation: u64,
    state: State,
}

/// The writer's end: where jobs go, and whether it wants the whole state.
pub struct Journal {
    /// In the order of the changes.
    pub jobs: Sender<Job>,
    /// Set when the journal has grown or a write has failed; cleared by who sends the snapshot.
    pub wants_snapshot: Arc<AtomicBool>,
    /// Ends when `jobs` is dropped.
    pub thread: JoinHandle<()>,
}

/// Reads what a directory holds and starts the writer.
///
/// # Errors
/// Where it cannot be read or written, or a line in the middle is damaged: nothing is overwritten then.
pub fn open(dir: &Path) -> io::Result<(State, Journal)> {
    open_with(dir, SNAPSHOT_AFTER_BYTES)
}

fn open_with(dir: &Path, snapshot_after: u64) -> io::Result<(State, Journal)> {
    files::make_private_dir(dir)?;
    let (generation, mut state) = match fs::read(dir.join("snapshot.json")) {
        Ok(bytes) => {
            let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("snapshot.json is damaged: {error}"))
            })?;
            (snapshot.generation, snapshot.state)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0, State::default()),
        Err(error) => return Err(error),
    };
    if let Some(before) = generation.checked_sub(1) {
        // Left where a crash came between the snapshot and the end of its predecessor.
        let _ = fs::remove_file(path_of(dir, before));
    }
    let (file, length) = open_journal(dir, generation)?;
    let length = replay(&file, length, &mut state)?;
    let wants_snapshot = Arc::new(AtomicBool::new(length > snapshot_after));
    let mut writer = Writer {
        dir: dir.to_owned(),
        generation,
        file,
        length,
        snapshot_after,
        broken: false,
        wants_snapshot: Arc::clone(&wants_snapshot),
    };
    let (jobs, received) = channel();
    let thread =
        std::thread::Builder::new().name("plane-journal".into()).spawn(move || writer.run(&received))?;
    Ok((state, Journal { jobs, wants_snapshot, thread }))
}

fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("journal-{generation}.jsonl"))
}

fn open_journal(dir: &Path, generation: u64) -> io::Result<(File, u64)> {
    let path = path_of(dir, generation);
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(files::FILE_MODE).open(&path)?;
    files::sync_parent(&path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Applies every whole line; cuts off what a crash left of the last one. Answers the good length.
fn replay(mut file: &File, length: u64, state: &mut State) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut good = 0;
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            break;
        }
        let event: Event = serde_json::from_slice(&line).map_err(|error| {
            let what = format!("line {number} of the journal is damaged: {error}");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        state.apply(event);
        good += read as u64;
    }
    if good < length {
        tracing::warn!(bytes = length - good, "cut an unfinished line off the journal's end");
        file.set_len(good)?;
    }
    file.seek(SeekFrom::Start(good))?;
    Ok(good)
}

struct Writer {
    dir: PathBuf,
    generation: u64,
    file: File,
    /// Of the good part of the file.
    length: u64,
    snapshot_after: u64,
    /// A write failed: only a snapshot helps.
    broken: bool,
    wants_snapshot: Arc<AtomicBool>,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut lines = Vec::new();
            let mut waiting = Vec::new();
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Append(more, answer) => {
                        lines.extend_from_slice(&more);
                        waiting.push(answer);
                    }
                    Job::Snapshot(state) => {
                        self.settle(&mut lines, &mut waiting);
                        self.take_snapshot(*state);
                    }
                }
            }
            self.settle(&mut lines, &mut waiting);
        }
    }

    /// Writes and syncs what has come together, and answers everybody who waits for it.
    fn settle(&mut self, lines: &mut Vec<u8>, waiting: &mut Vec<oneshot::Sender<io::Result<()>>>) {
        if waiting.is_empty() {
            return;
        }
        let result = self.append(lines);
        for answer in waiting.drain(..) {
            // A caller that has gone away does not need the answer.
            let _ = answer.send(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        lines.clear();
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the journal could not be written before; a snapshot is due"));
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                if self.length > self.snapshot_after {
                    self.wants_snapshot.store(true, Ordering::Release);
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, dir = %self.dir.display(), "the journal cannot be written: free some space, agents keep their messages meanwhile");
                self.broken = true;
                self.wants_snapshot.store(true, Ordering::Release);
                self.cut();
                Err(error)
            }
        }
    }

    /// Takes a half written tail away. Where even that fails, `replay` does it, or the next snapshot.
    fn cut(&mut self) {
        let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
        if let Err(error) = cut {
            tracing::warn!(%error, "the journal's half written tail stays for now");
        }
    }

    fn take_snapshot(&mut self, state: State) {
        match self.write_snapshot(state) {
            Ok(()) => self.broken = false,
            Err(error) => {
                tracing::warn!(%error, "the snapshot of the state could not be written");
                self.wants_snapshot.store(true, Ordering::Release);
            }
        }
    }

    fn write_snapshot(&mut self, state: State) -> io::Result<()> {
        let next = self.generation + 1;
        // A journal of that name can only be left from a snapshot that failed half-way.
        match fs::remove_file(path_of(&self.dir, next)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (file, length) = open_journal(&self.dir, next)?;
        let bytes = serde_json::to_vec(&Snapshot { generation: next, state })?;
        files::write_private(&self.dir.join("snapshot.json"), &bytes)?;
        let old = path_of(&self.dir, self.generation);
        (self.generation, self.file, self.length) = (next, file, length);
        if let Err(error) = fs::remove_file(&old) {
            tracing::warn!(%error, path = %old.display(), "an old journal stays");
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
