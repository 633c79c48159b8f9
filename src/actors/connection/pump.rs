//! The life itself: dial, register, and then the session's loop until it is down.

use super::backlog::{Backlog, Delivery, answered};
use super::shared::Shared;
use super::writer::{ControlLane, Window, Writer, Written};
use crate::actors::messages::{Acked, BarrierPassed, Command, RoundTrip, TakeSeq};
use crate::channel::assemble::{Assembler, Message};
use crate::channel::dial::{Dialer, Link, LinkSink, LinkStream};
use crate::channel::frame::{Frame, FrameError, close_code};
use crate::channel::limits::{CLOSE_TIMEOUT, DIAL_TIMEOUT};
use crate::channel::session::{Action, Moment, Session};
use crate::channel::{DialError, LinkDown};
use crate::model::{LinkState, unix_ms};
use crate::wire::{self, Payload, v1};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Log lines about messages that change nothing; after so many they are for developers only, or a
/// confused server fills the journal.
const LOUD_IGNORED: u64 = 10;

/// Frames that are read before every other task of the thread has its turn. A flood of frames that are
/// there already never waits for anything, and would let nobody else live.
const FRAMES_A_TURN: u32 = 64;

pub(super) struct Pump {
    shared: Rc<Shared>,
    dialer: Box<dyn Dialer>,
    register: v1::Register,
    windows: mpsc::Receiver<Window>,
}

impl Pump {
    pub(super) fn new(
        shared: Rc<Shared>,
        dialer: Box<dyn Dialer>,
        register: v1::Register,
        windows: mpsc::Receiver<Window>,
    ) -> Self {
        Self { shared, dialer, register, windows }
    }

