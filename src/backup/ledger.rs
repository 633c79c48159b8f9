//! What a later life of the agent must know of a spool: that it is whole, and which parts the store has already. And of
//! an object that went up without one: that the store has all of it, and may have put it together.
//!
//! A file beside the spool, or in its place, one sealed record after the other: each under a key that is derived from the run's
//! own, bound to the run and to its place. A record that a crash cut ends the list; everything before it holds.

use super::dumped::{Dumped, Packed};
use super::error::RunError;
use crate::model::{Dek, Manifest, RunId};
use crate::spool::{self, Room, Spool, SpoolError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the record's key is for.
const PURPOSE: &[u8] = b"backupy-agent spool ledger v1";

/// The largest record names 10,000 parts, each in some hundred bytes.
const MAX_RECORD_LEN: usize = 4 * 1024 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Record {
    /// The object is whole: on the disk, or in the store's parts.
    Finished {
        size_bytes: u64,
        sha256: [u8; 32],
        engine_version: String,
        plain_bytes: u64,
        #[serde(default)]
        manifest: Option<Manifest>,
    },
    /// Parts from here on belong to that upload and to the object of that SHA-256, and are so large.
    Upload {
        id: String,
        part_bytes: u64,
        #[serde(default)]
        sha256: [u8; 32],
    },
    /// The store has that part.
    Part { number: u32, etag: String, md5: Option<[u8; 16]> },
    /// That upload has all parts of an object that is in no spool. In one record: some of them are of no use.
    Streamed { upload: String, parts: Vec<Stored> },
}

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// From 1.
    pub number: u32,
    /// As the store gave it.
    pub etag: String,
    /// Of its bytes, where the store's ETag is one too.
    pub md5: Option<[u8; 16]>,
}

/// The list of one spool.
#[derive(Debug)]
pub struct Ledger {
    file: Option<File>,
    path: PathBuf,
    room: Room,
    key: LessSafeKey,
    count: u32,
    /// Of the object that the list is about.
    sha256: [u8; 32],
    upload: Option<(String, u64)>,
    stored: Vec<Stored>,
    streamed: Option<(String, Vec<Stored>)>,
}

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

