//! Dumps that begin again, and stores that take nothing.

use super::super::http::Source;
use super::places::PATIENCE;
use super::sink::{Item, Part};
use super::{Numbers, PartSink, SinkOptions};
use crate::backup::outlet::Outlet;
use crate::backup::pack::{Packing, pack};
use crate::backup::pipe::pipe;
use crate::drivers::Sink;
use crate::model::{Compression, Space};
use crate::process::Cancel;
use crate::spool::Room;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::mpsc;

const PART: u64 = 64 * 1024;
/// One is filled, two go up.
const PLACES: usize = 3;
const SOON: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn options(dir: &Path, room: Room, patience: Option<Duration>) -> SinkOptions {
    SinkOptions {
        offered_bytes: PART,
        numbers: Numbers::new(0),
        memory_bytes: PART * PLACES as u64,
        key: vec![9; 32].into(),
        dir: dir.into(),
        room,
        patience,
    }
}

fn room(free: &Arc<AtomicU64>) -> Room {
    let free = Arc::clone(free);
    let free = move |_: &Path| Ok(Space { free: free.load(Ordering::SeqCst), total: 1 << 40 });
    Room { min_free_bytes: 1 << 20, free: Arc::new(free) }
}

/// A dump of so many bytes, begun again so often. What comes out hears when all of it was taken.
fn dump(options: SinkOptions, bytes: usize, restarts: usize) -> (mpsc::Receiver<Item>, Receiver<()>) {
    let packing = Packing {
        compression: Compression::None,
        zstd_level: 1,
        gzip_level: 1,
        threads: 1,
        key: options.key.clone(),
        room: Room::default(),
    };
    let (sink, items) = PartSink::new(options);
    let (mut writer, reader) = pipe(Cancel::new());
    std::thread::spawn(move || pack(reader, &Outlet::Parts(Arc::new(sink)), &packing));
    let (told, taken) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // A part and a half: what was begun is in a buffer of its own.
        let half = vec![1; (1 << 20) + PART as usize * 3 / 2];
        for _ in 0..restarts {
            writer.write_all(&half).unwrap();
            writer.flush().unwrap();
            writer.restart().unwrap();
        }
        writer.write_all(&vec![2; bytes]).unwrap();
        writer.finish().unwrap();
        let _ = told.send(());
    });
    (items, taken)
}

/// Parts up to the end of the object.
fn parts_until_end(items: &mut mpsc::Receiver<Item>) -> Vec<Arc<Part>> {
    let mut parts = Vec::new();
    loop {
        match items.blocking_recv().expect("an end comes") {
            Item::Part(part) => parts.push(part),
            Item::Restart => parts.clear(),
            Item::End => return parts,
        }
    }
}

#[test]
fn a_dump_may_begin_again_more_often_than_there_are_places() {
    let dir = tempfile::tempdir().unwrap();
    let (mut items, taken) = dump(options(dir.path(), Room::default(), None), 100, 5 * PLACES);
    let sending = std::thread::spawn(move || parts_until_end_of_each(&mut items));
    taken.recv_timeout(SOON).expect("no place is lost with a part that was begun");
    assert_eq!(sending.join().unwrap(), 1);
}

/// As the uploader does it: what it has goes at once. How many parts the last object had.
fn parts_until_end_of_each(items: &mut mpsc::Receiver<Item>) -> usize {
    let mut count = 0;
    loop {
        match items.blocking_recv().expect("an end comes") {
            Item::Part(_) => count += 1,
            Item::Restart => count = 0,
            Item::End => return count,
        }
    }
}

