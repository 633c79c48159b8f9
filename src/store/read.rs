//! What is in the file. A record that does not open or decode is set aside, and its neighbours go on.

use super::disk::Access;
use super::fault::Fault;
use super::finished::FinishedRuns;
use super::live::{Live, begin};
use super::quarantine::{Broken, Place, Why, quarantine};
use super::schema::{MAX_SEQ, META, OUTBOX, QUARANTINE, RUNS, meta, outbox_place, record_bytes, unused_seq};
use super::seal::{OVERHEAD_BYTES, Sealer};
use super::{
    Dropped, FIRST_SEQ, OutboxPage, OutboxRecord, OutboxTotals, Recovered, SetAside, Store, StoreError,
};
use crate::model::{MessageKind, RunRecord, unix_ms};
use bytes::Bytes;
use redb::{Key, Range, ReadTransaction, ReadableDatabase, ReadableTable, TableError};
use std::iter::Peekable;
use zeroize::Zeroizing;

/// What a reading of the whole file found.
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) broken: Vec<Broken>,
    /// What the records need in the file.
    content_bytes: u64,
}

impl Store {
    /// What an earlier life left.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn recover(&mut self) -> Result<Recovered, StoreError> {
        if self.sealer.is_none() {
            return self.first_opening();
        }
        let found = self.work(|live, sealer| read_all(live, sealer))?;
        Ok(self.take_in(found))
    }

    /// Sets aside what is broken and keeps in mind what commits must know.
    pub(super) fn take_in(&mut self, found: Found) -> Recovered {
        let Found { mut recovered, broken, content_bytes } = found;
        self.content_bytes = content_bytes;
        if broken.iter().any(|record| record.place == Place::Meta(meta::SEQ)) {
            recovered.next_seq = unused_seq(recovered.next_seq, unix_ms());
        }
        let mut runs = FinishedRuns { kept: Default::default(), max: usize::MAX };
        for record in &recovered.runs {
            runs.note(record);
        }
        self.finished = runs.kept;
        self.set_aside(&broken);
        recovered
    }

    /// The oldest waiting records with a seq above `after`, of that kind or of all: at most
    /// `max_count` and `max_bytes` of envelopes, though a single larger one is still given.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn read_outbox(
        &mut self,
        kind: Option<MessageKind>,
        after: u64,
        max_count: usize,
        max_bytes: usize,
    ) -> Result<OutboxPage, StoreError> {
        if self.sealer.is_none() {
            // Nothing was ever stored.
            self.first_opening()?;
        }
        if self.sealer.is_none() {
            return Ok(OutboxPage::default());
        }
        let limits = Limits { kind, after, max_count, max_bytes };
        let page = self.work(|live, sealer| read_page(live, sealer, limits))?;
        let broken: Vec<_> = page
            .set_aside
            .iter()
            .map(|record| does_not_open(Place::Outbox(record.kind as u8, record.seq)))
            .collect();
        self.set_aside(&broken);
        Ok(page)
    }

    /// Moves records to the quarantine. Where that cannot be done now they stay, and are passed over
    /// again by the next reader.
    fn set_aside(&mut self, broken: &[Broken]) {
        if broken.is_empty() {
            return;
        }
        self.status.quarantined += broken.len() as u64;
        let path = self.path.display().to_string();
        for record in broken {
            tracing::error!(
                path,
                ?record,
                "a record of the state file does not open or decode: it is set aside in the quarantine, its neighbours go on"
            );
        }
        if self.access == Access::Read {
            return;
        }
        let max = self.options.max_quarantined;
        let moved = self.work(|live, _| {
            let txn = begin(&live.db)?;
            for record in broken {
                quarantine(&txn, record, max)?;
            }
            txn.commit()?;
            Ok(())
        });
        if let Err(error) = moved {
            tracing::warn!(%error, "records could not be moved to the quarantine");
        }
    }
}

