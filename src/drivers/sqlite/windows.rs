//! Large databases with a rollback journal, without keeping their writers waiting.

use super::super::DumpError;
use super::Sqlite;
use super::errors::explain;
use crate::drivers::Sink;
use crate::object::{KEY_LEN, Opener, Order, Sealer};
use crate::process::Cancel;
use crate::spool::{SpoolError, SpoolWriter};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Instant;
use zeroize::Zeroizing;

/// Copied at once out of the scratch file.
const COPY_LEN: usize = 256 * 1024;

/// How a stream in windows ended.
enum Windows {
    /// Every window saw the same database.
    Whole(u64),
    /// Somebody committed between two windows: what was streamed is of no use.
    Changed,
}

impl Sqlite {
    /// Streams the database in windows, again when it changed meanwhile; in the end from a sealed copy.
    pub(super) fn stream_windows(&self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        for attempt in 1..=self.manners.attempts {
            match self.try_windows(out, cancel)? {
                Windows::Whole(bytes) => return Ok(bytes),
                Windows::Changed => {
                    tracing::info!(
                        path = %self.path.display(),
                        attempt,
                        "the database was written to while it was read: starting over"
                    );
                    out.restart().map_err(DumpError::Output)?;
                }
            }
        }
        self.stream_copy(out, cancel)
    }

    fn try_windows(&self, out: &mut dyn Sink, cancel: &Cancel) -> Result<Windows, DumpError> {
        let failed = |error: rusqlite::Error| explain(&self.path, &error);
        let sql = "SELECT data FROM sqlite_dbpage WHERE pgno = ?1";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut next = 1;
        let mut first_seen = None;
        self.pages.take();
        loop {
            self.begin_read(cancel)?;
            let end = Instant::now() + self.manners.window;
            let version: i64 = self.ask("SELECT data_version FROM pragma_data_version")?;
            let extent = self.extent()?;
            if *first_seen.get_or_insert((version, extent)) != (version, extent) {
                self.end_read()?;
                return Ok(Windows::Changed);
            }
            while next <= extent.pages && Instant::now() < end {
                if cancel.is_cancelled() {
                    return Err(DumpError::Cancelled);
                }
                let mut rows = statement.query([next]).map_err(failed)?;
                let Some(row) = rows.next().map_err(failed)? else { break };
                self.write_page(row.get_ref(0).map_err(failed)?, next, extent, out)?;
                next += 1;
            }
            if next > extent.pages {
                self.count_rows();
            }
            self.end_read()?;
            if next > extent.pages {
                self.check_count(next - 1, extent)?;
                return Ok(Windows::Whole(extent.bytes()));
            }
            std::thread::sleep(self.manners.pause);
        }
    }

    /// Copies the database under one lock, as fast as the disk takes it, and streams the copy. Nobody but
    /// this call can read it: it has no name, and its key is nowhere else.
    fn stream_copy(&self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let Self { path, size_bytes, scratch, .. } = self;
        scratch.room.ensure(&scratch.dir, *size_bytes)?;
        tracing::warn!(
            path = %path.display(),
            size_bytes,
            "the database is written to all the time and has no WAL: its writers wait while a sealed copy is made; `PRAGMA journal_mode=WAL` would spare them"
        );
        let key = random_key().map_err(|cause| self.scratch_failed(cause))?;
        let file = tempfile::tempfile_in(&scratch.dir).map_err(|cause| self.scratch_failed(cause))?;
        let writer = SpoolWriter::over(file, scratch.dir.join("unnamed"), &scratch.room);
        let sealer = Sealer::new(writer, &key).map_err(|cause| self.scratch_failed(cause))?;
        let mut copy = Copy { sealer, failed: None };
        let start = Instant::now();
        let copied = self.stream_snapshot(&mut copy, cancel);
        if let Some(cause) = copy.failed.take() {
            return Err(self.scratch_failed(cause));
        }
        let bytes = copied?;
        tracing::info!(path = %path.display(), bytes, held_ms = start.elapsed().as_millis() as u64, "copied");
        let writer = copy.sealer.finish().map_err(|cause| self.scratch_failed(cause))?;
        self.stream_sealed(writer.into_file(), &key, out, cancel)?;
        Ok(bytes)
    }

    fn stream_sealed(
        &self,
        mut file: File,
        key: &[u8; KEY_LEN],
        out: &mut dyn Sink,
        cancel: &Cancel,
    ) -> Result<(), DumpError> {
        file.seek(SeekFrom::Start(0)).map_err(|cause| self.scratch_failed(cause))?;
        let mut opener = Opener::new(file, key, Order::Strict).map_err(|cause| self.scratch_failed(cause))?;
        while let Some(chunk) = opener.next_chunk().map_err(|cause| self.scratch_failed(cause.into()))? {
            for piece in chunk.chunks(COPY_LEN) {
                if cancel.is_cancelled() {
                    return Err(DumpError::Cancelled);
                }
                out.write_all(piece).map_err(DumpError::Output)?;
            }
        }
        Ok(())
    }

    fn scratch_failed(&self, mut cause: io::Error) -> DumpError {
        let path = self.scratch.dir.clone();
        DumpError::Scratch(SpoolError::within(&mut cause).unwrap_or(SpoolError::Io { path, cause }))
    }
}

fn random_key() -> io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new().fill(key.as_mut()).map_err(|_| io::Error::other("no randomness"))?;
    Ok(key)
}

/// A sink that remembers why it failed, so that a full disk is not taken for a stopped run.
struct Copy {
    sealer: Sealer<SpoolWriter>,
    failed: Option<io::Error>,
}

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sealer.write(bytes).map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::BrokenPipe.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Copy {
    fn restart(&mut self) -> io::Result<()> {
        Err(io::Error::other("a copy is made in one go"))
    }
}
