//! The real StateStore, and a Queue between it and links that the test holds.

use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::{
    Acked, BarrierPassed, ChildDown, ChildName, Confirms, LinkGone, LinkUp, Proof, QueueError, Quit, Submit,
    Submitted, Transmit,
};
use backupy_agent::actors::queue::{Queue, QueueDeps, QueueNeighbours};
use backupy_agent::actors::state_store::{StateStore, StateStoreDeps, StateStoreNeighbours};
use backupy_agent::store::{Options, STATE_FILE, Store};
use backupy_agent::wire::{self, Envelope, Payload, v1};
use secrecy::SecretString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::sleep;

pub fn key() -> SecretString {
    SecretString::from("bkpy_test_0123456789abcdefghijklmnopqrstuv")
}

/// One life of a StateStore, on this thread.
pub fn start(dir: &Path, options: Options) -> (Addr<StateStore>, fake::Told<ChildDown>) {
    let (deps, ends) = deps(dir, options);
    (StateStore::new(deps).start(), ends)
}

pub fn deps(dir: &Path, options: Options) -> (StateStoreDeps, fake::Told<ChildDown>) {
    let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
    let life = Life::new(ChildName::StateStore, 1, supervisor);
    let dir = dir.to_owned();
    let opener = Box::new(move || Ok(Store::open(&dir, &key(), options)?.0));
    (StateStoreDeps { life, opener }, ends)
}

/// What a crash would leave now.
pub fn crashed_copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    std::fs::copy(dir.join(STATE_FILE), copy.path().join(STATE_FILE)).unwrap();
    copy
}

pub fn seqs_on_disk(dir: &Path) -> Vec<u64> {
    let (mut store, _) = Store::open_read_only(dir, &key()).unwrap();
    let page = store.read_outbox(None, 0, usize::MAX, usize::MAX).unwrap();
    page.records.iter().map(|record| record.seq).collect()
}

/// Until everybody on this thread has nothing to do: only then the paused clock goes on.
pub async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

pub fn log(message: &str) -> Payload {
    Payload::Log(v1::LogEvent { message: message.into(), ..v1::LogEvent::default() })
}

pub fn health(check_id: &str) -> Payload {
    Payload::HealthResult(v1::HealthCheckResult { check_id: check_id.into(), ..Default::default() })
}

pub fn result_of(run_id: &str) -> Payload {
    Payload::BackupCompleted(v1::BackupCompleted { run_id: run_id.into(), ..Default::default() })
}

pub fn text_of(envelope: &Envelope) -> String {
    match &envelope.payload {
        Some(Payload::Log(event)) => event.message.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn percent_of(envelope: &Envelope) -> Option<u32> {
    match &envelope.payload {
        Some(Payload::JobUpdate(update)) => Some(update.progress_percent),
        _ => None,
    }
}

/// What was written, in order, one word a `Transmit`.
pub fn kinds(wire: &Wire) -> Vec<&'static str> {
    let kind = |part: &Transmit| match wire::decode(&part.envelopes[0].envelope).unwrap().payload {
        Some(Payload::Heartbeat(_)) => "heartbeat",
        Some(Payload::Log(_)) => "log",
        _ => "other",
    };
    wire.told().iter().map(kind).collect()
}

pub fn queue(max_queue_bytes: u64) -> (Addr<Queue>, fake::Told<ChildDown>) {
    let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
    let life = Life::new(ChildName::Queue, 1, supervisor);
    (Queue::new(QueueDeps { life, max_queue_bytes, first_seq: 1 }).start(), ends)
}

pub fn neighbours(store: &Addr<StateStore>) -> QueueNeighbours {
    QueueNeighbours {
        commit: store.clone().recipient(),
        read: store.clone().recipient(),
        recover: store.clone().recipient(),
    }
}

/// A link as the test sees it.
pub struct Wire {
    pub generation: u64,
    told: fake::Told<Transmit>,
}

impl Wire {
    pub fn told(&self) -> Vec<Transmit> {
        self.told.lock().unwrap().clone()
    }

    pub fn envelopes(&self) -> Vec<Envelope> {
        let told = self.told();
        told.iter().flat_map(|part| &part.envelopes).map(|out| wire::decode(&out.envelope).unwrap()).collect()
    }

    /// As the envelopes carry them, which is what the transmit says too.
    pub fn seqs(&self) -> Vec<u64> {
        let seqs: Vec<_> = self.told().iter().flat_map(|part| &part.envelopes).map(|out| out.seq).collect();
        assert_eq!(seqs, self.envelopes().iter().map(|envelope| envelope.seq).collect::<Vec<_>>());
        seqs
    }

    pub fn barriers(&self) -> Vec<u64> {
        let barrier = |part: &Transmit| match part.proof {
            Proof::Barrier(token) => Some(token),
            Proof::Probe(_) | Proof::None | Proof::Acks => None,
        };
        self.told().iter().filter_map(barrier).collect()
    }

    /// Of the pings behind slots.
    pub fn probes(&self) -> Vec<u64> {
        let probe = |part: &Transmit| match part.proof {
            Proof::Probe(token) => Some(token),
            Proof::Barrier(_) | Proof::None | Proof::Acks => None,
        };
        self.told().iter().filter_map(probe).collect()
    }

    /// Of what the server is to acknowledge.
    pub fn to_be_acked(&self) -> Vec<u64> {
        let told = self.told();
        let parts = told.iter().filter(|part| part.proof == Proof::Acks);
        parts.flat_map(|part| &part.envelopes).map(|out| out.seq).collect()
    }
}

/// Lets a link answer, once a call.
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn open_once(&self) {
        self.0.add_permits(1);
    }
}