    /// One connection from its dial to its end.
    pub(super) async fn live(self) -> LinkDown {
        let Self { shared, dialer, register, windows } = self;
        shared.changed(LinkState::Dialing, None);
        let dialed = tokio::select! {
            biased;
            () = shared.hung_up() => return LinkDown::Hangup,
            dialed = dial(&*dialer) => dialed,
        };
        drop(dialer);
        let Link { mut sink, stream, confirms } = match dialed {
            Ok(link) => link,
            Err(error) => return error.into(),
        };
        shared.upgraded(confirms);
        shared.changed(LinkState::Registering, None);
        let end = match first_message(&shared, register).await {
            Ok(register) => converse(&shared, register, &mut sink, stream, windows).await,
            Err(down) => {
                let goodbye = Frame::close(Some(close_code::INTERNAL), "agent recovers from a fault");
                let _ = timeout(CLOSE_TIMEOUT, sink.send(goodbye)).await;
                down
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, sink.close()).await;
        end
    }
}

async fn dial(dialer: &dyn Dialer) -> Result<Link, DialError> {
    match timeout(DIAL_TIMEOUT, dialer.dial()).await {
        Ok(dialed) => dialed,
        Err(_) => Err(DialError::Timeout { host: dialer.host(), limit: DIAL_TIMEOUT }),
    }
}

/// Register, under a seq of its own.
async fn first_message(shared: &Shared, register: v1::Register) -> Result<Bytes, LinkDown> {
    let queue = shared.neighbours().take_seq;
    let seq = answered("queue", queue.send(TakeSeq)).await?.map_err(|_| LinkDown::NeighbourGone("queue"))?;
    wire::encode(seq, unix_ms(), "", Payload::Register(register))
        .map_err(|error| LinkDown::Protocol(format!("Register: {error}")))
}

/// From Register to the end. Everything that can happen is waited for in one place.
async fn converse(
    shared: &Shared,
    register: Bytes,
    sink: &mut LinkSink,
    mut stream: LinkStream,
    windows: mpsc::Receiver<Window>,
) -> LinkDown {
    let lane = ControlLane::default();
    let backlog = Backlog::default();
    let (written, mut left) = mpsc::unbounded_channel();
    let mut writer = pin!(Writer { sink, lane: &lane, written }.write(windows));
    let mut delivery = pin!(backlog.deliver(shared));
    let mut timer = pin!(sleep_until(Instant::now()));
    let (mut writing, mut delivering, mut reading) = (true, true, true);
    let mut talk = Conversation::new(shared, &lane, &backlog, register);
    let mut frames = 0_u32;
    let end = loop {
        if let Some(down) = talk.down.take() {
            break down;
        }
        let now = talk.now();
        let room = talk.may_read(now);
        let deadline = talk.deadline();
        if deadline <= now {
            talk.tick(now);
            continue;
        }
        if timer.deadline() != talk.epoch + deadline {
            timer.as_mut().reset(talk.epoch + deadline);
        }
        tokio::select! {
            biased;
            end = &mut writer, if writing => {
                writing = false;
                talk.writer_ended(end);
            }
            Some(written) = left.recv() => talk.written(written),
            () = shared.hung_up() => talk.end(LinkDown::Hangup),
            down = &mut delivery, if delivering => {
                delivering = false;
                talk.end(down);
            }
            () = backlog.shrunk() => {}
            item = stream.next(), if reading && room => {
                reading = item.is_some();
                talk.read(item);
                frames = frames.wrapping_add(1);
                if frames.is_multiple_of(FRAMES_A_TURN) {
                    tokio::task::yield_now().await;
                }
            }
            () = &mut timer => {}
        }
    };
    if writing && talk.goodbye_said {
        let _ = timeout(CLOSE_TIMEOUT, writer).await;
    }
    end
}

/// What a message of the peer's takes in memory once it is decoded.
fn held_bytes(message: &Message) -> usize {
    match message {
        Message::Binary(envelope) => wire::decoded_bytes(envelope),
        Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Close { .. } => message.len(),
    }
}

/// A link's session and what its actions are done with.
struct Conversation<'a> {
    shared: &'a Shared,
    lane: &'a ControlLane,
    backlog: &'a Backlog,
    epoch: Instant,
    session: Session,
    /// Until the session asks for it.
    register: Option<Bytes>,
    assembler: Assembler,
    /// Of the message in hand: what its delivery weighs.
    message_bytes: usize,
    ignored: u64,
    goodbye_said: bool,
    /// The socket takes nothing any more: when to stop looking for the reason in what it still gives.
    write_failed: Option<(Moment, LinkDown)>,
    /// Set by the session's last action.
    down: Option<LinkDown>,
}

impl<'a> Conversation<'a> {
    fn new(shared: &'a Shared, lane: &'a ControlLane, backlog: &'a Backlog, register: Bytes) -> Self {
        let (session, actions) = Session::upgraded(Moment::ZERO, shared.confirms());
        let mut talk = Self {
            shared,
            lane,
            backlog,
            epoch: Instant::now(),
            session,
            register: Some(register),
            assembler: Assembler::default(),
            message_bytes: 0,
            ignored: 0,
            goodbye_said: false,
            write_failed: None,
            down: None,
        };
        talk.perform(actions);
        talk
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }

    /// When something must happen at the latest. The session has a deadline as long as it is not down.
    fn deadline(&self) -> Moment {
        let session = self.session.next_deadline().unwrap_or(Moment::ZERO);
        self.write_failed.as_ref().map_or(session, |(until, _)| session.min(*until))
    }

    /// Whether the next frame may come in; after the goodbye frames cost nothing.
    fn may_read(&mut self, now: Moment) -> bool {
        let room = self.goodbye_said || self.backlog.has_room();
        self.session.hold_reading(now, !room);
        room
    }

    fn tick(&mut self, now: Moment) {
        if let Some((_, down)) = self.write_failed.take_if(|(until, _)| *until <= now) {
            return self.end(down);
        }
        let actions = self.session.tick(now);
        self.perform(actions);
    }

    fn written(&mut self, written: Written) {
        let now = self.now();
        match written {
            Written::Ping(mark) => self.session.written(now, mark),
            Written::Durable { seq, own_id } => self.session.sent_durable(now, seq, own_id),
        }
    }