/// Reads everything but the messages themselves.
pub(super) fn read_all(live: &Live, sealer: &Sealer) -> Result<Found, Fault> {
    let mut broken = Vec::new();
    let txn = live.db.begin_read()?;
    let outbox = totals(&txn.open_table(OUTBOX)?, &mut broken)?;
    let runs = runs(&txn.open_table(RUNS)?, sealer, &mut broken)?;
    let table = txn.open_table(META)?;
    for record in checked("meta", &table)? {
        let (name, value) = record?;
        let name = name.value();
        // A value whose name was altered would be missed as if it had never been there.
        if !meta::SEALED.contains(&name)
            && name != meta::HEAD
            && sealer.open("meta", name.as_bytes(), value.value()).is_err()
        {
            return Err(Fault::Damaged("meta has a value that nobody wrote".into()));
        }
    }
    let mut open = |name: &'static str| -> Result<Option<Vec<u8>>, Fault> {
        let Some(sealed) = table.get(name)? else {
            return Ok(None);
        };
        let content = sealer.open("meta", name.as_bytes(), sealed.value()).ok();
        if content.is_none() {
            broken.push(does_not_open(Place::Meta(name)));
        }
        Ok(content)
    };
    let reserved = open(meta::SEQ)?.and_then(|content| content.try_into().ok().map(u64::from_le_bytes));
    let config = open(meta::CONFIG)?.and_then(|content| {
        let version = u64::from_le_bytes(*content.first_chunk()?);
        Some((version, Bytes::from(content).slice(size_of::<u64>()..)))
    });
    let session_id = open(meta::SESSION)?.and_then(|content| String::from_utf8(content).ok());
    let dropped = open(meta::DROPPED)?.and_then(|content| dropped(&content)).unwrap_or_default();
    let after_outbox = outbox.last_seq.map_or(FIRST_SEQ, |last| last.saturating_add(1));
    let next_seq = reserved.unwrap_or(0).max(after_outbox).max(FIRST_SEQ);
    let recovered = Recovered { next_seq, config, session_id, runs, outbox, dropped };
    let content_bytes = content_bytes(&txn, &recovered.outbox)?;
    Ok(Found { recovered, broken, content_bytes })
}

/// What the records need in the file, of every table that grows.
fn content_bytes(txn: &ReadTransaction, outbox: &OutboxTotals) -> Result<u64, Fault> {
    let mut bytes = outbox.bytes() + outbox.depth() * record_bytes(OVERHEAD_BYTES);
    for record in txn.open_table(RUNS)?.iter()? {
        bytes += record_bytes(record?.1.value().len());
    }
    for record in txn.open_table(META)?.iter()? {
        bytes += record_bytes(record?.1.value().len());
    }
    let quarantine = match txn.open_table(QUARANTINE) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(bytes),
        opened => opened?,
    };
    for record in quarantine.iter()? {
        bytes += record_bytes(record?.1.value().len());
    }
    Ok(bytes)
}

fn dropped(content: &[u8]) -> Option<Dropped> {
    let (logs, health_results) = content.split_first_chunk()?;
    let health_results = u64::from_le_bytes(health_results.try_into().ok()?);
    Some(Dropped { logs: u64::from_le_bytes(*logs), health_results })
}

/// The outbox in numbers, without unsealing, in constant memory.
pub(super) fn totals(
    outbox: &impl ReadableTable<(u8, u64), &'static [u8]>,
    broken: &mut Vec<Broken>,
) -> Result<OutboxTotals, Fault> {
    let mut totals = OutboxTotals::default();
    for kind in MessageKind::ALL {
        let (mut count, mut bytes) = (0, 0);
        let mut last = None;
        for record in outbox.range((kind as u8, 0)..=(kind as u8, MAX_SEQ))? {
            let (key, value) = record?;
            let (_, seq) = key.value();
            if last.replace(seq).is_some_and(|last| last >= seq) {
                return Err(Fault::Damaged("the outbox is out of order".into()));
            }
            count += 1;
            bytes += envelope_bytes(value.value());
            totals.first_seq = Some(totals.first_seq.map_or(seq, |first| first.min(seq)));
            totals.last_seq = Some(totals.last_seq.map_or(seq, |last| last.max(seq)));
        }
        totals.by_kind.push((kind, count, bytes));
    }
    if outbox.len()? != totals.depth() {
        let mut last = None;
        for record in checked("outbox", outbox)? {
            let (kind, seq) = record?.0.value();
            if last.replace((kind, seq)).is_some_and(|last| last >= (kind, seq)) {
                return Err(Fault::Damaged("the outbox is out of order".into()));
            }
            if MessageKind::from_u8(kind).is_none() {
                broken.push(Broken { place: Place::Outbox(kind, seq), why: Why::UnknownKind });
            } else if seq > MAX_SEQ {
                broken.push(does_not_open(Place::Outbox(kind, seq)));
            }
        }
    }
    Ok(totals)
}

