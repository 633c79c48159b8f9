//! Everything of an open state file that still reads, carried into a new one: each table from its begin
//! up to what is damaged, and from its end back to it.

use super::MAX_QUARANTINED;
use super::fault::{Fault, contained};
use super::live::Live;
use super::quarantine::{self, Place, Quarantined, Why};
use super::read::open_run;
use super::renewal::NewFile;
use super::schema::{META, OUTBOX, RUNS, meta, outbox_place};
use super::seal::Sealer;
use crate::model::{MessageKind, RunRecord, unix_ms};
use redb::{Key, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::collections::BTreeMap;

/// What cannot be read of a table: the keys between the two, which both were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap<K> {
    pub(super) after: Option<K>,
    pub(super) before: Option<K>,
}

impl<K: Ord> Gap<K> {
    /// Nothing of the table was read.
    pub(super) fn all() -> Self {
        Self { after: None, before: None }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.after.as_ref().is_none_or(|after| after < key)
            && self.before.as_ref().is_none_or(|before| key < before)
    }
}

/// How far a table was read.
#[derive(Debug)]
pub(super) struct Reach<K> {
    /// What was not.
    pub(super) gap: Option<Gap<K>>,
    /// Records that the table says it has; None where that is not known.
    pub(super) expected: Option<u64>,
    /// Records that were read, usable or not.
    pub(super) read: u64,
}

impl<K: Ord> Reach<K> {
    /// Nothing is known of it.
    pub(super) fn nothing() -> Self {
        Self { gap: Some(Gap::all()), expected: None, read: 0 }
    }
}

/// What the tables gave.
#[derive(Debug)]
pub(super) struct Swept {
    pub(super) outbox: Reach<(u8, u64)>,
    pub(super) runs: Reach<String>,
    /// Values of `meta` that opened.
    pub(super) meta: BTreeMap<&'static str, Vec<u8>>,
    /// The table itself, or what a name stands for, could not be read.
    pub(super) meta_damaged: bool,
    pub(super) found_runs: BTreeMap<String, RunRecord>,
    /// Read, and of no use as they are.
    pub(super) broken: Vec<Quarantined>,
    /// More of them than are kept.
    pub(super) broken_beyond: u64,
    pub(super) highest_seq: u64,
    pub(super) quarantined: u64,
    pub(super) quarantine_damaged: bool,
    /// The first thing that did not read; broken records are none.
    pub(super) cause: Option<String>,
}

impl Swept {
    /// Of a file that does not even open.
    pub(super) fn nothing(cause: String) -> Self {
        Self {
            outbox: Reach::nothing(),
            runs: Reach::nothing(),
            meta: BTreeMap::new(),
            meta_damaged: true,
            found_runs: BTreeMap::new(),
            broken: Vec::new(),
            broken_beyond: 0,
            highest_seq: 0,
            quarantined: 0,
            quarantine_damaged: true,
            cause: Some(cause),
        }
    }

    /// Every table was read to its end, and every record in it is genuine.
    pub(super) fn is_complete(&self) -> bool {
        self.outbox.gap.is_none() && self.runs.gap.is_none() && !self.meta_damaged && !self.quarantine_damaged
    }

    /// A value of `meta` is there, and does not open.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.broken.iter().any(|record| record.table == "meta" && record.key == name.as_bytes())
    }

    fn set_aside(&mut self, place: &Place, why: Why, value: &[u8]) {
        if self.broken.len() as u64 >= MAX_QUARANTINED {
            self.broken_beyond += 1;
            return;
        }
        let (table, key) = place.name();
        let value = value.to_vec();
        self.broken.push(Quarantined { table: table.into(), key, at_ms: Some(unix_ms()), why, value });
    }

    fn note(&mut self, table: &str, fault: Fault) {
        self.cause.get_or_insert(format!("{table}: {}", fault.text()));
    }
}