impl Ledger {
    /// An empty list beside the spool; written once there is something to say, where `room` allows it.
    ///
    /// # Errors
    /// [`RunError::WrappedKey`], [`RunError::Internal`].
    pub fn new(spool_path: &Path, run: &RunId, key: &Dek, room: &Room) -> Result<Self, RunError> {
        let plain = key.plain().ok_or(RunError::WrappedKey { len: key.as_received().len() })?;
        let refused = |_| RunError::Internal("no key could be derived for the spool's ledger".into());
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        let prk = Salt::new(HKDF_SHA256, PURPOSE).extract(plain);
        let info: [&[u8]; 1] = [run.as_str().as_bytes()];
        prk.expand(&info, Len32).and_then(|okm| okm.fill(&mut *bytes)).map_err(refused)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*bytes).map_err(refused)?);
        let path = path_of(spool_path);
        let room = room.clone();
        let (sha256, upload, stored, streamed) = ([0; 32], None, Vec::new(), None);
        Ok(Self { file: None, path, room, key, count: 0, sha256, upload, stored, streamed })
    }

    /// What an earlier life noted of that spool; None where it is not known to be whole.
    pub fn recover(&mut self) -> Option<Dumped> {
        let bytes = std::fs::read(&self.path).ok()?;
        let mut rest = bytes.as_slice();
        let mut dumped = None;
        let mut whole = 0;
        while let Some((record, after)) = self.open(rest) {
            self.count += 1;
            whole += rest.len() - after.len();
            rest = after;
            match record {
                Record::Finished { size_bytes, sha256, engine_version, plain_bytes, manifest } => {
                    self.forget_parts(sha256);
                    let packed = Packed { size_bytes, sha256 };
                    dumped = Some(Dumped { packed, engine_version, plain_bytes, manifest });
                }
                Record::Upload { id, part_bytes, sha256 } => {
                    self.upload = (sha256 == self.sha256).then_some((id, part_bytes));
                    self.stored.clear();
                }
                Record::Part { number, etag, md5 } => self.stored.push(Stored { number, etag, md5 }),
                Record::Streamed { upload, parts } => self.streamed = Some((upload, parts)),
            }
        }
        let dumped = dumped?;
        // What was cut goes, so that what follows has its place.
        let file = OpenOptions::new().append(true).open(&self.path).ok()?;
        file.set_len(whole as u64).ok()?;
        self.file = Some(file);
        Some(dumped)
    }

    /// The spool is whole: it and this note are on the disk when this returns.
    ///
    /// # Errors
    /// [`RunError::Spool`]
    pub fn finished(&mut self, spool: &Spool, dumped: &Dumped) -> Result<(), RunError> {
        spool.sync()?;
        self.begin(dumped)?;
        self.sync_dir()
    }

    /// Every part of an object that is in no spool is stored: this note is on the disk when this returns.
    ///
    /// # Errors
    /// [`RunError::Spool`]
    pub fn streamed(&mut self, dumped: &Dumped, upload: &str, parts: &[Stored]) -> Result<(), RunError> {
        spool::make_dir(self.dir())?;
        self.begin(dumped)?;
        self.put(&Record::Streamed { upload: upload.to_owned(), parts: parts.to_vec() })?;
        self.sync_dir()
    }

    /// The parts of that upload, where they are all of an object that is in no spool. A store's name that is not told
    /// cannot be compared.
    pub fn all_streamed(&self, upload: &str) -> Option<&[Stored]> {
        let (known, parts) = self.streamed.as_ref()?;
        (known == upload && !upload.is_empty()).then_some(parts)
    }

    fn begin(&mut self, dumped: &Dumped) -> Result<(), RunError> {
        let mut options = OpenOptions::new();
        let made = options.write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        self.file = Some(made.map_err(|cause| self.failed(cause))?);
        self.count = 0;
        self.forget_parts(dumped.packed.sha256);
        self.put(&Record::Finished {
            size_bytes: dumped.packed.size_bytes,
            sha256: dumped.packed.sha256,
            engine_version: dumped.engine_version.clone(),
            plain_bytes: dumped.plain_bytes,
            manifest: dumped.manifest.clone(),
        })
    }

    /// Another object, though it may go into the same upload: what the store has of the one before is none of its parts.
    fn forget_parts(&mut self, sha256: [u8; 32]) {
        (self.sha256, self.upload, self.streamed) = (sha256, None, None);
        self.stored.clear();
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn sync_dir(&self) -> Result<(), RunError> {
        File::open(self.dir()).and_then(|dir| dir.sync_all()).map_err(|cause| self.failed(cause).into())
    }

    /// Parts of that upload follow. Gives their size: that of the parts which are there already. What cannot be noted
    /// is sent again by a later life: no reason to fail.
    pub fn begin_upload(&mut self, id: &str, part_bytes: u64) -> u64 {
        match &self.upload {
            // A store's name that is not told cannot be compared: the parts may belong to another upload.
            Some((known, known_bytes)) if known == id && !id.is_empty() => return *known_bytes,
            Some(_) | None => {}
        }
        self.stored.clear();
        self.upload = Some((id.to_owned(), part_bytes));
        if let Err(error) = self.put(&Record::Upload { id: id.to_owned(), part_bytes, sha256: self.sha256 }) {
            tracing::warn!(%error, "the upload could not be noted: after a restart all of its parts are sent again");
            // Parts without their upload would be taken for those of the one before.
            self.file = None;
        }
        part_bytes
    }

    /// The store has that part. What cannot be noted is sent again by a later life: no reason to fail.
    pub fn note(&mut self, part: &Stored) {
        let Stored { number, etag, md5 } = part.clone();
        if let Err(error) = self.put(&Record::Part { number, etag, md5 }) {
            tracing::warn!(%error, "a finished part could not be noted: after a restart it is sent again");
        }
    }

    /// The parts that the store has.
    pub fn stored(&self) -> Vec<Stored> {
        self.stored.clone()
    }

    /// Removes the list.
    pub fn discard(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "a spool's ledger could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn put(&mut self, record: &Record) -> Result<(), RunError> {
        let failed = |cause| SpoolError::Io { path: self.path.clone(), cause };
        let mut sealed = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        let mut nonce = [0; NONCE_LEN];
        let refused = |_| failed(io::Error::other("a record could not be sealed"));
        SystemRandom::new().fill(&mut nonce).map_err(refused)?;
        let aad = Aad::from(self.count.to_be_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(refused)?;
        let len = u32::try_from(NONCE_LEN + sealed.len()).unwrap_or(0);
        let bytes = [&len.to_be_bytes()[..], &nonce, &sealed].concat();
        if let Some(file) = &mut self.file {
            self.room.ensure(self.path.parent().unwrap_or(&self.path), bytes.len() as u64)?;
            file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        self.count += 1;
        Ok(())
    }

    /// The record at the beginning, and what follows it.
    fn open<'a>(&self, bytes: &'a [u8]) -> Option<(Record, &'a [u8])> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok().filter(|len| *len <= MAX_RECORD_LEN)?;
        let (sealed, after) = rest.split_at_checked(len)?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(self.count.to_be_bytes());
        let plain = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut sealed).ok()?;
        Some((serde_json::from_slice(plain).ok()?, after))
    }

    fn failed(&self, cause: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), cause }
    }
}

