//! A new state file beside the old one: written whole, proved, and only then put in its place.

use super::backend::StateFile;
use super::fault::{Fault, contained};
use super::finished::FinishedRuns;
use super::live::{Live, begin, builder};
use super::quarantine::{self, Quarantined};
use super::read::read_all;
use super::schema::{self, META, OUTBOX, RUNS, meta, outbox_place, run_json};
use super::seal::Sealer;
use super::{Options, Recovered};
use crate::model::{MessageKind, RunRecord};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use secrecy::SecretString;
use std::fs::File;
use std::sync::Arc;

/// Records in one transaction: enough that syncs do not count, few enough that memory stays flat.
const BATCH_RECORDS: usize = 1_024;

/// Bytes in one transaction, for the same reasons.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A state file in the making, sealed under a salt of its own.
pub(super) struct NewFile {
    db: Database,
    file: File,
    sealer: Sealer,
    agent_key: SecretString,
    txn: Option<WriteTransaction>,
    records: usize,
    bytes: usize,
    options: Options,
}

impl NewFile {
    /// Begins on an empty file.
    pub(super) fn on(file: File, agent_key: &SecretString) -> Result<Self, Fault> {
        let options = Options::default();
        let db = builder(&options).create_with_backend(StateFile::live(Arc::new(file.try_clone()?)))?;
        let txn = begin(&db)?;
        let sealer = schema::create(&txn, agent_key)?;
        let agent_key = agent_key.clone();
        Ok(Self { db, file, sealer, agent_key, txn: Some(txn), records: 0, bytes: 0, options })
    }

    /// A message; false where it is there already: a message never changes.
    pub(super) fn put_message(
        &mut self,
        kind: MessageKind,
        seq: u64,
        envelope: &[u8],
    ) -> Result<bool, Fault> {
        let sealed = self.sealer.seal("outbox", &outbox_place(kind, seq), envelope)?;
        let mut outbox = self.txn()?.open_table(OUTBOX)?;
        if outbox.get((kind as u8, seq))?.is_some() {
            return Ok(false);
        }
        outbox.insert((kind as u8, seq), sealed.as_slice())?;
        drop(outbox);
        self.wrote(sealed.len())?;
        Ok(true)
    }

    /// Whether it is there.
    pub(super) fn has_message(&mut self, number: u8, seq: u64) -> Result<bool, Fault> {
        Ok(self.txn()?.open_table(OUTBOX)?.get((number, seq))?.is_some())
    }

    /// All runs: of the finished ones the newest are kept, as in any state file.
    pub(super) fn put_runs(&mut self, runs: impl Iterator<Item = RunRecord>) -> Result<u64, Fault> {
        let mut kept = FinishedRuns { kept: Default::default(), max: self.options.max_finished_runs };
        let mut count: u64 = 0;
        for record in runs {
            let run_id = record.order.run_id.as_str();
            let json = run_json(&record)
                .map_err(|error| Fault::Refused(format!("the record of run \"{run_id}\": {error}")))?;
            let sealed = self.sealer.seal("runs", run_id.as_bytes(), &json)?;
            let mut table = self.txn()?.open_table(RUNS)?;
            table.insert(run_id, sealed.as_slice())?;
            count += 1;
            for forgotten in kept.note(&record) {
                table.remove(forgotten.as_str())?;
                count -= 1;
            }
            drop(table);
            self.wrote(sealed.len())?;
        }
        Ok(count)
    }

    /// A value of `meta`.
    pub(super) fn put_meta(&mut self, name: &str, content: &[u8]) -> Result<(), Fault> {
        let sealed = self.sealer.seal("meta", name.as_bytes(), content)?;
        self.txn()?.open_table(META)?.insert(name, sealed.as_slice())?;
        self.wrote(sealed.len())
    }

    /// No life has used a seq from here on.
    pub(super) fn put_next_seq(&mut self, seq: u64) -> Result<(), Fault> {
        self.put_meta(meta::SEQ, &seq.to_le_bytes())
    }

    /// A record of the quarantine: sealed anew where the old sealer opens it, else as it is.
    pub(super) fn put_quarantined(&mut self, record: Quarantined, old: &Sealer) -> Result<(), Fault> {
        let value = match old.open(&record.table, &record.key, &record.value) {
            Ok(content) => self.sealer.seal(&record.table, &record.key, &content)?,
            Err(_) => record.value,
        };
        let bytes = value.len();
        let max = self.options.max_quarantined;
        quarantine::keep(self.txn()?, &Quarantined { value, ..record }, max)?;
        self.wrote(bytes)
    }

    /// Commits, syncs, and opens the file again as the agent will: what it then finds in it, and the seqs
    /// of all messages, in order.
    pub(super) fn finish(mut self) -> Result<(Recovered, Vec<u64>), Fault> {
        if let Some(txn) = self.txn.take() {
            txn.commit()?;
        }
        self.db.close()?;
        self.file.sync_all()?;
        let again = StateFile::held(Arc::new(self.file))?;
        let live = Live { db: builder(&self.options).create_with_backend(again.clone())?, file: again };
        let found = contained(|| {
            let sealer = schema::unlock(&live.db, &self.agent_key)?;
            Ok((read_all(&live, &sealer)?.recovered, open_every_message(&live, &sealer)?))
        });
        live.abandon();
        found
    }

    fn txn(&mut self) -> Result<&mut WriteTransaction, Fault> {
        let txn = match self.txn.take() {
            Some(txn) => txn,
            None => begin(&self.db)?,
        };
        Ok(self.txn.insert(txn))
    }

    fn wrote(&mut self, bytes: usize) -> Result<(), Fault> {
        self.records += 1;
        self.bytes += bytes;
        if (self.records >= BATCH_RECORDS || self.bytes >= BATCH_BYTES)
            && let Some(txn) = self.txn.take()
        {
            txn.commit()?;
            (self.records, self.bytes) = (0, 0);
        }
        Ok(())
    }
}

fn open_every_message(live: &Live, sealer: &Sealer) -> Result<Vec<u64>, Fault> {
    let mut seqs = Vec::new();
    for record in live.db.begin_read()?.open_table(OUTBOX)?.iter()? {
        let (key, sealed) = record?;
        let (kind, seq) = key.value();
        let opened = MessageKind::from_u8(kind)
            .is_some_and(|kind| sealer.open("outbox", &outbox_place(kind, seq), sealed.value()).is_ok());
        if !opened {
            return Err(Fault::Io(format!(
                "message {seq} does not read back from the new file: the disk or the memory alters what is written"
            )));
        }
        seqs.push(seq);
    }
    seqs.sort_unstable();
    Ok(seqs)
}
