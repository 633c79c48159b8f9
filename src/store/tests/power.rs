//! Power cuts: whatever the disk had not synced is lost, torn or there. What was acknowledged is there,
//! the file opens, and no transaction is there in part.
//!
//! `POWER_CUTS=2000 cargo test --lib power` is the long form: so many cuts at random moments, beside
//! those at every sync.

use super::sim_disk::{Dice, Image, Op, Platter, SimDisk};
use super::*;
use crate::store::disk::Access;
use crate::store::live::begin;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Cuts at random moments in `make test`.
const RANDOM_CUTS: usize = 150;

/// What the store must hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    outbox: BTreeMap<u64, OutboxRecord>,
    runs: BTreeMap<String, RunRecord>,
    config: Option<(u64, Bytes)>,
    session: Option<String>,
    reserved: u64,
    quarantined: u64,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(record) => drop(self.outbox.insert(record.seq, record.clone())),
            Change::Remove(seqs) => self.outbox.retain(|seq, _| !seqs.contains(seq)),
            Change::PutRun(record) => {
                drop(self.runs.insert(record.order.run_id.as_str().into(), (**record).clone()));
            }
            Change::ForgetRun(id) => drop(self.runs.remove(id.as_str())),
            Change::PutConfig { version, config } => self.config = Some((*version, config.clone())),
            Change::PutSession(session) => self.session = Some(session.clone()),
            Change::SetAside(_) | Change::PutDropped(_) => panic!("the script has none"),
            Change::ReserveSeq(seq) => self.reserved = self.reserved.max(*seq),
        }
    }

    fn in_short(&self) -> String {
        let seqs: Vec<_> = self.outbox.keys().collect();
        let runs: Vec<_> = self.runs.values().map(|run| (&run.order.run_id, &run.phase)).collect();
        let config = self.config.as_ref().map(|(version, _)| version);
        let Self { session, reserved, quarantined, .. } = self;
        format!("{seqs:?} {runs:?} {config:?} {session:?} {reserved} {quarantined}")
    }

    /// What is in a store that was just opened.
    fn of(store: &mut Store, recovered: Recovered) -> Self {
        let page = read_outbox(store);
        let kept = |live: &mut live::Live| {
            live.db.begin_read()?.open_table(QUARANTINE)?.len().map_err(fault::Fault::from)
        };
        Self {
            outbox: page.records.into_iter().map(|record| (record.seq, record)).collect(),
            runs: recovered.runs.into_iter().map(|run| (run.order.run_id.as_str().to_owned(), run)).collect(),
            config: recovered.config,
            session: recovered.session_id,
            reserved: recovered.next_seq,
            quarantined: store.work(|live, _| kept(live)).unwrap(),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    /// A record that does not open any more, met by the next reading.
    Spoil(u64),
    Compact,
    Reopen,
}

fn big(seq: u64, kind: MessageKind, bytes: usize) -> Change {
    let envelope = (0..bytes).map(|at| (at as u64 * 31 + seq) as u8).collect::<Vec<_>>().into();
    Change::Append(OutboxRecord { seq, kind, envelope })
}

/// A life of an agent in short: everything that writes happens, the file grows and shrinks.
fn script() -> Vec<Step> {
    use MessageKind::{HealthResult, Log, Run};
    let mut steps = vec![
        Step::Commit(vec![Change::ReserveSeq(1_000)]),
        Step::Commit(vec![Change::PutConfig { version: 1, config: vec![7; 3_000].into() }]),
    ];
    for seq in 1..=8 {
        let kind = [Log, HealthResult, Run][seq as usize % 3];
        steps.push(Step::Commit(vec![big(seq, kind, 100 * seq as usize), append(seq + 100, Run)]));
    }
    steps.push(Step::Commit(vec![Change::PutRun(Box::new(run("a", 1, RunPhase::Accepted)))]));
    steps.push(Step::Commit(vec![Change::PutRun(Box::new(run(
        "a",
        1,
        RunPhase::Started { at_ms: 2, outcome: None },
    )))]));
    // The end of a run and its result are one transaction.
    steps.push(Step::Commit(vec![append(200, Run), finished("a", 3)]));
    steps.push(Step::Spoil(3));
    steps.push(Step::Reopen);
    // A queue that fills, evicts, drains and is compacted.
    for burst in 0..6 {
        let from = 300 + burst * 20;
        steps.push(Step::Commit((from..from + 20).map(|seq| big(seq, Log, 9_000)).collect()));
    }
    steps.push(Step::Commit(vec![Change::Remove((300..320).collect()), append(500, Run)]));
    steps.push(Step::Commit(vec![Change::Remove((330..419).collect())]));
    steps.push(Step::Compact);
    steps.push(Step::Commit(vec![append(501, HealthResult), Change::PutSession("s".into())]));
    steps.push(Step::Commit(vec![Change::ReserveSeq(2_000)]));
    steps.push(Step::Reopen);
    steps.push(Step::Commit(vec![append(502, Run), Change::Remove(vec![500])]));
    steps.push(Step::Commit(vec![Change::ForgetRun("a".into())]));
    steps
}

/// What was done, and after which operation of the disk each step was answered.
struct Told {
    ops: Vec<Op>,
    /// Operations before the answer, and what must be there from then on.
    answers: Vec<(usize, Model)>,
}

fn dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open_sim(disk: &SimDisk, dir: &Path) -> Result<(Store, Recovered), StoreError> {
    Store::open_on(Arc::new(disk.clone()), dir, &key(), Options::default(), Access::Write)
}

fn spoil(store: &mut Store, seq: u64) -> Result<(), StoreError> {
    let page = store.read_outbox(None, 0, usize::MAX, usize::MAX)?;
    let Some(kind) = page.records.iter().find(|record| record.seq == seq).map(|record| record.kind) else {
        return Ok(()); // It was spoiled and met before.
    };
    store.work(|live, _| {
        let txn = begin(&live.db)?;
        txn.open_table(OUTBOX)?.insert((kind as u8, seq), [0xee; 60].as_slice())?;
        Ok(txn.commit()?)
    })?;
    store.read_outbox(None, 0, usize::MAX, usize::MAX).map(drop)
}

/// Works the script off. A commit that fails is offered again, as the queue would.
fn work_off(disk: &SimDisk, dir: &Path, steps: &[Step]) -> Told {
    let mut model = Model { reserved: 1, ..Model::default() };
    let (mut store, _) = open_sim(disk, dir).unwrap_or_else(|_| open_sim(disk, dir).unwrap());
    let mut answers = vec![(disk.len(), model.clone())];
    for step in steps {
        let mut done = match step {
            Step::Commit(changes) => {
                changes.iter().for_each(|change| model.apply(change));
                store.commit(changes)
            }
            Step::Spoil(seq) => {
                model.outbox.remove(seq);
                model.quarantined += 1;
                spoil(&mut store, *seq)
            }
            Step::Compact => store.compact().map(drop),
            Step::Reopen => {
                drop(store);
                store = open_sim(disk, dir).unwrap_or_else(|_| open_sim(disk, dir).unwrap()).0;
                Ok(())
            }
        };
        if done.is_err() {
            done = match step {
                Step::Commit(changes) => store.commit(changes),
                Step::Spoil(seq) => spoil(&mut store, *seq),
                Step::Compact | Step::Reopen => Ok(()),
            };
        }
        done.unwrap();
        answers.push((disk.len(), model.clone()));
    }
    Told { ops: disk.ops(), answers }
}

impl Told {
    /// What may be there when the power is cut after so many operations: what was answered by then, or
    /// the step after it as a whole.
    fn allowed(&self, ops: usize) -> Vec<&Model> {
        let answered = self.answers.iter().rposition(|(at, _)| *at <= ops);
        let first = answered.unwrap_or(0);
        self.answers[first..].iter().take(2).map(|(_, model)| model).collect()
    }
}

/// Opens what is left, twice cut again on the way, and holds it against what is allowed.
fn examine(image: Image, allowed: &[&Model], dir: &Path, dice: &mut Dice, what: &str) {
    let mut image = image;
    for again in 0..2 {
        let disk = SimDisk::of(image.clone());
        let (mut store, recovered) =
            open_sim(&disk, dir).unwrap_or_else(|error| panic!("{what}, opening {again}: {error}"));
        let found = Model::of(&mut store, recovered);
        assert!(
            allowed.contains(&&found),
            "{what}, opening {again}: {}\nallowed: {}",
            found.in_short(),
            allowed.iter().map(|model| model.in_short()).collect::<Vec<_>>().join("\nor ")
        );
        store.commit(&[append(9_999, MessageKind::Run)]).unwrap();
        let committed = disk.len();
        drop(store);
        let ops = disk.ops();
        // After its answer, nothing of a commit can be lost.
        let mut platter = Platter::of(image.clone());
        ops[..committed].iter().for_each(|op| platter.take(op));
        let (mut store, _) = open_sim(&SimDisk::of(platter.cut(dice)), dir)
            .unwrap_or_else(|error| panic!("{what}, after a commit: {error}"));
        assert!(read_outbox(&mut store).records.iter().any(|record| record.seq == 9_999), "{what}");
        drop(store);
        // And the power fails once more while the file is opened, before anything new is committed.
        let opening = ops.iter().position(|op| op.is_sync()).unwrap_or(0);
        let mut platter = Platter::of(image);
        ops[..dice.roll(opening as u64 + 1) as usize].iter().for_each(|op| platter.take(op));
        image = platter.cut(dice);
    }
}

fn cuts() -> usize {
    std::env::var("POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(RANDOM_CUTS)
}

#[test]
fn a_power_cut_at_any_sync_or_any_other_moment_loses_nothing_and_shows_no_half() {
    let dir = dir();
    let disk = SimDisk::default();
    let told = work_off(&disk, dir.path(), &script());
    let syncs: Vec<usize> =
        told.ops.iter().enumerate().filter(|(_, op)| op.is_sync()).map(|(at, _)| at).collect();
    assert!(syncs.len() > 60, "only {} syncs", syncs.len());
    // Before each sync, in it (which loses the same), and after it.
    let mut moments: Vec<usize> = syncs.iter().flat_map(|at| [*at, *at, at + 1]).collect();
    let mut dice = Dice(1);
    moments.extend((0..cuts()).map(|_| dice.roll(told.ops.len() as u64 + 1) as usize));
    moments.sort_unstable();
    let mut platter = Platter::default();
    let mut taken = 0;
    for moment in &moments {
        told.ops[taken..*moment].iter().for_each(|op| platter.take(op));
        taken = *moment;
        let what = format!("cut after {moment} of {} operations", told.ops.len());
        examine(platter.cut(&mut dice), &told.allowed(*moment), dir.path(), &mut dice, &what);
    }
    println!("{} cuts, {} of them at {} syncs", moments.len(), 3 * syncs.len(), syncs.len());
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_that_a_power_cut_can_take() {
    let dir = dir();
    let steps = script();
    let whole = SimDisk::default();
    let whole = work_off(&whole, dir.path(), &steps);
    let syncs = whole.ops.iter().filter(|op| matches!(op, Op::Sync { .. })).count();
    let mut dice = Dice(2);
    for number in 0..syncs {
        let disk = SimDisk::default();
        disk.fail_sync(number);
        let told = work_off(&disk, dir.path(), &steps);
        assert!(told.ops.iter().any(|op| matches!(op, Op::FailedSync { .. })), "{number} did not fail");
        let mut platter = Platter::default();
        told.ops.iter().for_each(|op| platter.take(op));
        let (_, last) = told.answers.last().unwrap();
        examine(platter.cut(&mut dice), &[last], dir.path(), &mut dice, &format!("failed sync {number}"));
    }
}
