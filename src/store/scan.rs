//! Genuine records in the raw bytes of a state file, whatever became of its trees.
//!
//! A record's seal is bound to its table and key, so whatever opens is what this agent once wrote there.
//! It need not be its newest state: redb leaves the pages of earlier transactions until they are used
//! again. A message never changes, so an old copy is as good as the last; it may have been delivered
//! since, and is then sent again under the same seq. Of a run the copy that is furthest counts, of the
//! configuration the highest version, of the reservation the highest seq.

use super::fault::Fault;
use super::leaf::{Entry, Keys, PAGE_BYTES, entries};
use super::read::open_run;
use super::schema::{CHECK_NAME, Head, SALT_NAME, SCHEMA_NAME, SUM_NAME, meta, outbox_place};
use super::seal::{OVERHEAD_BYTES, Sealer};
use crate::model::{MessageKind, RunPhase, RunRecord};
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The outbox's keys: a kind and a seq.
const OUTBOX_KEYS: Keys = Keys::Fixed(9);

/// Takes a message; false where it is there already.
type PutMessage<'a> = dyn FnMut(MessageKind, u64, &[u8]) -> Result<bool, Fault> + 'a;

/// What is wanted, and where messages go.
pub(super) struct Wanted<'a> {
    pub(super) message: &'a dyn Fn(&(u8, u64)) -> bool,
    pub(super) put_message: &'a mut PutMessage<'a>,
    pub(super) run: &'a dyn Fn(&str) -> bool,
}

/// What the bytes gave.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Messages that were put.
    pub(super) messages: BTreeMap<u8, u64>,
    pub(super) runs: BTreeMap<String, RunRecord>,
    pub(super) meta: BTreeMap<&'static str, Vec<u8>>,
    /// Of any genuine record, wanted or not.
    pub(super) highest_seq: u64,
    /// Messages that are named beside genuine ones, are wanted, and do not open.
    pub(super) unreadable: BTreeSet<(u8, u64)>,
}

/// The raw file.
pub(super) struct RawFile<'a> {
    file: &'a File,
    len: u64,
}

impl<'a> RawFile<'a> {
    pub(super) fn new(file: &'a File) -> Result<Self, Fault> {
        Ok(Self { file, len: file.metadata()?.len() })
    }