    fn end(&mut self, why: LinkDown) {
        let actions = self.session.end(self.now(), why);
        self.perform(actions);
    }

    /// A socket that refuses writes may still hold the peer's close frame, which says why.
    fn writer_ended(&mut self, end: Result<(), LinkDown>) {
        match end {
            Ok(()) => {}
            Err(down @ LinkDown::Broken(_)) => self.write_failed = Some((self.now() + CLOSE_TIMEOUT, down)),
            Err(down) => self.end(down),
        }
    }

    fn read(&mut self, item: Option<Result<Frame, FrameError>>) {
        let now = self.now();
        let actions = match item {
            None => self.session.ended(now),
            Some(Err(error)) => self.session.faulty(now, error),
            Some(Ok(frame)) => match self.assembler.push(frame) {
                Ok(None) => {
                    self.session.alive(now);
                    vec![]
                }
                Ok(Some(message)) => {
                    self.message_bytes = held_bytes(&message);
                    self.session.received(now, message)
                }
                Err(error) => self.session.faulty(now, error),
            },
        };
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.perform_one(action);
        }
    }

    fn perform_one(&mut self, action: Action) {
        match action {
            Action::SendRegister => {
                if let Some(envelope) = self.register.take() {
                    self.lane.register(envelope);
                }
            }
            Action::SendPing(mark) => self.lane.ping(mark),
            Action::SendPong(payload) => self.lane.pong(payload),
            Action::Close { code, reason } => {
                self.goodbye_said = true;
                self.shared.changed(LinkState::Closing, None);
                self.lane.close(Frame::close(code, &reason));
            }
            Action::Established { session_id, heartbeat_interval, config } => {
                self.established(session_id, heartbeat_interval, config);
            }
            Action::Deliver { correlation_id, command } => {
                self.deliver(Delivery::Command { correlation_id, command });
            }
            Action::AckPing { correlation_id } => {
                self.deliver(Delivery::Ack(v1::Ack {
                    correlation_id,
                    accepted: true,
                    reason: String::new(),
                }));
            }
            Action::Refuse { correlation_id, reason } => {
                tracing::warn!(%correlation_id, reason, "refused a message of the control plane");
                let ack = v1::Ack { correlation_id, accepted: false, reason: reason.to_owned() };
                self.deliver(Delivery::Ack(ack));
            }
            Action::Acked { seq, refused } => {
                let acked = Acked { generation: self.shared.generation(), seq, refused };
                self.shared.report(|to| &to.acked, acked);
            }
            Action::StrayAck { correlation_id } => {
                tracing::debug!(%correlation_id, "ignored an ack that nothing waits for");
            }
            Action::Ignored(what) => self.ignore(what),
            Action::BarrierPassed(token) => {
                let passed = BarrierPassed { generation: self.shared.generation(), token };
                self.shared.report(|to| &to.barrier_passed, passed);
            }
            Action::RoundTrip(duration) => {
                self.shared.report(|to| &to.round_trip, RoundTrip(duration));
            }
            Action::Down(why) => self.down = Some(why),
        }
    }

    /// The Supervisor first, then the configuration, then those who will send.
    fn established(
        &mut self,
        session_id: String,
        heartbeat_interval: Duration,
        config: Option<v1::AgentConfig>,
    ) {
        self.shared.changed(LinkState::Established, Some((session_id, heartbeat_interval)));
        self.lane.open_windows();
        if let Some(config) = config {
            let command = Command::Configure(config);
            self.deliver(Delivery::Command { correlation_id: String::new(), command });
        }
        self.backlog.push(Delivery::LinkUp { heartbeat_interval }, 0);
    }

    fn deliver(&self, delivery: Delivery) {
        self.backlog.push(delivery, self.message_bytes);
    }

    fn ignore(&mut self, what: &'static str) {
        self.ignored += 1;
        if self.ignored <= LOUD_IGNORED {
            tracing::warn!(what, "ignored what the control plane sent");
        } else {
            tracing::debug!(what, "ignored what the control plane sent");
        }
    }
}
