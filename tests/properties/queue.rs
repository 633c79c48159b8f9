//! Queue and StateStore against a plain model: random messages, links, confirmations and crashes.
//!
//! The model is a list of what was accepted and not confirmed. Whatever happens: a seq is never given
//! twice; a link is given what waits in the order of seq, each once, byte for byte as before, at most a
//! window unconfirmed; what is missing on the disk was confirmed or refused by the server, or evicted, the
//! oldest of its kind first and never a run's; what was evicted is told or still to be told, to the last
//! one, over every crash; and in the end everything arrives.
//!
//! `PROPTEST_CASES=10000 cargo test --test properties queue` is the long form.

use crate::bench::{Bench, Wire, crashed_copy, health, key, log, result_of, settle};
use backupy_agent::actors::messages::{BarrierPassed, GetQueueStatus, LinkLost, Quit, Submit, Submitted};
use backupy_agent::actors::queue::WINDOW_MESSAGES;
use backupy_agent::model::MessageKind;
use backupy_agent::store::{Options, OutboxRecord, Store};
use backupy_agent::wire::{self, Payload, v1};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::sleep;

/// In CI; hundreds more find nothing new within a minute.
const CASES: u32 = 60;

/// Room for some hundred messages of the steps below, so that a step can overflow it.
const SMALL: u64 = 12_000;

/// One step.
#[derive(Debug, Clone)]
enum Step {
    /// So many durable messages of that kind at once.
    Submit(u8, usize),
    Heartbeat,
    Progress,
    /// A link, to a server that acknowledges or not.
    LinkUp(bool),
    LinkLost,
    /// The pong of one of the barriers, the newest first; of an acknowledging server, acks for a part of what
    /// is in flight, from either end.
    Confirm(usize, bool),
    /// The server refuses one for good.
    Refuse(usize),
    /// Pongs and acks that mean nothing: old, doubled, never sent.
    Nonsense,
    /// The process is killed while so many messages are on their way to the disk.
    Crash(usize),
    /// It ends in order and starts again.
    Reopen,
    /// Only the StateStore is replaced.
    NewStore,
    /// So many seconds pass: evictions are told once a minute.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..3_u8, prop_oneof![1..5_usize, 100..300_usize]).prop_map(|(kind, n)| Step::Submit(kind, n)),
        2 => Just(Step::Heartbeat),
        2 => Just(Step::Progress),
        4 => any::<bool>().prop_map(Step::LinkUp),
        1 => Just(Step::LinkLost),
        6 => (0..200_usize, any::<bool>()).prop_map(|(n, newest)| Step::Confirm(n, newest)),
        1 => (0..100_usize).prop_map(Step::Refuse),
        1 => Just(Step::Nonsense),
        1 => (0..20_usize).prop_map(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::NewStore),
        1 => (1..100_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..25)
}

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

/// How many a LogEvent of the queue's own tells of.
fn told_by(envelope: &[u8]) -> Option<u64> {
    let Some(Payload::Log(event)) = wire::decode(envelope).unwrap().payload else { return None };
    let field = |name: &str| event.fields.get(name)?.parse::<u64>().ok();
    Some(field("dropped_log_events")? + field("dropped_health_results")?)
}

struct World {
    bench: Bench,
    max_bytes: u64,
    wire: Option<Wire>,
    acking: bool,
    generation: u64,
    /// Accepted and not confirmed, refused or evicted.
    waiting: BTreeMap<u64, MessageKind>,
    highest: u64,
    /// Given to the present link and not confirmed, oldest first.
    in_flight: BTreeSet<u64>,
    /// How many of the link's envelopes were looked at.
    looked: usize,
    evicted: u64,
    /// In a LogEvent that is on disk, or was.
    told: u64,
    /// What was ever on a wire under a durable seq.
    seen: BTreeMap<u64, Bytes>,
}