    /// What does not read, for whatever reason, is not there.
    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        if range.end > self.len {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        self.file.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes)
    }

    /// Every entry that may be one, page by page.
    fn pages(&self, keys: Keys) -> impl Iterator<Item = Vec<Entry>> {
        (0..self.len)
            .step_by(PAGE_BYTES as usize)
            .map(move |offset| entries(offset, keys, &mut |range| self.read(range)))
            .filter(|entries| !entries.is_empty())
    }

    /// The sealer of the file, from any copy of its head. None where no copy is left.
    ///
    /// # Errors
    /// [`Fault::WrongKey`] where there are copies, and the key opens none.
    pub(super) fn unlock(&self, agent_key: &SecretString) -> Result<Option<Sealer>, Fault> {
        let mut refused = None;
        for page in self.pages(Keys::Variable) {
            for head in self.heads(&page) {
                match head.unlock(agent_key) {
                    Ok(sealer) => return Ok(Some(sealer)),
                    Err(fault) => refused = Some(fault),
                }
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn heads(&self, page: &[Entry]) -> Vec<Head> {
        let mut heads = Vec::new();
        let mut parts: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for Entry { key, value } in page {
            let Some(name) = self.read(key.clone()) else { continue };
            let known = [meta::HEAD, SCHEMA_NAME, SALT_NAME, CHECK_NAME, SUM_NAME];
            if known.iter().any(|known| known.as_bytes() == name)
                && let Some(value) = self.read(value.clone())
            {
                heads.extend(Head::decode(&value).filter(|_| name == meta::HEAD.as_bytes()));
                parts.insert(name, value);
            }
        }
        let part = |name: &str| parts.get(name.as_bytes()).map(Vec::as_slice);
        if let (Some(schema), Some(salt), Some(check), Some(sum)) =
            (part(SCHEMA_NAME), part(SALT_NAME), part(CHECK_NAME), part(SUM_NAME))
        {
            heads.extend(Head::of(schema, salt, check, sum));
        }
        heads
    }

    /// Reads every page, twice: as a leaf of the outbox, and of the tables with names for keys.
    ///
    /// # Errors
    /// Of `put_message` alone.
    pub(super) fn scan(&self, sealer: &Sealer, wanted: &mut Wanted<'_>) -> Result<Scanned, Fault> {
        let mut scanned = Scanned::default();
        for page in self.pages(OUTBOX_KEYS) {
            self.messages(&page, sealer, wanted, &mut scanned)?;
        }
        for page in self.pages(Keys::Variable) {
            for Entry { key, value } in page {
                if value.end - value.start > OVERHEAD_BYTES as u64
                    && let Some(name) = self.read(key).and_then(|name| String::from_utf8(name).ok())
                    && let Some(sealed) = self.read(value)
                {
                    named(&name, &sealed, sealer, wanted, &mut scanned);
                }
            }
        }
        Ok(scanned)
    }

    fn messages(
        &self,
        page: &[Entry],
        sealer: &Sealer,
        wanted: &mut Wanted<'_>,
        scanned: &mut Scanned,
    ) -> Result<(), Fault> {
        let (mut genuine, mut unreadable) = (false, Vec::new());
        for Entry { key, value } in page {
            let Some((number, seq)) = self.read(key.clone()).and_then(|key| message_key(&key)) else {
                continue;
            };
            let Some(kind) = MessageKind::from_u8(number) else { continue };
            let sealed = self.read(value.clone()).filter(|sealed| sealed.len() >= OVERHEAD_BYTES);
            let opened =
                sealed.and_then(|sealed| sealer.open("outbox", &outbox_place(kind, seq), &sealed).ok());
            let is_wanted = (wanted.message)(&(number, seq));
            match opened {
                Some(envelope) => {
                    genuine = true;
                    scanned.highest_seq = scanned.highest_seq.max(seq);
                    if is_wanted && (wanted.put_message)(kind, seq, &envelope)? {
                        *scanned.messages.entry(number).or_default() += 1;
                    }
                }
                None if is_wanted => unreadable.push((number, seq)),
                None => {}
            }
        }
        // Only beside a genuine record a name is more than noise.
        if genuine {
            scanned.unreadable.extend(unreadable);
        }
        Ok(())
    }
}

/// A key of the outbox as redb writes it.
fn message_key(key: &[u8]) -> Option<(u8, u64)> {
    let (kind, seq) = key.split_first()?;
    Some((*kind, u64::from_le_bytes(seq.try_into().ok()?)))
}

/// A value that may be one of `meta` or of `runs`: a run may be called like a value of `meta`.
fn named(name: &str, sealed: &[u8], sealer: &Sealer, wanted: &Wanted<'_>, scanned: &mut Scanned) {
    if let Some(known) = meta::SEALED.into_iter().find(|known| *known == name)
        && let Ok(content) = sealer.open("meta", name.as_bytes(), sealed)
    {
        if known == meta::SEQ {
            scanned.highest_seq = scanned.highest_seq.max(number(&content));
        }
        let kept = scanned.meta.entry(known).or_default();
        if kept.is_empty() || number(&content) >= number(kept) || known == meta::SESSION {
            *kept = content;
        }
        return;
    }
    if !(wanted.run)(name) {
        return;
    }
    if let Ok(record) = open_run(sealer, name, sealed) {
        match scanned.runs.get(name) {
            Some(kept) if stage(kept) >= stage(&record) => {}
            Some(_) | None => drop(scanned.runs.insert(name.to_owned(), record)),
        }
    }
}

/// What reservation and configuration begin with: the seq, the version.
fn number(content: &[u8]) -> u64 {
    content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A run only goes forward.
fn stage(record: &RunRecord) -> (u8, u64) {
    match &record.phase {
        RunPhase::Accepted => (0, record.accepted_at_ms),
        RunPhase::Started { at_ms, outcome: None } => (1, *at_ms),
        RunPhase::Started { at_ms, outcome: Some(_) } => (2, *at_ms),
        RunPhase::Finished { at_ms, .. } => (3, *at_ms),
    }
}
