//! A disk that keeps for sure only what was synced. It records every operation; a power cut after any of
//! them leaves what was synced, and of the rest any part: writes in any subset, torn at sectors, lengths
//! that did not arrive, names of which only the first few were recorded.

use crate::store::disk::Access;
use crate::store::disk::{Disk, Medium};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// SplitMix64: small, and the same everywhere for a seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Write {
        file: usize,
        offset: u64,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    /// It answered an error, and whatever waited is never written: the kernel counts it as clean.
    FailedSync {
        file: usize,
    },
    Create {
        name: PathBuf,
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
}

impl Op {
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::SyncDir { .. } | Self::FailedSync { .. })
    }
}

/// What is on the platter.
#[derive(Debug, Clone, Default)]
pub struct Image {
    files: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
}

/// What programs see, and what they did.
#[derive(Debug, Default)]
struct World {
    image: Image,
    ops: Vec<Op>,
    syncs: usize,
    /// The sync that fails, counted from 0.
    fails: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// Power is back.
    pub fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(World { image, ..World::default() })))
    }

    pub fn fail_sync(&self, number: usize) {
        self.0.lock().unwrap().fails = Some(number);
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().ops.len()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().ops.clone()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn Medium>> {
        let world = self.0.lock().unwrap();
        let file = *world.image.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Medium>> {
        let mut world = self.0.lock().unwrap();
        let file = world.image.files.len();
        world.image.files.push(Vec::new());
        world.image.names.insert(path.into(), file);
        world.ops.push(Op::Create { name: path.into(), file });
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().unwrap().image.names.contains_key(path))
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        if self.exists(path)? { Ok(true) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        world.image.rename(from, to);
        world.ops.push(Op::Rename { from: from.into(), to: to.into() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().unwrap().ops.push(Op::SyncDir { dir: dir.into() });
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl Medium for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().unwrap().image.files[self.file].len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.0.lock().unwrap();
        let content = &world.image.files[self.file];
        let from = content.len().min(offset as usize);
        let bytes = out.len().min(content.len() - from);
        out[..bytes].copy_from_slice(&content[from..from + bytes]);
        Ok(bytes)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        write(&mut world.image.files[self.file], offset, data);
        world.ops.push(Op::Write { file: self.file, offset, data: data.into() });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        world.image.files[self.file].resize(len as usize, 0);
        world.ops.push(Op::SetLen { file: self.file, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        world.syncs += 1;
        if world.fails == Some(world.syncs - 1) {
            world.ops.push(Op::FailedSync { file: self.file });
            return Err(nix::errno::Errno::EIO.into());
        }
        world.ops.push(Op::Sync { file: self.file });
        Ok(())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }
}

fn write(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = offset as usize;
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl Image {
    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(file) = self.names.remove(from) {
            self.names.insert(to.into(), file);
        }
    }

    /// Does one operation on a file, or that part of it that the dice let through.
    fn carry_out(&mut self, op: &Op, dice: Option<&mut Dice>) {
        match op {
            Op::Write { file, offset, data } => {
                let (mut from, mut to) = (0, data.len());
                if let Some(dice) = dice {
                    // Sectors are the disk's, not the write's.
                    let sectors = |at: u64| ((at as usize) * SECTOR).min(data.len());
                    let count = data.len().div_ceil(SECTOR) as u64;
                    match dice.roll(4) {
                        0 => to = sectors(dice.roll(count + 1)),
                        1 => from = sectors(dice.roll(count + 1)),
                        _ => {}
                    }
                }
                if from < to {
                    write(&mut self.files[*file], offset + from as u64, &data[from..to]);
                }
            }
            Op::SetLen { file, len } => self.files[*file].resize(*len as usize, 0),
            Op::Create { name, file } => drop(self.names.insert(name.clone(), *file)),
            Op::Rename { from, to } => self.rename(from, to),
            Op::Sync { .. } | Op::FailedSync { .. } | Op::SyncDir { .. } => {}
        }
    }
}

/// A disk while operations reach it: what is safe, and what is not yet.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    safe: Image,
    /// By file.
    unsynced: Vec<Vec<Op>>,
    unsynced_names: Vec<Op>,
}

impl Platter {
    pub fn of(image: Image) -> Self {
        let unsynced = image.files.iter().map(|_| Vec::new()).collect();
        Self { safe: image, unsynced, unsynced_names: Vec::new() }
    }

    pub fn take(&mut self, op: &Op) {
        match op {
            Op::Write { file, .. } | Op::SetLen { file, .. } => self.unsynced[*file].push(op.clone()),
            Op::Create { .. } => {
                self.safe.files.push(Vec::new());
                self.unsynced.push(Vec::new());
                self.unsynced_names.push(op.clone());
            }
            Op::Rename { .. } => self.unsynced_names.push(op.clone()),
            Op::Sync { file } => {
                for op in std::mem::take(&mut self.unsynced[*file]) {
                    self.safe.carry_out(&op, None);
                }
            }
            // Lengths are the file system's own and arrive all the same.
            Op::FailedSync { file } => {
                for op in std::mem::take(&mut self.unsynced[*file]) {
                    if matches!(op, Op::SetLen { .. }) {
                        self.safe.carry_out(&op, None);
                    }
                }
            }
            Op::SyncDir { dir } => {
                let (now, later) = std::mem::take(&mut self.unsynced_names).into_iter().partition(|op| {
                    let (Op::Create { name, .. } | Op::Rename { to: name, .. }) = op else { return false };
                    name.parent() == Some(dir.as_path())
                });
                self.unsynced_names = later;
                let now: Vec<Op> = now;
                now.iter().for_each(|op| self.safe.carry_out(op, None));
            }
        }
    }

    /// The power is cut now.
    pub fn cut(&self, dice: &mut Dice) -> Image {
        let mut image = self.safe.clone();
        // None, all, or about half.
        let mood = dice.roll(4);
        for op in self.unsynced.iter().flatten() {
            match mood {
                0 => {}
                1 => image.carry_out(op, None),
                _ if dice.roll(2) == 0 => image.carry_out(op, Some(dice)),
                _ => {}
            }
        }
        // A journal of names has an order.
        let names = dice.roll(self.unsynced_names.len() as u64 + 1) as usize;
        self.unsynced_names[..names].iter().for_each(|op| image.carry_out(op, None));
        image
    }
}
