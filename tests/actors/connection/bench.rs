//! A Connection among fakes, on a link in memory.

use crate::fake::{self, Told};
use actix::prelude::*;
use backupy_agent::actors::connection::{Connection, ConnectionDeps, ConnectionNeighbours, LinkListener};
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::{
    Acked, BarrierPassed, ChildDown, ChildExit, ChildName, Confirms, LinkChanged, LinkLost, LinkUp, Outgoing,
    Proof, RoundTrip, ServerCommand, Submit, Submitted, TakeSeq, Transmit,
};
use backupy_agent::channel::dial::{Dialer, Link};
use backupy_agent::channel::frame::{Frame, FrameError, FrameKind};
use backupy_agent::channel::{DialError, LinkDown};
use backupy_agent::wire::{self, Envelope, Payload, v1};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{sink, stream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

pub const GENERATION: u64 = 7;
pub const SEQ: u64 = 41;

/// A fault of the socket that makes the connection panic.
pub const PANIC: &str = "panic, on purpose";

/// What the dialer does.
pub enum Dial {
    Succeed(Link),
    Fail(DialError),
    Never,
    Panic,
}

struct OneDial(RefCell<Option<Dial>>);

impl Dialer for OneDial {
    fn host(&self) -> String {
        "plane.test:443".into()
    }

    fn dial(&self) -> LocalBoxFuture<'static, Result<Link, DialError>> {
        let dial = self.0.borrow_mut().take().expect("a connection dials once");
        Box::pin(async move {
            match dial {
                Dial::Succeed(link) => Ok(link),
                Dial::Fail(error) => Err(error),
                Dial::Never => std::future::pending().await,
                Dial::Panic => panic!("on purpose"),
            }
        })
    }
}

/// The server's end of a link.
pub struct Server {
    pub received: mpsc::Receiver<Frame>,
    to_agent: Option<mpsc::UnboundedSender<Result<Frame, FrameError>>>,
    /// Frames that the agent took off the wire.
    pub read: Rc<Cell<usize>>,
}

/// A link that holds so many frames on its way to the server.
pub fn link(capacity: usize) -> (Link, Server) {
    let (from_agent, received) = mpsc::channel(capacity);
    let (to_agent, coming) = mpsc::unbounded_channel();
    let read = Rc::new(Cell::new(0));
    let sink = sink::unfold(from_agent, |from_agent: mpsc::Sender<Frame>, frame| async move {
        from_agent.send(frame).await.map_err(|_| FrameError::Io("broken pipe".into()))?;
        Ok(from_agent)
    });
    let counter = read.clone();
    let stream = stream::unfold(coming, move |mut coming: mpsc::UnboundedReceiver<_>| {
        let counter = counter.clone();
        async move {
            let item = coming.recv().await?;
            counter.set(counter.get() + 1);
            assert_ne!(item, Err(FrameError::Io(PANIC.into())), "a panic in the middle of a link");
            Some((item, coming))
        }
    });
    let link = Link { sink: Box::pin(sink), stream: Box::pin(stream), confirms: Confirms::Pongs };
    (link, Server { received, to_agent: Some(to_agent), read })
}

impl Server {
    pub fn send(&self, frame: Frame) {
        self.to_agent.as_ref().unwrap().send(Ok(frame)).unwrap();
    }

    pub fn say(&self, correlation_id: &str, payload: Payload) {
        self.send(Frame::binary(wire::encode(1, 2, correlation_id, payload).unwrap()));
    }

    pub fn fault(&self, error: FrameError) {
        self.to_agent.as_ref().unwrap().send(Err(error)).unwrap();
    }

    /// The socket ends without a close frame.
    pub fn cut(&mut self) {
        self.to_agent = None;
    }

    pub async fn next(&mut self) -> Frame {
        self.received.recv().await.expect("the agent still has the link")
    }

    pub async fn next_envelope(&mut self) -> Envelope {
        let frame = self.next().await;
        assert_eq!(frame.kind, FrameKind::Binary);
        wire::decode(&frame.payload).unwrap()
    }

    pub async fn next_close(&mut self) -> (u16, String) {
        loop {
            let frame = self.next().await;
            if frame.kind == FrameKind::Close {
                let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                return (code, String::from_utf8_lossy(&frame.payload[2..]).into_owned());
            }
        }
    }
}

/// The Connection and everybody around it.
pub struct Bench {
    pub connection: Addr<Connection>,
    pub neighbours: ConnectionNeighbours,
    pub begin: Instant,
    pub states: Told<LinkChanged>,
    pub submits: Told<Submit>,
    pub barriers: Told<BarrierPassed>,
    pub acks: Told<Acked>,
    pub ups: Told<LinkUp>,
    pub losts: Told<LinkLost>,
    pub commands: Told<ServerCommand>,
    pub trips: Told<RoundTrip>,
    pub ends: Told<ChildDown>,
}