pub struct Bench {
    pub dir: TempDir,
    pub store: Addr<StateStore>,
    pub queue: Addr<Queue>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::bounded(u64::MAX).await
    }

    pub async fn bounded(max_queue_bytes: u64) -> Self {
        tokio::time::pause();
        Self::in_dir(tempfile::tempdir().unwrap(), max_queue_bytes).await
    }

    pub async fn in_dir(dir: TempDir, max_queue_bytes: u64) -> Self {
        let (store, _) = start(dir.path(), Options::default());
        let (queue, _) = queue(max_queue_bytes);
        Self::of(dir, store, queue).await
    }

    /// Over a store that was started otherwise.
    pub async fn over(dir: TempDir, store: Addr<StateStore>) -> Self {
        let (queue, _) = queue(u64::MAX);
        Self::of(dir, store, queue).await
    }

    async fn of(dir: TempDir, store: Addr<StateStore>, queue: Addr<Queue>) -> Self {
        queue.send(neighbours(&store)).await.unwrap();
        let room_changed = queue.clone().recipient();
        store.send(StateStoreNeighbours { room_changed }).await.unwrap();
        Self { dir, store, queue }
    }

    /// What the next life finds when this one is killed now.
    pub async fn crash(self, max_queue_bytes: u64) -> Self {
        let copy = crashed_copy(self.dir.path());
        self.store.send(Quit).await.unwrap();
        self.queue.send(Quit).await.unwrap();
        Self::in_dir(copy, max_queue_bytes).await
    }

    pub async fn submit(&self, payload: Payload) -> Result<Submitted, QueueError> {
        self.queue.send(Submit::new(payload)).await.unwrap()
    }

    pub async fn durable(&self, payload: Payload) -> u64 {
        match self.submit(payload).await {
            Ok(Submitted::OnDisk(seq)) => seq,
            other => panic!("{other:?}"),
        }
    }

    pub fn seqs_on_disk(&self) -> Vec<u64> {
        seqs_on_disk(crashed_copy(self.dir.path()).path())
    }

    pub fn link_with(
        &self,
        generation: u64,
        answer: impl FnMut(&Transmit) -> ResponseFuture<Result<(), LinkGone>> + 'static,
    ) -> Wire {
        self.link_as(generation, Confirms::Pongs, answer)
    }

    fn link_as(
        &self,
        generation: u64,
        confirms: Confirms,
        answer: impl FnMut(&Transmit) -> ResponseFuture<Result<(), LinkGone>> + 'static,
    ) -> Wire {
        let (link, told) = fake::slow(answer);
        let heartbeat_interval = Duration::from_secs(30);
        self.queue.do_send(LinkUp { generation, link, heartbeat_interval, confirms });
        Wire { generation, told }
    }

    /// A link to a server that acknowledges end to end.
    pub fn acking_link(&self, generation: u64) -> Wire {
        self.link_as(generation, Confirms::Acks, |_| Box::pin(async { Ok(()) }))
    }

    /// The server answers these.
    pub async fn ack(&self, wire: &Wire, seqs: impl IntoIterator<Item = u64>, refused: Option<&str>) {
        for seq in seqs {
            let refused = refused.map(str::to_owned);
            self.queue.send(Acked { generation: wire.generation, seq, refused }).await.unwrap();
        }
        settle().await;
    }

    pub fn link_up(&self, generation: u64) -> Wire {
        self.link_with(generation, |_| Box::pin(async { Ok(()) }))
    }

    pub fn gated_link(&self, generation: u64) -> (Wire, Gate) {
        let gate = Arc::new(Semaphore::new(0));
        let passes = Arc::clone(&gate);
        let wire = self.link_with(generation, move |_| {
            let passes = Arc::clone(&passes);
            Box::pin(async move {
                passes.acquire().await.unwrap().forget();
                Ok(())
            })
        });
        (wire, Gate(gate))
    }

    /// The pong of the last barrier comes back.
    pub async fn pass(&self, wire: &Wire) {
        match wire.barriers().last() {
            Some(token) => self.pass_one(wire, *token).await,
            None => settle().await,
        }
    }

    /// The pong of that barrier or probe comes back.
    pub async fn pass_one(&self, wire: &Wire, token: u64) {
        self.queue.send(BarrierPassed { generation: wire.generation, token }).await.unwrap();
        settle().await;
    }

    /// Every barrier comes back, until no more are asked for.
    pub async fn confirm_everything(&self, wire: &Wire) {
        settle().await;
        let mut passed = 0;
        while wire.barriers().len() > passed {
            passed = wire.barriers().len();
            self.pass(wire).await;
        }
    }
}