/// Carries what reads into the new file: messages and quarantine at once, the rest into the answer.
///
/// # Errors
/// Of the new file alone. What is wrong with the old one stands in the answer.
pub(super) fn sweep(live: &Live, sealer: &Sealer, new: &mut NewFile) -> Result<Swept, Fault> {
    let mut swept = Swept {
        cause: None,
        meta_damaged: false,
        quarantine_damaged: false,
        ..Swept::nothing(String::new())
    };
    sweep_outbox(live, sealer, new, &mut swept)?;
    sweep_runs(live, sealer, &mut swept)?;
    for name in meta::SEALED {
        let value = contained(|| {
            let table = live.db.begin_read()?.open_table(META)?;
            Ok(table.get(name)?.map(|sealed| sealed.value().to_vec()))
        });
        match value {
            Ok(None) => {}
            Ok(Some(sealed)) => match sealer.open("meta", name.as_bytes(), &sealed) {
                Ok(content) => drop(swept.meta.insert(name, content)),
                Err(_) => swept.set_aside(&Place::Meta(name), Why::DoesNotOpen, &sealed),
            },
            Err(fault) => {
                swept.meta_damaged = true;
                swept.note("meta", fault);
            }
        }
    }
    let mut refused = None;
    let read = contained(|| {
        quarantine::each(&live.db.begin_read()?, |record| {
            swept.quarantined += 1;
            new.put_quarantined(record, sealer).map_err(|fault| {
                refused = Some(fault);
                Fault::Refused(String::new())
            })
        })
    });
    if let Some(fault) = refused {
        return Err(fault);
    }
    if let Err(fault) = read {
        swept.quarantine_damaged = true;
        swept.note("quarantine", fault);
    }
    Ok(swept)
}

fn sweep_outbox(live: &Live, sealer: &Sealer, new: &mut NewFile, swept: &mut Swept) -> Result<(), Fault> {
    match contained(|| Ok(live.db.begin_read()?.open_table(OUTBOX)?)) {
        Ok(table) => {
            let (reach, fault) = walk(&table, |key| key, &mut Outbox { sealer, new, swept })?;
            swept.outbox = reach;
            fault.into_iter().for_each(|fault| swept.note("outbox", fault));
        }
        Err(fault) => swept.note("outbox", fault),
    }
    Ok(())
}

fn sweep_runs(live: &Live, sealer: &Sealer, swept: &mut Swept) -> Result<(), Fault> {
    match contained(|| Ok(live.db.begin_read()?.open_table(RUNS)?)) {
        Ok(table) => {
            let (reach, fault) = walk(&table, str::to_owned, &mut Runs { sealer, swept })?;
            swept.runs = reach;
            fault.into_iter().for_each(|fault| swept.note("runs", fault));
        }
        Err(fault) => swept.note("runs", fault),
    }
    Ok(())
}

/// What becomes of the records of a table.
trait Visit<K> {
    type Content;
    /// Only a genuine record has content.
    fn open(&self, key: &K, sealed: &[u8]) -> Result<Self::Content, Why>;
    /// # Errors
    /// Of the new file.
    fn take(&mut self, key: &K, content: Self::Content) -> Result<(), Fault>;
    fn set_aside(&mut self, key: &K, why: Why, sealed: &[u8]);
}

struct Outbox<'a> {
    sealer: &'a Sealer,
    new: &'a mut NewFile,
    swept: &'a mut Swept,
}

impl Visit<(u8, u64)> for Outbox<'_> {
    type Content = (MessageKind, Vec<u8>);

    fn open(&self, (number, seq): &(u8, u64), sealed: &[u8]) -> Result<Self::Content, Why> {
        let kind = MessageKind::from_u8(*number).ok_or(Why::UnknownKind)?;
        let envelope = self.sealer.open("outbox", &outbox_place(kind, *seq), sealed);
        envelope.map(|envelope| (kind, envelope)).map_err(|_| Why::DoesNotOpen)
    }

    fn take(&mut self, (_, seq): &(u8, u64), (kind, envelope): Self::Content) -> Result<(), Fault> {
        self.swept.highest_seq = self.swept.highest_seq.max(*seq);
        self.new.put_message(kind, *seq, &envelope).map(drop)
    }

    fn set_aside(&mut self, (number, seq): &(u8, u64), why: Why, sealed: &[u8]) {
        self.swept.set_aside(&Place::Outbox(*number, *seq), why, sealed);
    }
}

struct Runs<'a> {
    sealer: &'a Sealer,
    swept: &'a mut Swept,
}