/// The records of a table, if there are as many as it says. redb reads pages without a look at their
/// checksums: one that has lost entries would show fewer, and what it lost would never be missed.
fn checked<'t, K: Key + 'static>(
    name: &str,
    table: &'t impl ReadableTable<K, &'static [u8]>,
) -> Result<Range<'t, K, &'static [u8]>, Fault> {
    let (mut count, expected) = (0, table.len()?);
    for record in table.iter()? {
        record?;
        count += 1;
        // A count of entries that was altered upwards ends nowhere near.
        if count > expected {
            break;
        }
    }
    if count != expected {
        return Err(Fault::Damaged(format!("{name} has not the {expected} records that it should have")));
    }
    Ok(table.iter()?)
}

fn envelope_bytes(sealed: &[u8]) -> u64 {
    sealed.len().saturating_sub(OVERHEAD_BYTES) as u64
}

fn runs(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    sealer: &Sealer,
    broken: &mut Vec<Broken>,
) -> Result<Vec<RunRecord>, Fault> {
    let mut runs: Vec<RunRecord> = Vec::new();
    for record in checked("runs", table)? {
        let (key, sealed) = record?;
        let run_id = key.value();
        match open_run(sealer, run_id, sealed.value()) {
            Ok(record) => runs.push(record),
            Err(why) => broken.push(Broken { place: Place::Run(run_id.to_owned()), why }),
        }
    }
    runs.sort_by(|a, b| (a.accepted_at_ms, &a.order.run_id).cmp(&(b.accepted_at_ms, &b.order.run_id)));
    Ok(runs)
}

/// The record of that run in its sealed value.
pub(super) fn open_run(sealer: &Sealer, run_id: &str, sealed: &[u8]) -> Result<RunRecord, Why> {
    let json =
        sealer.open("runs", run_id.as_bytes(), sealed).map(Zeroizing::new).map_err(|_| Why::DoesNotOpen)?;
    let record = serde_json::from_slice::<RunRecord>(&json).map_err(|_| Why::DoesNotDecode)?;
    if record.order.run_id.as_str() == run_id { Ok(record) } else { Err(Why::DoesNotDecode) }
}

fn does_not_open(place: Place) -> Broken {
    Broken { place, why: Why::DoesNotOpen }
}

#[derive(Clone, Copy)]
struct Limits {
    kind: Option<MessageKind>,
    after: u64,
    max_count: usize,
    max_bytes: usize,
}

/// Merges the kinds by seq: each lies together in the table, in its order.
fn read_page(live: &Live, sealer: &Sealer, limits: Limits) -> Result<OutboxPage, Fault> {
    let mut page = OutboxPage::default();
    let Some(first) = limits.after.checked_add(1) else {
        return Ok(page);
    };
    let outbox = live.db.begin_read()?.open_table(OUTBOX)?;
    let mut kinds = Vec::new();
    for kind in MessageKind::ALL.into_iter().filter(|kind| limits.kind.is_none_or(|only| only == *kind)) {
        let range = outbox.range((kind as u8, first)..=(kind as u8, u64::MAX))?;
        kinds.push((kind, range.peekable()));
    }
    let mut bytes = 0;
    while page.records.len() + page.set_aside.len() < limits.max_count
        && let Some(oldest) = oldest(&mut kinds)
        && let Some((kind, range)) = kinds.get_mut(oldest)
        && let Some(record) = range.next()
    {
        let (key, value) = record?;
        let (_, seq) = key.value();
        let size = envelope_bytes(value.value());
        bytes += size;
        if bytes > limits.max_bytes as u64 && !page.records.is_empty() {
            break;
        }
        match sealer.open("outbox", &outbox_place(*kind, seq), value.value()) {
            Ok(envelope) => {
                page.records.push(OutboxRecord { seq, kind: *kind, envelope: envelope.into() });
            }
            Err(_) => page.set_aside.push(SetAside { seq, kind: *kind, bytes: size }),
        }
    }
    Ok(page)
}

type Waiting = Peekable<Range<'static, (u8, u64), &'static [u8]>>;

/// The index of the kind whose next record is the oldest. An error counts as the oldest: it must be
/// met, not passed over.
fn oldest(kinds: &mut [(MessageKind, Waiting)]) -> Option<usize> {
    let next = |range: &mut Waiting| match range.peek()? {
        Ok((key, _)) => Some(key.value().1),
        Err(_) => Some(0),
    };
    (0..kinds.len())
        .filter_map(|index| Some((next(&mut kinds[index].1)?, index)))
        .min()
        .map(|(_, index)| index)
}
