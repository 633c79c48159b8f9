//! Where a sealed stream becomes parts: buffers that go round, each opened again before it counts.

use super::super::http::Source;
use super::places::{Aside, Buffer, Held, Places};
use super::size::{Numbers, Plan, Sizes};
use crate::backup::error::RunError;
use crate::model::Dek;
use crate::object::{Opener, Order};
use crate::spool::Room;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// A part of the object. What it takes up is free once nobody has it any more.
#[derive(Debug)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Its bytes.
    pub source: Source,
    /// So many go up at once.
    pub parallel: usize,
    held: Option<Held>,
}

impl Part {
    /// A part that holds no buffer: a piece of the spool.
    pub fn of_spool(number: u32, source: Source, parallel: usize) -> Self {
        Self { number, source, parallel, held: None }
    }

    /// The dump may wait for what it takes up.
    pub fn is_waited_for(&self) -> bool {
        self.held.as_ref().is_some_and(Held::is_place)
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
    /// How many parts there may be.
    pub numbers: Numbers,
    /// What parts may hold of memory.
    pub memory_bytes: u64,
    /// Opens what was sealed.
    pub key: Dek,
    /// For parts that are too large for memory.
    pub dir: PathBuf,
    /// Of that directory.
    pub room: Room,
    /// After so long without a place, parts wait in that directory too; None where the dump waits instead.
    pub patience: Option<Duration>,
}

/// Takes a sealed stream and hands parts on.
#[derive(Debug)]
pub struct PartSink {
    options: SinkOptions,
    estimate: AtomicU64,
    items: mpsc::Sender<Item>,
    places: Arc<Places>,
    aside: Option<Mutex<Aside>>,
    begun: AtomicU64,
}

/// The dump looks so often whether anybody still takes its parts.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl PartSink {
    /// A sink, and where its parts come out.
    pub fn new(options: SinkOptions) -> (Self, mpsc::Receiver<Item>) {
        let (items, out) = mpsc::channel(1);
        let aside = |patience| Mutex::new(Aside::new(&options.dir, &options.room, patience));
        let aside = options.patience.map(aside);
        let (estimate, begun) = (AtomicU64::new(0), AtomicU64::new(0));
        (Self { options, estimate, items, places: Arc::default(), aside, begun }, out)
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
        let SinkOptions { offered_bytes, numbers, memory_bytes, .. } = &self.options;
        let estimate_bytes = self.estimate.load(Ordering::SeqCst);
        let plan = Plan::new(*offered_bytes, numbers, estimate_bytes, *memory_bytes);
        if self.begun.fetch_add(1, Ordering::SeqCst) == 0 {
            let Sizes { part_bytes, parallel, in_memory, .. } = plan.of(1);
            tracing::info!(part_bytes, parallel, in_memory, "uploading in parts");
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
            sizes: plan.of(1),
            plan,
            number: 1,
            filling: None,
            to_check: Some(to_check),
            checker: Some(checker),
        })
    }

    /// Waits for a place, and makes a buffer for it; where none comes free in time, on the disk.
    fn buffer(&self, sizes: &Sizes) -> io::Result<Buffer> {
        let mut aside = self.aside.as_ref().map(|aside| aside.lock().unwrap_or_else(PoisonError::into_inner));
        let mut patience = aside.as_ref().map_or(LOOK_AGAIN, |aside| aside.patience());
        loop {
            let usable = || aside.as_ref().is_none_or(|aside| aside.leaves_room(sizes));
            if let Some(place) = self.places.take(sizes, patience, usable) {
                aside.iter_mut().for_each(|aside| aside.close());
                return Buffer::at(place, sizes, &self.options.dir, &self.options.room);
            }
            if self.items.is_closed() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if let Some(buffer) = aside.as_mut().and_then(|aside| aside.begin(sizes.part_bytes)) {
                return Ok(buffer);
            }
            patience = self.options.patience.unwrap_or(LOOK_AGAIN);
        }
    }
}

fn closed() -> RunError {
    RunError::Internal("the upload ended before the dump".into())
}

/// Writes one object as parts.
pub struct PartWriter<'a> {
    sink: &'a PartSink,
    plan: Plan,
    /// Of the part that is filled.
    sizes: Sizes,
    number: u32,
    filling: Option<Buffer>,
    to_check: Option<SyncSender<Arc<Part>>>,
    checker: Option<JoinHandle<io::Result<()>>>,
}

impl PartWriter<'_> {
    fn hand_over(&mut self) -> io::Result<()> {
        let Some(buffer) = self.filling.take() else { return Ok(()) };
        let (source, held) = buffer.into_parts();
        let parallel = self.sizes.parallel;
        let part = Arc::new(Part { number: self.number, source, parallel, held: Some(held) });
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
            None => {
                self.sizes = self.plan.of(self.number);
                self.sink.buffer(&self.sizes)?
            }
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
            numbers: Numbers::new(10),
            memory_bytes: 24 << 20,
            key: key.clone(),
            dir: std::env::temp_dir(),
            room: Room::default(),
            patience: None,
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
