//! Where a sealed stream becomes parts: buffers that go round, each opened again before it counts.

use super::super::http::Source;
use super::size::Sizes;
use crate::backup::error::RunError;
use crate::model::Dek;
use crate::object::{Opener, Order};
use crate::spool::{Room, SpoolError, SpoolWriter};
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// A part of the object. Its buffer's place is free once nobody has it any more.
#[derive(Debug)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Its bytes.
    pub source: Source,
    place: Option<SyncSender<()>>,
}

impl Part {
    /// A part that holds no buffer: a piece of the spool.
    pub fn of_spool(number: u32, source: Source) -> Self {
        Self { number, source, place: None }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            // As many places as buffers: there is room.
            let _ = place.try_send(());
        }
    }
}

/// What the sink tells the uploader.
#[derive(Debug)]
pub enum Item {
    /// The next part.
    Part(Arc<Part>),
    /// Everything so far is void: the dump begins again, and with it the numbers.
    Restart,
    /// The object is whole, and every frame of it was opened again.
    End,
}

/// What a sink is made of.
#[derive(Debug)]
pub struct SinkOptions {
    /// What the server wishes; 0 leaves it to us.
    pub offered_bytes: u64,
    /// Signed URLs that there are.
    pub url_count: usize,
    /// Opens what was sealed.
    pub key: Dek,
    /// For parts that are too large for memory.
    pub dir: PathBuf,
    /// Of that directory.
    pub room: Room,
}

/// Takes a sealed stream and hands parts on.
#[derive(Debug)]
pub struct PartSink {
    options: SinkOptions,
    estimate: AtomicU64,
    items: mpsc::Sender<Item>,
    places: SyncSender<()>,
    free: Mutex<Receiver<()>>,
    begun: AtomicU64,
}

/// More than any plan has buffers.
const MAX_PLACES: usize = 16;

impl PartSink {
    /// A sink, and where its parts come out.
    pub fn new(options: SinkOptions) -> (Self, mpsc::Receiver<Item>) {
        let (items, out) = mpsc::channel(1);
        let (places, free) = sync_channel(MAX_PLACES);
        let free = Mutex::new(free);
        let (estimate, begun) = (AtomicU64::new(0), AtomicU64::new(0));
        (Self { options, estimate, items, places, free, begun }, out)
    }

    /// What the engine expects, in bytes before compression; told before the first byte.
    pub fn expect(&self, bytes: u64) {
        self.estimate.store(bytes, Ordering::SeqCst);
    }

    /// A writer at the beginning of the object. Only one at a time.
    ///
    /// # Errors
    /// Where the uploader has ended, or no thread can be had.
    pub fn begin(&self) -> Result<PartWriter<'_>, RunError> {
        let sizes = Sizes::new(
            self.options.offered_bytes,
            self.options.url_count,
            self.estimate.load(Ordering::SeqCst),
        );
        if self.begun.fetch_add(1, Ordering::SeqCst) == 0 {
            for _ in 0..sizes.buffers().min(MAX_PLACES) {
                let _ = self.places.try_send(());
            }
            tracing::info!(
                part_bytes = sizes.part_bytes,
                parallel = sizes.parallel,
                in_memory = sizes.in_memory,
                "uploading in parts"
            );
        } else {
            self.items.blocking_send(Item::Restart).map_err(|_| closed())?;
        }
        let (to_check, checked) = sync_channel(1);
        let key = self.options.key.clone();
        let checker = std::thread::Builder::new()
            .name("run-verify".into())
            .spawn(move || open_all(checked, &key))
            .map_err(|error| RunError::Internal(format!("no thread could be started: {error}")))?;
        Ok(PartWriter {
            sink: self,
            sizes,
            number: 1,
            filling: None,
            to_check: Some(to_check),
            checker: Some(checker),
        })
    }

    /// Waits for a place, and makes a buffer for it.
    fn buffer(&self, sizes: &Sizes) -> io::Result<Buffer> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let SinkOptions { dir, room, .. } = &self.options;
        let made = || {
            if sizes.in_memory {
                return Ok(Buffer::Memory(Vec::with_capacity(
                    usize::try_from(sizes.part_bytes).unwrap_or(0),
                )));
            }
            room.ensure(dir, sizes.part_bytes).map_err(io::Error::other)?;
            std::fs::DirBuilder::new().recursive(true).create(dir)?;
            let file = tempfile::tempfile_in(dir)
                .map_err(|cause| io::Error::other(SpoolError::Io { path: dir.clone(), cause }))?;
            Ok(Buffer::File { writer: SpoolWriter::over(file, dir.join("part"), room), len: 0 })
        };
        made()
    }
}

fn closed() -> RunError {
    RunError::Internal("the upload ended before the dump".into())
}

/// A part that is filled.
enum Buffer {
    Memory(Vec<u8>),
    File { writer: SpoolWriter, len: u64 },
}

impl Buffer {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(held) => held.extend_from_slice(bytes),
            Self::File { writer, len } => {
                writer.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
        }
        Ok(())
    }

    fn into_source(self) -> Source {
        match self {
            Self::Memory(bytes) => Source::Memory(Bytes::from(bytes)),
            Self::File { writer, len } => Source::File { file: Arc::new(writer.into_file()), offset: 0, len },
        }
    }
}