/// Beside the spool.
fn path_of(spool: &Path) -> PathBuf {
    spool.with_extension(crate::spool::LEDGER_EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableRows;

    fn dumped() -> Dumped {
        let packed = Packed { size_bytes: 7, sha256: [3; 32] };
        let largest = vec![TableRows { name: "t".into(), rows: 5 }];
        let manifest = Manifest { tables: 1, rows: 5, digest: "ab".into(), largest };
        Dumped { packed, engine_version: "SQLite 3".into(), plain_bytes: 9, manifest: Some(manifest) }
    }

    fn part(number: u32) -> Stored {
        Stored { number, etag: format!("\"{number}\""), md5: Some([1; 16]) }
    }

    fn ledger(spool: &Spool, key: u8) -> Ledger {
        Ledger::new(spool.path(), &"r".into(), &vec![key; 32].into(), &Room::default()).unwrap()
    }

    #[test]
    fn a_later_life_knows_the_spool_and_its_parts_and_a_torn_record_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path(), &"r".into()).unwrap();
        assert!(ledger(&spool, 1).recover().is_none());
        let mut first = ledger(&spool, 1);
        first.finished(&spool, &dumped()).unwrap();
        assert_eq!(first.begin_upload("u", 5), 5);
        (1..=3).for_each(|number| first.note(&part(number)));

        let path = path_of(spool.path());
        let whole = std::fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&whole).contains("SQLite"), "it is sealed");
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut later = ledger(&spool, 1);
        assert_eq!(later.recover(), Some(dumped()));
        assert_eq!(later.begin_upload("u", 8), 5, "the parts that are there say how large they are");
        assert_eq!(later.stored(), [part(1), part(2)]);
        later.note(&part(3));
        let mut third = ledger(&spool, 1);
        third.recover().unwrap();
        assert_eq!(third.stored(), [part(1), part(2), part(3)]);
        assert_eq!(third.begin_upload("another", 8), 8);
        assert!(third.stored().is_empty(), "parts of another upload are of no use");
        assert!(ledger(&spool, 2).recover().is_none(), "another key opens nothing");
        third.discard();
        assert!(!path.exists());
    }

    #[test]
    fn parts_of_an_object_that_is_gone_are_none_of_the_next_ones() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path(), &"r".into()).unwrap();
        let mut first = ledger(&spool, 1);
        first.finished(&spool, &dumped()).unwrap();
        first.begin_upload("u", 5);
        first.note(&part(1));
        let another = Dumped { packed: Packed { size_bytes: 7, sha256: [4; 32] }, ..dumped() };
        let mut later = ledger(&spool, 1);
        later.recover().unwrap();
        later.finished(&spool, &another).unwrap();
        assert_eq!((later.begin_upload("u", 8), later.stored()), (8, Vec::new()));

        // Nor where the list itself mixes them.
        let mut mixed = ledger(&spool, 1);
        mixed.recover().unwrap();
        mixed.put(&Record::Upload { id: "u".into(), part_bytes: 5, sha256: [3; 32] }).unwrap();
        mixed.note(&part(1));
        let mut later = ledger(&spool, 1);
        assert_eq!(later.recover(), Some(another));
        assert_eq!((later.begin_upload("u", 8), later.stored()), (8, Vec::new()));
    }

    #[test]
    fn an_upload_goes_on_where_its_note_finds_no_room() {
        use crate::model::Space;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path(), &"r".into()).unwrap();
        let free = Arc::new(AtomicU64::new(1 << 30));
        let asked = Arc::clone(&free);
        let space = move |_: &Path| Ok(Space { free: asked.load(Ordering::SeqCst), total: 1 << 40 });
        let room = Room { min_free_bytes: 1 << 20, free: Arc::new(space) };
        let ledger = || Ledger::new(spool.path(), &"r".into(), &vec![1; 32].into(), &room).unwrap();
        let mut first = ledger();
        first.finished(&spool, &dumped()).unwrap();
        free.store(1 << 20, Ordering::SeqCst);
        assert_eq!(first.begin_upload("u", 5), 5);
        free.store(1 << 30, Ordering::SeqCst);
        first.note(&part(1));
        let mut later = ledger();
        assert_eq!(later.recover(), Some(dumped()), "the spool is whole all the same");
        assert_eq!((later.begin_upload("u", 8), later.stored()), (8, Vec::new()));
    }

    #[test]
    fn parts_of_no_spool_are_known_all_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool/r.part");
        let ledger = || Ledger::new(&spool, &"r".into(), &vec![1; 32].into(), &Room::default()).unwrap();
        let parts: Vec<_> = (1..=10_000).map(part).collect();
        ledger().streamed(&dumped(), "u", &parts).unwrap();
        let mut later = ledger();
        assert_eq!(later.recover(), Some(dumped()));
        assert_eq!(later.all_streamed("u"), Some(&parts[..]));
        assert_eq!(later.all_streamed("another"), None);
        let whole = std::fs::read(path_of(&spool)).unwrap();
        std::fs::write(path_of(&spool), &whole[..whole.len() - 1]).unwrap();
        let mut torn = ledger();
        torn.recover();
        assert_eq!(torn.all_streamed("u"), None);
        ledger().streamed(&dumped(), "", &parts[..1]).unwrap();
        let mut nameless = ledger();
        nameless.recover();
        assert_eq!(nameless.all_streamed(""), None);
    }
}