#[test]
fn a_dump_goes_on_where_the_store_takes_nothing_and_the_disk_holds_what_memory_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(20);
    let (mut items, taken) = dump(options(dir.path(), Room::default(), Some(patience)), 5 << 20, 0);
    // Nothing of it is let go: the store is away.
    let (give, have) = std::sync::mpsc::channel();
    std::thread::spawn(move || give.send(parts_until_end(&mut items)));
    taken.recv_timeout(SOON).expect("the dump does not wait for the store");
    let parts = have.recv_timeout(SOON).unwrap();
    let in_memory = parts.iter().filter(|part| matches!(part.source, Source::Memory(_))).count();
    assert_eq!((in_memory, parts.len() > 70), (PLACES, true), "{}", parts.len());
    assert!(parts.iter().all(|part| part.is_waited_for() == matches!(part.source, Source::Memory(_))));
    let files: Vec<_> = parts
        .iter()
        .filter_map(|part| match &part.source {
            Source::File { file, .. } => Some(Arc::clone(file)),
            Source::Memory(_) => None,
        })
        .collect();
    assert!(files.iter().all(|file| Arc::ptr_eq(file, &files[0])), "one descriptor");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "it has no name");
    let bytes = || files[0].metadata().unwrap().blocks() * 512;
    assert!(bytes() >= PART * (parts.len() - PLACES) as u64);
    // What the store has is off the disk, one by one.
    let left = parts.len() / 2;
    let before = bytes();
    let kept = parts.into_iter().take(left).collect::<Vec<_>>();
    assert!(bytes() <= before * 6 / 10, "{} of {before} bytes are left", bytes());
    drop(kept);
    assert_eq!(bytes(), 0);
}

#[test]
fn where_the_disk_has_no_room_or_may_not_be_used_the_dump_waits() {
    for patience in [Some(Duration::from_millis(5)), None] {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1 << 20));
        let (mut items, taken) = dump(options(dir.path(), room(&free), patience), 5 << 20, 0);
        let mut held = Vec::new();
        while held.len() < PLACES {
            match items.blocking_recv().unwrap() {
                Item::Part(part) => held.push(part),
                Item::Restart | Item::End => unreachable!(),
            }
        }
        assert!(taken.recv_timeout(Duration::from_millis(100)).is_err(), "the dump waits");
        assert!(items.try_recv().is_err());
        drop(held);
        let sending = std::thread::spawn(move || parts_until_end_of_each(&mut items));
        taken.recv_timeout(SOON).expect("it goes on with the store");
        assert!(sending.join().unwrap() > 70);
    }
}

#[test]
fn a_part_that_needs_a_file_waits_for_room_that_comes_back_with_what_waits_on_the_disk() {
    for comes_back in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        // Room for a part as the first six are, and not for the seventh, which is too large for memory.
        let free = Arc::new(AtomicU64::new((1 << 20) + PART * 3 / 2));
        let numbers = Numbers::new(8);
        let options = SinkOptions { numbers, ..options(dir.path(), room(&free), Some(SHORT)) };
        let (mut items, _taken) = dump(options, PART as usize * 21 / 2, 0);
        let mut held = Vec::new();
        while held.len() < 6 {
            match items.blocking_recv().unwrap() {
                Item::Part(part) => held.push(part),
                Item::Restart | Item::End => unreachable!(),
            }
        }
        let waiting = held.split_off(PLACES);
        assert!(waiting.iter().all(|part| !part.is_waited_for()), "on the disk");
        // The store is back: places come free, and with those of memory no room on the disk.
        drop(held);
        // Long enough to look again some times.
        std::thread::sleep(10 * SHORT);
        assert_eq!(items.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
        if comes_back {
            free.store(1 << 30, Ordering::SeqCst);
            let rest = parts_until_end(&mut items);
            assert_eq!(rest[0].source.len(), 2 * PART);
        } else {
            drop(waiting);
            assert!(items.blocking_recv().is_none(), "nothing more will make room");
        }
    }
}

#[test]
fn a_server_does_not_hang_up_before_the_disk_is_used() {
    assert!(PATIENCE <= Duration::from_secs(20), "net_write_timeout and repl-timeout are 60 s");
}