/// Writes one object as parts.
pub struct PartWriter<'a> {
    sink: &'a PartSink,
    sizes: Sizes,
    number: u32,
    filling: Option<Buffer>,
    to_check: Option<SyncSender<Arc<Part>>>,
    checker: Option<JoinHandle<io::Result<()>>>,
}

impl PartWriter<'_> {
    fn hand_over(&mut self) -> io::Result<()> {
        let Some(buffer) = self.filling.take() else { return Ok(()) };
        let place = Some(self.sink.places.clone());
        let part = Arc::new(Part { number: self.number, source: buffer.into_source(), place });
        self.number += 1;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        // First opened, then sent: what does not open must not look like a backup to anybody.
        if let Some(to_check) = &self.to_check
            && to_check.send(Arc::clone(&part)).is_err()
        {
            return Err(self.verdict().err().unwrap_or_else(broken));
        }
        self.sink.items.blocking_send(Item::Part(part)).map_err(|_| broken())
    }

    /// What became of the check, once no part follows.
    fn verdict(&mut self) -> io::Result<()> {
        self.to_check = None;
        let died = || io::Error::other("its verifying thread ended without a result");
        self.checker.take().map_or(Ok(()), |thread| thread.join().map_err(|_| died())?)
    }

    /// The object is whole: its last part goes out, and the uploader hears so once all of it was opened again.
    ///
    /// # Errors
    /// Where a part cannot be handed on, or does not open again.
    pub fn end(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.verdict()?;
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sink.items.blocking_send(Item::End).map_err(broken)
    }
}

impl Write for PartWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.sink.buffer(&self.sizes)?,
        };
        let room = self.sizes.part_bytes.saturating_sub(filling.len());
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        filling.write(bytes.get(..fits).unwrap_or_default())?;
        let full = filling.len() >= self.sizes.part_bytes;
        self.filling = Some(filling);
        if full {
            self.hand_over()?;
        }
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens every frame of the parts, in order.
fn open_all(parts: Receiver<Arc<Part>>, key: &Dek) -> io::Result<()> {
    let failed = |cause: io::Error| {
        io::Error::other(format!(
            "the sealed object does not open again: {cause}; check the machine's memory"
        ))
    };
    let plain = key.plain().ok_or_else(|| io::Error::other("the key is wrapped"))?;
    let mut opener = Opener::new(PartReader { parts, now: None, at: 0 }, plain, Order::Strict)?;
    while opener.next_chunk().map_err(|error| failed(error.into()))?.is_some() {}
    Ok(())
}

/// Parts as one stream.
struct PartReader {
    parts: Receiver<Arc<Part>>,
    now: Option<Arc<Part>>,
    at: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(part) = &self.now {
                let piece = part.source.read(self.at, buffer.len())?;
                if !piece.is_empty() {
                    buffer.get_mut(..piece.len()).unwrap_or_default().copy_from_slice(&piece);
                    self.at += piece.len() as u64;
                    return Ok(piece.len());
                }
                self.now = None;
            }
            match self.parts.recv() {
                Ok(part) => (self.now, self.at) = (Some(part), 0),
                Err(_) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::outlet::Outlet;
    use crate::backup::pack::{Packing, pack};
    use crate::backup::pipe::pipe;
    use crate::model::Compression;
    use crate::process::Cancel;

    #[test]
    fn parts_are_planned_once_the_engine_has_told_what_it_expects() {
        let key = Dek::from(vec![9; 32]);
        let options = SinkOptions {
            offered_bytes: 1024,
            url_count: 10,
            key: key.clone(),
            dir: std::env::temp_dir(),
            room: Room::default(),
        };
        let (sink, mut items) = PartSink::new(options);
        let sink = Arc::new(sink);
        let outlet = Outlet::Parts(Arc::clone(&sink));
        let (mut writer, reader) = pipe(Cancel::new());
        let packing = Packing {
            compression: Compression::None,
            zstd_level: 1,
            gzip_level: 1,
            threads: 1,
            key,
            room: Room::default(),
        };
        let packing_of = {
            let outlet = outlet.clone();
            std::thread::spawn(move || pack(reader, &outlet, &packing))
        };
        // As the reading thread does it: first the question, which takes its time, then the dump.
        for _ in 0..100 {
            std::thread::yield_now();
            assert_eq!(sink.begun.load(Ordering::SeqCst), 0, "begun before anything was known");
        }
        outlet.expect(20 << 20);
        let sending = std::thread::spawn(move || {
            let mut sizes = Vec::new();
            while let Some(item) = items.blocking_recv() {
                if let Item::Part(part) = item {
                    sizes.push(part.source.len());
                }
            }
            sizes
        });
        writer.write_all(&vec![1; 5 << 20]).unwrap();
        writer.finish().unwrap();
        packing_of.join().unwrap().unwrap().unwrap();
        drop((outlet, sink));
        // 10 URLs for 21 MiB: parts of 3 MiB, not of the 1 KiB that were offered.
        assert_eq!(sending.join().unwrap()[0], 3 << 20);
    }
}