impl Visit<String> for Runs<'_> {
    type Content = RunRecord;

    fn open(&self, run_id: &String, sealed: &[u8]) -> Result<Self::Content, Why> {
        open_run(self.sealer, run_id, sealed)
    }

    fn take(&mut self, run_id: &String, record: Self::Content) -> Result<(), Fault> {
        self.swept.found_runs.insert(run_id.clone(), record);
        Ok(())
    }

    fn set_aside(&mut self, run_id: &String, why: Why, sealed: &[u8]) {
        self.swept.set_aside(&Place::Run(run_id.clone()), why, sealed);
    }
}

/// Shows every record to `visit`: forward to the end or to what does not read, then backward to that. Only
/// genuine records bound the gap: of any other even the key may be damaged.
///
/// # Errors
/// Of the new file.
fn walk<K: Key + 'static, O: Ord + Clone>(
    table: &ReadOnlyTable<K, &'static [u8]>,
    own: impl Fn(K::SelfType<'_>) -> O,
    visit: &mut impl Visit<O>,
) -> Result<(Reach<O>, Option<Fault>), Fault> {
    let expected = contained(|| Ok(table.len()?)).ok();
    let mut read = 0;
    let mut refused = None;
    let (mut last, mut gap) = (None::<O>, None::<Gap<O>>);
    let forward = contained(|| {
        for record in table.iter()? {
            let (key, value) = record?;
            let key = own(key.value());
            read += 1;
            match visit.open(&key, value.value()) {
                Ok(content) => {
                    // A genuine record at another's place: the tree leads to a wrong page.
                    if last.as_ref().is_some_and(|last| *last >= key) {
                        return Err(Fault::Damaged("keys are out of order".into()));
                    }
                    if let Err(fault) = visit.take(&key, content) {
                        refused = Some(fault);
                        return Ok(());
                    }
                    if let Some(Gap { before: before @ None, .. }) = &mut gap {
                        *before = Some(key.clone());
                    }
                    last = Some(key);
                }
                Err(why) => {
                    visit.set_aside(&key, why, value.value());
                    let after = gap.take().map_or_else(|| last.clone(), |gap| gap.after);
                    gap = Some(Gap { after, before: None });
                }
            }
        }
        Ok(())
    });
    if let Some(fault) = refused {
        return Err(fault);
    }
    let fault = match forward {
        Ok(()) if expected.is_none_or(|expected| expected == read) => {
            return Ok((Reach { gap, expected, read }, None));
        }
        Ok(()) => {
            // Some page has lost entries, or has too many, and nobody knows which.
            let cause = format!("{read} records are there of {}", expected.unwrap_or(read));
            return Ok((Reach { gap: Some(Gap::all()), expected, read }, Some(Fault::Damaged(cause))));
        }
        Err(fault) => fault,
    };
    let after = gap.map_or_else(|| last.clone(), |gap| gap.after);
    let before = walk_back(table, own, visit, last.as_ref(), &mut read)?;
    Ok((Reach { gap: Some(Gap { after, before }), expected, read }, Some(fault)))
}

/// From the end back to what does not read or is not genuine: the other side of the gap.
fn walk_back<K: Key + 'static, O: Ord + Clone>(
    table: &ReadOnlyTable<K, &'static [u8]>,
    own: impl Fn(K::SelfType<'_>) -> O,
    visit: &mut impl Visit<O>,
    last: Option<&O>,
    read: &mut u64,
) -> Result<Option<O>, Fault> {
    let mut before = None::<O>;
    let mut refused = None;
    // What ends it is known from the way forward.
    let _ = contained(|| {
        for record in table.iter()?.rev() {
            let (key, value) = record?;
            let key = own(key.value());
            let met =
                last.is_some_and(|last| key <= *last) || before.as_ref().is_some_and(|before| *before <= key);
            let Ok(content) = visit.open(&key, value.value()) else { break };
            if met {
                break;
            }
            refused = visit.take(&key, content).err();
            if refused.is_some() {
                break;
            }
            before = Some(key);
            *read += 1;
        }
        Ok(())
    });
    refused.map_or(Ok(before), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_holds_what_lies_between_its_ends() {
        assert!(Gap::<u8>::all().contains(&0));
        let gap = Gap { after: Some(3), before: Some(6) };
        assert_eq!([3, 4, 5, 6].map(|key| gap.contains(&key)), [false, true, true, false]);
        assert!(Gap { after: Some(3), before: None }.contains(&4));
    }
}