impl World {
    async fn new(max_bytes: u64) -> Self {
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

    async fn step(&mut self, step: Step) {
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
            self.bench.ack(wire, some.iter().copied(), None).await;
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

    /// What a crash would leave now: the outbox, and how many evicted messages are still to be told.
    fn on_disk(&self) -> (Vec<OutboxRecord>, u64) {
        let copy = crashed_copy(self.bench.dir.path());
        let (mut store, recovered) = Store::open_read_only(copy.path(), &key()).unwrap();
        let page = store.read_outbox(None, 0, usize::MAX, usize::MAX).unwrap();
        (page.records, recovered.dropped.logs + recovered.dropped.health_results)
    }

    /// The durable messages that the present link was given since the last look.
    fn newly_given(&mut self) -> Vec<(u64, Bytes)> {
        let told = self.wire.as_ref().map(Wire::told).unwrap_or_default();
        let given = told.into_iter().flat_map(|part| part.envelopes).skip(self.looked).collect::<Vec<_>>();
        self.looked += given.len();
        let is_durable = |envelope: &Bytes| match wire::decode(envelope).unwrap().payload {
            Some(Payload::Heartbeat(_)) => false,
            Some(Payload::JobUpdate(update)) => update.run_id != "goes on",
            _ => true,
        };
        given.into_iter().map(|out| (out.seq, out.envelope)).filter(|(_, bytes)| is_durable(bytes)).collect()
    }

    async fn look(&mut self) {
        let (records, untold) = self.on_disk();
        // The queue's own events, which nobody submitted.
        for record in &records {
            if !self.waiting.contains_key(&record.seq)
                && let Some(told) = told_by(&record.envelope)
            {
                self.told += told;
                self.waiting.insert(record.seq, record.kind);
                self.highest = self.highest.max(record.seq);
            }
        }
        let there: BTreeSet<_> = records.iter().map(|record| record.seq).collect();
        assert!(there.iter().all(|seq| self.waiting.contains_key(seq)), "confirmed, and still there");
        self.look_at_evictions(&there, untold);
        self.look_at_the_link().await;
        let status = self.bench.queue.send(GetQueueStatus).await.unwrap();
        assert_eq!(status.depth, self.waiting.len() as u64);
        assert!(status.bytes <= self.max_bytes);
        assert_eq!(status.in_flight, self.in_flight.len() as u64);
        if self.wire.is_some() {
            assert_eq!(status.in_flight > 0, !self.waiting.is_empty(), "a link that is up is used");
        }
    }

    fn look_at_evictions(&mut self, there: &BTreeSet<u64>, untold: u64) {
        let gone: Vec<_> = self
            .waiting
            .iter()
            .filter(|(seq, _)| !there.contains(seq))
            .map(|(seq, kind)| (*seq, *kind))
            .collect();
        for (seq, kind) in gone {
            assert_ne!(kind, MessageKind::Run, "{seq}: a run's is never evicted");
            let oldest = self.waiting.iter().find(|(seq, other)| **other == kind && there.contains(seq));
            assert!(oldest.is_none_or(|(oldest, _)| *oldest > seq), "{seq} went before {oldest:?}");
            self.waiting.remove(&seq);
            self.in_flight.remove(&seq);
            self.evicted += 1;
        }
        assert_eq!(self.told + untold, self.evicted, "told {} and still to tell {untold}", self.told);
    }

    async fn look_at_the_link(&mut self) {
        let mut last = self.in_flight.last().copied().unwrap_or(0);
        for (seq, envelope) in self.newly_given() {
            assert!(seq > last, "{seq} after {last}");
            last = seq;
            let before = self.seen.entry(seq).or_insert_with(|| envelope.clone());
            assert_eq!(*before, envelope, "{seq} is not what it was");
            if self.waiting.contains_key(&seq) {
                self.in_flight.insert(seq);
            }
        }
        assert!(self.in_flight.len() <= WINDOW_MESSAGES);
    }

    async fn arrive(mut self, acking: bool) {
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

fn kind_of(number: u8) -> MessageKind {
    match number {
        0 => MessageKind::Log,
        1 => MessageKind::HealthResult,
        _ => MessageKind::Run,
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order_whatever_happens(
        steps in steps(),
        max_bytes in prop_oneof![Just(u64::MAX), Just(SMALL)],
        acking in any::<bool>(),
    ) {
        actix::System::new().block_on(async move {
            let mut world = World::new(max_bytes).await;
            for step in steps {
                world.step(step).await;
            }
            world.arrive(acking).await;
        });
    }
}
