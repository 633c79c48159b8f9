//! Changes become durable: one transaction, synced before it answers.

use super::disk::Access;
use super::fault::Fault;
use super::finished::FinishedRuns;
use super::live::begin;
use super::quarantine::{Quarantined, Shelf, Why};
use super::schema::{META, OUTBOX, RUNS, meta, outbox_place, record_bytes, run_json};
use super::seal::{OVERHEAD_BYTES, Sealer};
use super::{Change, Dropped, OutboxRecord, Store, StoreError};
use crate::model::{MessageKind, RunRecord, unix_ms};
use redb::{AccessGuard, Database, ReadableTable, Table};

impl Store {
    /// Makes these changes in one transaction: all are durable when it answers, or none is.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a change that contradicts what is stored, [`StoreError::NoSpace`],
    /// [`StoreError::Io`], [`StoreError::Damaged`]. After each, later commits can work.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.commit_group(&[changes])
    }

    /// Makes the changes of many senders in one transaction.
    ///
    /// # Errors
    /// As [`Store::commit`], for all of them.
    pub fn commit_group(&mut self, lists: &[&[Change]]) -> Result<(), StoreError> {
        let changes: u64 = lists.iter().map(|list| list.len() as u64).sum();
        if changes == 0 {
            return Ok(());
        }
        if self.access == Access::Read {
            return Err(Fault::Refused("it is open for reading only".into()).at(&self.path));
        }
        // Most transactions touch no run, and copy nothing.
        let kept = touches_runs(lists).then(|| self.finished.clone());
        let max = self.options.max_finished_runs;
        let mut runs = FinishedRuns { kept: kept.unwrap_or_default(), max };
        let max_quarantined = self.options.max_quarantined;
        match self.work(|live, sealer| transact(&live.db, sealer, lists, &mut runs, max_quarantined)) {
            Ok(Done { set_aside, grown }) => {
                self.status.quarantined += set_aside;
                self.content_bytes = self.content_bytes.saturating_add_signed(grown);
                if touches_runs(lists) {
                    self.finished = runs.kept;
                }
                self.status.commits += 1;
                self.status.changes += changes;
                self.status.write_error = None;
                Ok(())
            }
            Err(error) => {
                if !matches!(error, StoreError::Refused { .. }) {
                    self.status.write_error = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}

fn touches_runs(lists: &[&[Change]]) -> bool {
    lists.iter().copied().flatten().any(|change| match change {
        Change::PutRun(_) | Change::ForgetRun(_) => true,
        Change::Append(_)
        | Change::Remove(_)
        | Change::SetAside(_)
        | Change::PutDropped(_)
        | Change::PutConfig { .. }
        | Change::PutSession(_)
        | Change::ReserveSeq(_) => false,
    })
}

/// What a transaction did beside its changes.
#[derive(Clone, Copy)]
struct Done {
    /// Records that it moved to the quarantine.
    set_aside: u64,
    /// Bytes of content that came, less those that went.
    grown: i64,
}

fn transact(
    db: &Database,
    sealer: &Sealer,
    lists: &[&[Change]],
    runs: &mut FinishedRuns,
    max_quarantined: u64,
) -> Result<Done, Fault> {
    let changes = || lists.iter().copied().flatten();
    let txn = begin(db)?;
    let mut tables = Tables {
        outbox: txn.open_table(OUTBOX)?,
        runs: txn.open_table(RUNS)?,
        meta: txn.open_table(META)?,
        quarantine: match changes().any(|change| matches!(change, Change::SetAside(_))) {
            true => Some(Shelf::open(&txn, max_quarantined)?),
            false => None,
        },
        done: Done { set_aside: 0, grown: 0 },
        sealer,
    };
    for change in changes() {
        tables.apply(change, runs)?;
    }
    let done = tables.done;
    drop(tables);
    txn.commit()?;
    Ok(done)
}

struct Tables<'t> {
    outbox: Table<'t, (u8, u64), &'static [u8]>,
    runs: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, &'static [u8]>,
    /// Opened only where something is set aside.
    quarantine: Option<Shelf<'t>>,
    done: Done,
    sealer: &'t Sealer,
}

impl Tables<'_> {
    fn apply(&mut self, change: &Change, runs: &mut FinishedRuns) -> Result<(), Fault> {
        match change {
            Change::Append(record) => self.append(record),
            Change::Remove(seqs) => self.remove(seqs),
            Change::SetAside(seqs) => self.set_aside(seqs),
            Change::PutDropped(Dropped { logs, health_results }) => {
                self.put_meta(meta::DROPPED, &[&logs.to_le_bytes(), &health_results.to_le_bytes()])
            }
            Change::PutRun(record) => self.put_run(record, runs),
            Change::ForgetRun(run_id) => {
                runs.forget(run_id);
                self.done.grown -= room_of(self.runs.remove(run_id.as_str())?);
                Ok(())
            }
            Change::PutConfig { version, config } => {
                self.put_meta(meta::CONFIG, &[&version.to_le_bytes(), config.as_ref()])
            }
            Change::PutSession(session) => self.put_meta(meta::SESSION, &[session.as_bytes()]),
            Change::ReserveSeq(seq) => self.reserve(*seq),
        }
    }

    /// The same message once more is nothing new: after an error of the disk, nobody knows whether the
    /// transaction before is there.
    fn append(&mut self, record: &OutboxRecord) -> Result<(), Fault> {
        let OutboxRecord { seq, kind, envelope } = record;
        let place = outbox_place(*kind, *seq);
        for other in MessageKind::ALL {
            let Some(sealed) = self.outbox.get((other as u8, *seq))? else { continue };
            let same = self.sealer.open("outbox", &place, sealed.value()).is_ok_and(|open| open == *envelope);
            if other == *kind && same {
                return Ok(());
            }
            return Err(Fault::Refused(format!("a message with seq {seq} waits already")));
        }
        let sealed = self.sealer.seal("outbox", &place, envelope)?;
        self.done.grown += signed(record_bytes(sealed.len()));
        self.outbox.insert((*kind as u8, *seq), sealed.as_slice())?;
        Ok(())
    }

    /// A seq that is not there was removed before: evicted while it was in flight.
    fn remove(&mut self, seqs: &[u64]) -> Result<(), Fault> {
        for seq in seqs {
            for kind in MessageKind::ALL {
                let removed = room_of(self.outbox.remove((kind as u8, *seq))?);
                self.done.grown -= removed;
                if removed > 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// As they are, sealed; a seq that is not there was evicted while it was in flight.
    fn set_aside(&mut self, seqs: &[u64]) -> Result<(), Fault> {
        for seq in seqs {
            for kind in MessageKind::ALL {
                let Some(sealed) = self.outbox.remove((kind as u8, *seq))? else { continue };
                self.done.set_aside += 1;
                if let Some(quarantine) = &mut self.quarantine {
                    quarantine.put(&Quarantined {
                        table: "outbox".to_owned(),
                        key: outbox_place(kind, *seq).to_vec(),
                        at_ms: Some(unix_ms()),
                        why: Why::Refused,
                        value: sealed.value().to_vec(),
                    })?;
                }
                break;
            }
        }
        Ok(())
    }

    fn put_run(&mut self, record: &RunRecord, runs: &mut FinishedRuns) -> Result<(), Fault> {
        let run_id = record.order.run_id.as_str();
        let json = run_json(record)
            .map_err(|error| Fault::Refused(format!("the record of run \"{run_id}\": {error}")))?;
        let sealed = self.sealer.seal("runs", run_id.as_bytes(), &json)?;
        self.done.grown += signed(record_bytes(sealed.len()));
        self.done.grown -= room_of(self.runs.insert(run_id, sealed.as_slice())?);
        for forgotten in runs.note(record) {
            self.done.grown -= room_of(self.runs.remove(forgotten.as_str())?);
        }
        Ok(())
    }

    fn put_meta(&mut self, name: &str, parts: &[&[u8]]) -> Result<(), Fault> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + OVERHEAD_BYTES;
        self.done.grown += signed(record_bytes(length));
        // One after the other, and sealed where it is to stay: a configuration is megabytes.
        self.done.grown -= room_of(self.meta.remove(name)?);
        let mut room = self.meta.insert_reserve(name, length)?;
        self.sealer.seal_into(room.as_mut(), "meta", name.as_bytes(), parts)?;
        Ok(())
    }

    /// Never lowers the reservation.
    fn reserve(&mut self, seq: u64) -> Result<(), Fault> {
        let reserved = match self.meta.get(meta::SEQ)? {
            Some(sealed) => self
                .sealer
                .open("meta", meta::SEQ.as_bytes(), sealed.value())
                .ok()
                .and_then(|content| content.try_into().ok().map(u64::from_le_bytes)),
            None => None,
        };
        if reserved.is_some_and(|reserved| reserved >= seq) {
            return Ok(());
        }
        self.put_meta(meta::SEQ, &[&seq.to_le_bytes()])
    }
}

/// What a record took that was replaced or removed; 0 where there was none.
fn room_of(record: Option<AccessGuard<'_, &'static [u8]>>) -> i64 {
    record.map_or(0, |record| signed(record_bytes(record.value().len())))
}

/// A record is far smaller than what this could not hold.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
