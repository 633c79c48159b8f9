//! From the database to the sealed spool: one thread reads, one packs, zstd's workers compress.

use super::dumped::{Dumped, Packed};
use super::error::RunError;
use super::outlet::Outlet;
use super::pack::{Packing, pack};
use super::pipe::{PipeWriter, pipe};
use super::progress::Progress;
use super::rate::Rate;
use super::secrets::hide_password;
use super::thread::on_thread;
use crate::drivers::{self, DumpError, Host, Scratch, Sink};
use crate::model::{Compression, Manifest, TargetSpec};
use crate::process::Cancel;
use std::io::{self, Write};
use std::time::Duration;
use tokio::sync::oneshot;

/// Stopped threads that are still in a system call (a dead network file system) are left to themselves after
/// this: a run that is cancelled must end within 2 s.
const STOP_GRACE: Duration = Duration::from_millis(1_000);

/// What the reading thread knows of a dump that went well.
struct Read {
    engine_version: String,
    bytes: u64,
    manifest: Option<Manifest>,
}

/// What is dumped, and how its host is treated.
#[derive(Clone, Debug)]
pub struct Source {
    /// The database.
    pub target: TargetSpec,
    /// Its tools.
    pub host: Host,
    /// For what does not fit into memory.
    pub scratch: Scratch,
    /// Of reading.
    pub rate: Rate,
}

/// Reads the source into the outlet.
///
/// # Errors
/// [`RunError`]
pub async fn dump(
    source: Source,
    packing: Packing,
    outlet: Outlet,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Dumped, RunError> {
    let (writer, reader) = pipe(cancel.clone());
    let reading = Reading {
        source,
        compression: packing.compression,
        outlet: outlet.clone(),
        progress: progress.clone(),
        cancel: cancel.clone(),
    };
    let read = on_thread("run-read", move || reading.read(writer))?;
    let packed = on_thread("run-pack", move || pack(reader, &outlet, &packing))?;
    let both = async { (read.await, packed.await) };
    tokio::pin!(both);
    let (read, packed) = tokio::select! {
        ended = &mut both => ended,
        () = cancel.cancelled() => match tokio::time::timeout(STOP_GRACE, both).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!("a stopped run still waits for its disk: its thread is left behind");
                return Err(RunError::Cancelled);
            }
        },
    };
    if cancel.is_cancelled() {
        return Err(RunError::Cancelled);
    }
    judge(read, packed)
}

type Ended<T> = Result<T, oneshot::error::RecvError>;

/// Which of the two threads knows the reason. Where one of them ended without a word, it panicked.
fn judge(
    read: Ended<Result<Read, DumpError>>,
    packed: Ended<Result<Option<Packed>, RunError>>,
) -> Result<Dumped, RunError> {
    let died = |what: &str| RunError::Internal(format!("its {what} thread ended without a result"));
    match (read, packed) {
        (_, Ok(Err(error))) => Err(error),
        (_, Err(_)) => Err(died("packing")),
        (Ok(Err(error)), _) => Err(error.into()),
        (Err(_), _) => Err(died("reading")),
        (Ok(Ok(Read { engine_version, bytes, manifest })), Ok(Ok(Some(packed)))) => {
            Ok(Dumped { packed, engine_version, plain_bytes: bytes, manifest })
        }
        (Ok(Ok(_)), Ok(Ok(None))) => Err(RunError::Internal("the dump's end got lost".into())),
    }
}

struct Reading {
    source: Source,
    compression: Compression,
    outlet: Outlet,
    progress: Progress,
    cancel: Cancel,
}

