//! What the steps do, to the real thing and to the model.

use super::Step;
use super::look::told_by;
use crate::bench::{Bench, Wire, crashed_copy, health, log, result_of, settle};
use backupy_agent::actors::messages::{Acked, BarrierPassed, LinkLost, Quit, Submit, Submitted};
use backupy_agent::model::MessageKind;
use backupy_agent::store::Options;
use backupy_agent::wire::{Payload, v1};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::sleep;

/// Acks that come one by one, each after what the one before it did; more of them come at once, as a server
/// gives them after a commit of its own.
const ONE_BY_ONE: usize = 20;

fn durable(kind: u8, number: usize) -> Payload {
    let name = number.to_string();
    match kind {
        0 => log(&name),
        1 => health(&name),
        _ => result_of(&name),
    }
}

fn progress() -> Payload {
    let status = v1::JobStatus::Running.into();
    Payload::JobUpdate(v1::JobUpdate { run_id: "goes on".into(), status, ..Default::default() })
}

fn kind_of(number: u8) -> MessageKind {
    match number {
        0 => MessageKind::Log,
        1 => MessageKind::HealthResult,
        _ => MessageKind::Run,
    }
}

pub(super) struct World {
    pub(super) bench: Bench,
    pub(super) max_bytes: u64,
    pub(super) wire: Option<Wire>,
    pub(super) acking: bool,
    pub(super) generation: u64,
    /// Accepted and not confirmed, refused or evicted.
    pub(super) waiting: BTreeMap<u64, MessageKind>,
    pub(super) highest: u64,
    /// Given to the present link and not confirmed, oldest first.
    pub(super) in_flight: BTreeSet<u64>,
    /// How many of the link's envelopes were looked at.
    pub(super) looked: usize,
    pub(super) evicted: u64,
    /// In a LogEvent that is on disk, or was.
    pub(super) told: u64,
    /// What was ever on a wire under a durable seq.
    pub(super) seen: BTreeMap<u64, Bytes>,
}