impl Bench {
    pub fn new(dial: Dial) -> Self {
        Self::with_dispatcher(dial, |_| Box::pin(async {}))
    }

    pub fn with_dispatcher(
        dial: Dial,
        dispatcher: impl FnMut(&ServerCommand) -> ResponseFuture<()> + 'static,
    ) -> Self {
        tokio::time::pause();
        let (take_seq, _) = fake::quick(|_: &TakeSeq| Ok(SEQ));
        let (submit, submits) = fake::quick(|_: &Submit| Ok(Submitted::Sent));
        let (barrier_passed, barriers) = fake::quick(|_: &BarrierPassed| ());
        let (acked, acks) = fake::quick(|_: &Acked| ());
        let (up, ups) = fake::quick(|_: &LinkUp| ());
        let (lost, losts) = fake::quick(|_: &LinkLost| ());
        let (to_dispatcher, commands) = fake::slow(dispatcher);
        let (link_changed, states) = fake::quick(|_: &LinkChanged| ());
        let (round_trip, trips) = fake::quick(|_: &RoundTrip| ());
        let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
        let neighbours = ConnectionNeighbours {
            take_seq,
            submit,
            barrier_passed,
            acked,
            listeners: vec![LinkListener { up, lost }],
            commands: to_dispatcher,
            link_changed,
            round_trip,
        };
        let connection = Connection::new(ConnectionDeps {
            life: Life::new(ChildName::Connection, GENERATION, supervisor),
            dialer: Box::new(OneDial(RefCell::new(Some(dial)))),
            register: v1::Register { hostname: "db-1".into(), ..Default::default() },
            neighbours: neighbours.clone(),
        })
        .start();
        let begin = Instant::now();
        Self {
            connection,
            neighbours,
            begin,
            states,
            submits,
            barriers,
            acks,
            ups,
            losts,
            commands,
            trips,
            ends,
        }
    }

    /// Dialled, Register read, not answered.
    pub async fn registering() -> (Self, Server) {
        let (link, mut server) = link(64);
        let bench = Self::new(Dial::Succeed(link));
        server.next_envelope().await;
        (bench, server)
    }

    /// Registered, without a configuration, heartbeats every 30 s.
    pub async fn established() -> (Self, Server) {
        let (bench, server) = Self::registering().await;
        server.say("", register_ack(0, None));
        bench.link().await;
        (bench, server)
    }

    /// The same, with a server that acknowledges end to end.
    pub async fn acking() -> (Self, Server) {
        let (mut link, mut server) = link(64);
        link.confirms = Confirms::Acks;
        let bench = Self::new(Dial::Succeed(link));
        server.next_envelope().await;
        server.say("", register_ack(0, None));
        bench.link().await;
        (bench, server)
    }

    /// Waits for the link to be up.
    pub async fn link(&self) -> Recipient<Transmit> {
        for _ in 0..1000 {
            if let Some(up) = self.ups.lock().unwrap().last() {
                return up.link.clone();
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("the link is not up");
    }

    /// Waits for the end, and says when it was and why.
    pub async fn end(&self) -> (Duration, LinkDown) {
        match self.exit().await {
            (after, ChildExit::Link(down)) => (after, down),
            (_, exit) => panic!("{exit:?}"),
        }
    }

    pub async fn exit(&self) -> (Duration, ChildExit) {
        for _ in 0..1_000_000 {
            if let Some(down) = self.ends.lock().unwrap().first() {
                assert_eq!((down.child, down.generation), (ChildName::Connection, GENERATION));
                return (self.begin.elapsed(), down.exit.clone());
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("no end");
    }
}

/// A test may look at one connection after the other; the clock can be stopped once only.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            tokio::time::resume();
        }
    }
}

pub fn register_ack(heartbeat_interval_sec: u32, config: Option<v1::AgentConfig>) -> Payload {
    let session_id = "s-1".into();
    Payload::RegisterAck(v1::RegisterAck { session_id, config, heartbeat_interval_sec, ..Default::default() })
}

pub fn outgoing(seq: u64) -> Outgoing {
    Outgoing { seq, envelope: Bytes::from(format!("envelope {seq}")) }
}

pub fn window(seqs: std::ops::Range<u64>, barrier: Option<u64>) -> Transmit {
    Transmit { envelopes: seqs.map(outgoing).collect(), proof: barrier.map_or(Proof::None, Proof::Barrier) }
}

/// Within a few milliseconds: what waits is looked for every millisecond.
pub fn about(actual: Duration, seconds: u64) {
    let expected = Duration::from_secs(seconds);
    assert!(
        actual >= expected && actual < expected + Duration::from_millis(20),
        "{actual:?}, not {expected:?}"
    );
}