impl Reading {
    fn read(self, writer: PipeWriter) -> Result<Read, DumpError> {
        let Self { source, compression, outlet, progress, cancel } = self;
        let Source { target, host, scratch, rate } = source;
        hide_password(&target, &progress);
        let mut driver = drivers::open(&target, &host, scratch.clone(), &cancel)?;
        let estimate = driver.estimate(&cancel)?;
        let hope = match compression {
            Compression::Zstd | Compression::Gzip => estimate / drivers::HOPEFUL_RATIO,
            Compression::None => driver.least_bytes(estimate),
        };
        if outlet.fills_disk() {
            scratch.room.ensure(&scratch.dir, hope)?;
        }
        outlet.expect(estimate);
        let mut out = Watched {
            inner: writer,
            magic: driver.magic(),
            matched: 0,
            wrong: false,
            bytes: 0,
            estimate,
            progress,
            rate,
            cancel: cancel.clone(),
        };
        let dumped = driver.dump(&mut out, &cancel);
        if out.wrong || (dumped.is_ok() && out.matched < out.magic.len()) {
            let engine = driver.engine_version();
            return Err(DumpError::Magic { target: target.id.to_string(), engine });
        }
        let bytes = dumped?;
        out.inner.finish().map_err(DumpError::Output)?;
        for remark in driver.remarks() {
            out.progress.warn(&remark, Vec::new());
        }
        let manifest = driver.tally().and_then(|tally| tally.manifest());
        Ok(Read { engine_version: driver.engine_version(), bytes, manifest })
    }
}

/// Checks the first bytes and counts the others.
struct Watched {
    inner: PipeWriter,
    magic: &'static [u8],
    matched: usize,
    wrong: bool,
    bytes: u64,
    estimate: u64,
    progress: Progress,
    rate: Rate,
    cancel: Cancel,
}

impl Watched {
    fn check_magic(&mut self, bytes: &[u8]) -> io::Result<()> {
        let expected = self.magic.get(self.matched..).unwrap_or_default();
        let compared = expected.len().min(bytes.len());
        if expected.get(..compared) != bytes.get(..compared) {
            self.wrong = true;
            return Err(io::Error::other("the magic bytes are missing"));
        }
        self.matched += compared;
        Ok(())
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.matched < self.magic.len() {
            self.check_magic(bytes)?;
        }
        self.rate.wait(bytes.len() as u64, &self.cancel);
        // All of it, so that what was compared is what went on.
        self.inner.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.progress.dumping(self.bytes, self.estimate);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Sink for Watched {
    fn restart(&mut self) -> io::Result<()> {
        self.matched = 0;
        self.bytes = 0;
        self.inner.restart()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::pipe::Item;

    fn watched(magic: &'static [u8]) -> (Watched, super::super::pipe::PipeReader) {
        let (inner, reader) = pipe(Cancel::new());
        let (progress, rate, cancel) = (Progress::new(), Rate::default(), Cancel::new());
        let watched = Watched {
            inner,
            magic,
            matched: 0,
            wrong: false,
            bytes: 0,
            estimate: 10,
            progress,
            rate,
            cancel,
        };
        (watched, reader)
    }

    #[test]
    fn the_magic_is_found_in_pieces_and_again_after_a_restart() {
        let (mut out, reader) = watched(b"MAGIC");
        for piece in ["MA", "GI", "C rest"] {
            out.write_all(piece.as_bytes()).unwrap();
        }
        out.restart().unwrap();
        assert!(matches!(reader.next(), Some(Item::Restart)));
        assert!(out.write_all(b"MAGNET").is_err());
        assert!(out.wrong);
    }

    #[test]
    fn the_thread_that_knows_the_reason_is_believed() {
        let whole = || Ok(Ok(Read { engine_version: "SQLite 3".into(), bytes: 5, manifest: None }));
        let packed = || Ok(Ok(Some(Packed { size_bytes: 1, sha256: [0; 32] })));
        assert!(judge(whole(), packed()).is_ok());
        let full = || Ok(Err(RunError::Internal("disk full".into())));
        let closed = || Ok(Err(DumpError::Output(io::ErrorKind::BrokenPipe.into())));
        assert!(judge(closed(), full()).unwrap_err().to_string().contains("disk full"));
        let damaged = Ok(Err(DumpError::UnknownEngine { target: "t9".into() }));
        assert!(judge(damaged, Ok(Ok(None))).unwrap_err().to_string().contains("t9"));
        let (gone, panicked) = oneshot::channel::<Result<Option<Packed>, RunError>>();
        drop(gone);
        let panicked = panicked.blocking_recv();
        assert!(judge(whole(), panicked).unwrap_err().to_string().contains("packing thread"));
        assert!(judge(whole(), Ok(Ok(None))).is_err(), "half an object is none");
    }
}