impl World {
    pub(super) async fn new(max_bytes: u64) -> Self {
        tokio::time::pause();
        // What a sync promises is not tested here, and hundreds of cases need not wait for a disk.
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            bench: Bench::in_dir(memory.unwrap(), max_bytes).await,
            max_bytes,
            wire: None,
            acking: false,
            generation: 0,
            waiting: BTreeMap::new(),
            highest: 0,
            in_flight: BTreeSet::new(),
            looked: 0,
            evicted: 0,
            told: 0,
            seen: BTreeMap::new(),
        }
    }

    pub(super) async fn step(&mut self, step: Step) {
        match step {
            Step::Submit(kind, n) => self.submit(kind, n).await,
            Step::Heartbeat => {
                let beat = Payload::Heartbeat(v1::Heartbeat::default());
                assert_eq!(self.bench.submit(beat).await.is_ok(), self.wire.is_some());
            }
            Step::Progress => assert_eq!(self.bench.submit(progress()).await, Ok(Submitted::InSlot)),
            Step::LinkUp(acking) => self.link_up(acking),
            Step::LinkLost => {
                self.bench.queue.send(LinkLost { generation: self.generation }).await.unwrap();
                self.no_link();
            }
            Step::Confirm(n, newest) => self.confirm(n, newest).await,
            Step::Refuse(n) => self.refuse(n).await,
            Step::Nonsense => self.nonsense().await,
            Step::Crash(n) => self.crash(n).await,
            Step::Reopen => self.reopen().await,
            Step::NewStore => {
                self.bench.store.send(Quit).await.unwrap();
                let (store, _) = crate::bench::start(self.bench.dir.path(), Options::default());
                self.bench.queue.send(crate::bench::neighbours(&store)).await.unwrap();
                self.bench.store = store;
            }
            Step::Wait(seconds) => sleep(Duration::from_secs(seconds)).await,
        }
        settle().await;
        self.look().await;
    }

    async fn submit(&mut self, kind: u8, n: usize) {
        let queue = &self.bench.queue;
        let sent = (0..n).map(|number| queue.send(Submit::new(durable(kind, number))));
        for answer in join_all(sent).await {
            match answer.unwrap() {
                Ok(Submitted::OnDisk(seq)) => self.accept(seq, kind_of(kind)),
                // A queue full of what is never evicted.
                Err(_) if self.max_bytes != u64::MAX => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn accept(&mut self, seq: u64, kind: MessageKind) {
        assert!(seq > self.highest, "{seq} after {}", self.highest);
        self.highest = seq;
        self.waiting.insert(seq, kind);
    }

    fn link_up(&mut self, acking: bool) {
        self.no_link();
        self.generation += 1;
        self.acking = acking;
        let bench = &self.bench;
        self.wire =
            Some(if acking { bench.acking_link(self.generation) } else { bench.link_up(self.generation) });
    }

    fn no_link(&mut self) {
        self.wire = None;
        self.in_flight.clear();
        self.looked = 0;
    }

    async fn confirm(&mut self, n: usize, newest: bool) {
        let Some(wire) = &self.wire else { return };
        let confirmed: Vec<u64> = if self.acking {
            let some = self.in_flight.iter().copied();
            let some: Vec<_> = if newest { some.rev().take(n).collect() } else { some.take(n).collect() };
            if some.len() > ONE_BY_ONE {
                for seq in some.iter().copied() {
                    let acked = Acked { generation: wire.generation, seq, refused: None };
                    self.bench.queue.do_send(acked);
                }
                settle().await;
            } else {
                self.bench.ack(wire, some.iter().copied(), None).await;
            }
            some
        } else {
            // A barrier stands right behind the last durable message of its part.
            let told = wire.told();
            let barriers = wire.barriers();
            let Some(token) = barriers.iter().rev().nth(if newest { 0 } else { n % 4 }).copied() else {
                return;
            };
            let part = told.iter().find(|part| part.proof.token() == Some(token)).unwrap();
            let last = part.envelopes.last().unwrap().seq;
            self.bench.pass_one(wire, token).await;
            self.in_flight.range(..=last).copied().collect()
        };
        for seq in confirmed {
            self.in_flight.remove(&seq);
            self.waiting.remove(&seq);
        }
    }

    async fn refuse(&mut self, n: usize) {
        let seq = self.in_flight.iter().nth(n).copied();
        let (Some(wire), Some(seq), true) = (&self.wire, seq, self.acking) else { return };
        self.bench.ack(wire, [seq], Some("never")).await;
        self.in_flight.remove(&seq);
        self.waiting.remove(&seq);
    }

    async fn nonsense(&mut self) {
        for token in [0, 1, u64::MAX] {
            let generation = self.generation;
            self.bench.queue.send(BarrierPassed { generation, token }).await.unwrap();
        }
        let Some(wire) = &self.wire else { return };
        let known = self.seen.keys().copied().filter(|seq| !self.in_flight.contains(seq)).take(5);
        let never_sent = [0, self.highest + 1, u64::MAX];
        self.bench.ack(wire, known.chain(never_sent).collect::<Vec<_>>(), None).await;
    }

    async fn crash(&mut self, n: usize) {
        let queue = self.bench.queue.clone();
        let mut sent: Vec<_> =
            (0..n).map(|number| Box::pin(queue.send(Submit::new(durable(2, number))))).collect();
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        let answered: Vec<_> = sent.iter_mut().filter_map(|answer| answer.as_mut().now_or_never()).collect();
        let copy = crashed_copy(self.bench.dir.path());
        self.bench.queue.send(Quit).await.unwrap();
        self.bench.store.send(Quit).await.unwrap();
        for answer in answered {
            if let Ok(Submitted::OnDisk(seq)) = answer.unwrap() {
                self.accept(seq, MessageKind::Run);
            }
        }
        self.bench = Bench::in_dir(copy, self.max_bytes).await;
        self.no_link();
        // What was not answered may be there or not.
        for record in self.on_disk().0 {
            if record.seq > self.highest && told_by(&record.envelope).is_none() {
                self.accept(record.seq, record.kind);
            }
        }
    }

    async fn reopen(&mut self) {
        self.bench.queue.send(Quit).await.unwrap();
        self.bench.store.send(Quit).await.unwrap();
        let copy = crashed_copy(self.bench.dir.path());
        self.bench = Bench::in_dir(copy, self.max_bytes).await;
        self.no_link();
    }

    pub(super) async fn arrive(mut self, acking: bool) {
        // The link lets the queue tell what it evicted, which can need room itself.
        self.step(Step::LinkUp(acking)).await;
        let expected: Vec<_> = self.waiting.keys().copied().collect();
        while !self.waiting.is_empty() {
            self.step(Step::Confirm(100, !acking)).await;
        }
        let arrived: Vec<_> = self.seen.keys().copied().collect();
        assert!(expected.iter().all(|seq| arrived.contains(seq)));
    }
}
