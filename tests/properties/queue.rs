//! Queue and StateStore against a plain model: random messages, links, barriers and crashes.
//!
//! The model is a list of what was accepted and not confirmed. Whatever happens: a seq is never given
//! twice, a link is given what waits in the order of seq, byte for byte as before, at most a window at a
//! time, the disk holds exactly what the model holds, and in the end everything arrives.

use crate::bench::{Bench, Wire, crashed_copy, health, log, result_of, settle};
use backupy_agent::actors::messages::{BarrierPassed, GetQueueStatus, LinkLost, Quit, Submit, Submitted};
use backupy_agent::actors::queue::WINDOW_MESSAGES;
use backupy_agent::wire::{Payload, v1};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One step.
#[derive(Debug, Clone)]
enum Step {
    /// So many durable messages at once.
    Submit(u8, usize),
    Heartbeat,
    Progress,
    LinkUp,
    LinkLost,
    /// The pong of the newest barrier, if the link asked for one.
    Pass,
    /// A pong that means nothing.
    PassWrong,
    /// The process is killed while so many messages are on their way to the disk.
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u8, prop_oneof![1..5_usize, 100..300_usize]).prop_map(|(kind, n)| Step::Submit(kind, n)),
        2 => Just(Step::Heartbeat),
        2 => Just(Step::Progress),
        3 => Just(Step::LinkUp),
        1 => Just(Step::LinkLost),
        5 => Just(Step::Pass),
        1 => Just(Step::PassWrong),
        1 => (0..20_usize).prop_map(Step::Crash),
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

struct World {
    bench: Bench,
    wire: Option<Wire>,
    generation: u64,
    /// Accepted and not confirmed.
    waiting: BTreeSet<u64>,
    highest: u64,
    /// What was ever on a wire under a durable seq.
    seen: BTreeMap<u64, Bytes>,
}

impl World {
    async fn new() -> Self {
        tokio::time::pause();
        // What a sync promises is not tested here, and hundreds of cases need not wait for a disk.
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            bench: Bench::in_dir(memory.unwrap(), u64::MAX).await,
            wire: None,
            generation: 0,
            waiting: BTreeSet::new(),
            highest: 0,
            seen: BTreeMap::new(),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Submit(kind, n) => {
                let queue = &self.bench.queue;
                let sent = (0..n).map(|number| queue.send(Submit::new(durable(kind, number))));
                for answer in join_all(sent).await {
                    self.accept(answer.unwrap().unwrap());
                }
            }
            Step::Heartbeat => {
                let beat = Payload::Heartbeat(v1::Heartbeat::default());
                assert_eq!(self.bench.submit(beat).await.is_ok(), self.wire.is_some());
            }
            Step::Progress => assert_eq!(self.bench.submit(progress()).await, Ok(Submitted::InSlot)),
            Step::LinkUp => {
                self.generation += 1;
                self.wire = Some(self.bench.link_up(self.generation));
            }
            Step::LinkLost => {
                self.bench.queue.send(LinkLost { generation: self.generation }).await.unwrap();
                self.wire = None;
            }
            Step::Pass => self.pass().await,
            Step::PassWrong => {
                let barriers = self.wire.as_ref().map(Wire::barriers).unwrap_or_default();
                let wrong = barriers.iter().rev().nth(1).copied().unwrap_or(1);
                let passed = BarrierPassed { generation: self.generation, token: wrong };
                self.bench.queue.send(passed).await.unwrap();
            }
            Step::Crash(n) => self.crash(n).await,
        }
        settle().await;
        self.look().await;
    }

    fn accept(&mut self, submitted: Submitted) {
        let Submitted::OnDisk(seq) = submitted else { panic!("{submitted:?}") };
        assert!(seq > self.highest, "{seq} after {}", self.highest);
        self.highest = seq;
        self.waiting.insert(seq);
    }

    /// What the current link was given of the durable messages.
    fn given(&self) -> Vec<(u64, Bytes)> {
        let told = self.wire.as_ref().map(Wire::told).unwrap_or_default();
        let windows = told.into_iter().filter(|part| part.barrier.is_some());
        windows.flat_map(|part| part.envelopes).map(|out| (out.seq, out.envelope)).collect()
    }

    async fn pass(&mut self) {
        let Some(wire) = &self.wire else { return };
        // The messages here are small: a window is one part, and the part with the barrier is a window.
        let last = wire.told().into_iter().rfind(|part| part.barrier.is_some());
        self.bench.pass(wire).await;
        for out in last.map(|part| part.envelopes).unwrap_or_default() {
            self.waiting.remove(&out.seq);
        }
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
            self.accept(answer.unwrap().unwrap());
        }
        self.bench = Bench::in_dir(copy, u64::MAX).await;
        self.wire = None;
        // What was not answered may be there or not.
        for seq in self.bench.seqs_on_disk() {
            if seq > self.highest {
                self.accept(Submitted::OnDisk(seq));
            }
        }
    }

    async fn look(&mut self) {
        let given = self.given();
        assert!(given.windows(2).all(|pair| pair[0].0 < pair[1].0), "not in the order of seq");
        for (seq, envelope) in given {
            let before = self.seen.entry(seq).or_insert_with(|| envelope.clone());
            assert_eq!(*before, envelope, "{seq} is not what it was");
        }
        let status = self.bench.queue.send(GetQueueStatus).await.unwrap();
        assert!(status.in_flight <= WINDOW_MESSAGES as u64);
        assert_eq!(status.depth, self.waiting.len() as u64);
        assert_eq!(self.bench.seqs_on_disk(), self.waiting.iter().copied().collect::<Vec<_>>());
        if self.wire.is_some() {
            assert_eq!(status.in_flight > 0, !self.waiting.is_empty(), "a link that is up is used");
        }
    }

    async fn arrive(mut self) {
        let expected: Vec<_> = self.waiting.iter().copied().collect();
        self.step(Step::LinkUp).await;
        while !self.waiting.is_empty() {
            self.step(Step::Pass).await;
        }
        assert_eq!(self.given().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order_whatever_happens(steps in steps()) {
        actix::System::new().block_on(async move {
            let mut world = World::new().await;
            for step in steps {
                world.step(step).await;
            }
            world.arrive().await;
        });
    }
}
