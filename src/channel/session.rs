//! A registered connection as a pure state machine: no I/O, no clock.
//!
//! ```text
//! Registering --RegisterAck--> Established --goodbye--> Closing --peer's close, or 1 s--> Down
//! ```
//!
//! What happens goes in with the time at which it happened (since any fixed moment), what to do comes
//! out as [`Action`]s, and [`Session::next_deadline`] says when to [`Session::tick`] next, so that the
//! owner arms one timer. The first payload must be RegisterAck; any frame is a sign of life; a quiet
//! link is kept alive, and measured, by own WebSocket pings.

use super::assemble::Message;
use super::awaited::Awaited;
use super::dial::Confirms;
use super::frame::FrameError;
use super::goodbye::{Goodbye, close_reason, goodbye};
use super::limits::{
    ACK_TIMEOUT, BARRIER_TIMEOUT, CLOSE_TIMEOUT, DEFAULT_HEARTBEAT_INTERVAL, IDLE_TIMEOUT, MAX_PING_INTERVAL,
    REGISTER_TIMEOUT,
};
use super::{Command, LinkDown, inbound};
use crate::wire::{self, v1};
use inbound::Inbound;
use std::collections::VecDeque;
use std::time::Duration;

pub use super::action::{Action, Mark, Moment};

#[derive(Debug)]
enum Phase {
    Registering { until: Moment },
    Established,
    Closing { until: Moment, why: LinkDown },
    Down,
}

/// A ping on its way.
#[derive(Debug)]
struct Outstanding {
    mark: Mark,
    written: Moment,
    due: Moment,
}

/// One connection after its upgrade.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    last_frame: Moment,
    reading_held: bool,
    ping_interval: Duration,
    next_ping: Option<Moment>,
    pings: u64,
    outstanding: VecDeque<Outstanding>,
    confirms: Confirms,
    awaited: Awaited,
}

impl Session {
    /// The upgrade was answered with 101, and agreed on how durable messages are confirmed.
    pub fn upgraded(now: Moment, confirms: Confirms) -> (Self, Vec<Action>) {
        let session = Self {
            phase: Phase::Registering { until: now + REGISTER_TIMEOUT },
            last_frame: now,
            reading_held: false,
            ping_interval: MAX_PING_INTERVAL,
            next_ping: None,
            pings: 0,
            outstanding: VecDeque::new(),
            confirms,
            awaited: Awaited::default(),
        };
        (session, vec![Action::SendRegister])
    }

    /// A frame came, whole or a fragment: a sign of life.
    pub fn alive(&mut self, now: Moment) {
        self.last_frame = now;
    }

    /// A message or a control frame came.
    pub fn received(&mut self, now: Moment, message: Message) -> Vec<Action> {
        self.alive(now);
        match (&self.phase, message) {
            (Phase::Down, _) => vec![],
            (_, Message::Close { code, reason }) => self.peer_closed(code, reason),
            (Phase::Closing { .. }, _) => vec![],
            (_, Message::Ping(payload)) => vec![Action::SendPong(payload)],
            (_, Message::Pong(payload)) => self.pong(now, &payload),
            (Phase::Registering { .. }, Message::Text(_)) => {
                self.end(now, LinkDown::NotRegisterAck("a text frame".into()))
            }
            (Phase::Established, Message::Text(_)) => vec![Action::Ignored("a text frame")],
            (_, Message::Binary(bytes)) => self.binary(now, &bytes),
        }
    }

    /// What came is no frame, or the socket failed.
    pub fn faulty(&mut self, now: Moment, error: FrameError) -> Vec<Action> {
        match self.phase {
            Phase::Down => vec![],
            // The goodbye is said already; what still comes has no frames any more.
            Phase::Closing { .. } if !matches!(error, FrameError::Io(_)) => vec![],
            Phase::Closing { .. } => self.over(),
            Phase::Registering { .. } | Phase::Established => self.end(now, error.into()),
        }
    }

    /// The socket ended.
    pub fn ended(&mut self, now: Moment) -> Vec<Action> {
        match self.phase {
            Phase::Down => vec![],
            Phase::Closing { .. } => self.over(),
            Phase::Registering { .. } | Phase::Established => {
                self.end(now, LinkDown::Broken("the peer ended it without a close frame".into()))
            }
        }
    }

    /// A ping of ours left through the socket.
    pub fn written(&mut self, now: Moment, mark: Mark) {
        // Of those whose pong may stay away only the newest is kept, so a peer without pongs costs no memory.
        match mark {
            Mark::Barrier(_) => {}
            Mark::Own(_) => self.outstanding.retain(|ping| !matches!(ping.mark, Mark::Own(_))),
            Mark::Probe(_) => self.outstanding.retain(|ping| !matches!(ping.mark, Mark::Probe(_))),
        }
        self.outstanding.push_back(Outstanding { mark, written: now, due: now + BARRIER_TIMEOUT });
    }

    /// A durable message left through the socket, to be acknowledged end to end. `own_id` is the
    /// correlation_id that it carries, where it carries one.
    pub fn sent_durable(&mut self, now: Moment, seq: u64, own_id: Option<Box<str>>) {
        self.awaited.sent(now, seq, own_id);
    }

    /// The owner reads no further for now (`held`), or reads again. While it does not read, silence
    /// proves nothing.
    pub fn hold_reading(&mut self, now: Moment, held: bool) {
        if self.reading_held && !held {
            self.last_frame = now;
            for ping in &mut self.outstanding {
                ping.due = now + BARRIER_TIMEOUT;
            }
            self.awaited.wait_anew(now);
        }
        self.reading_held = held;
    }

    /// The agent ends it: because it stops, or for a reason that only the owner can see.
    pub fn end(&mut self, now: Moment, why: LinkDown) -> Vec<Action> {
        match self.phase {
            Phase::Down | Phase::Closing { .. } => return vec![],
            Phase::Registering { .. } | Phase::Established => {}
        }
        let goodbye = goodbye(&why);
        let close = |code| Action::Close { code: Some(code), reason: close_reason(&why) };
        match goodbye {
            Goodbye::Wait(code) => {
                let actions = vec![close(code)];
                self.phase = Phase::Closing { until: now + CLOSE_TIMEOUT, why };
                actions
            }
            Goodbye::Leave(code) => {
                let mut actions = vec![close(code)];
                actions.extend(self.down(why));
                actions
            }
            Goodbye::None => self.down(why),
        }
    }

    /// Time passed. To be called at [`Self::next_deadline`]; earlier does no harm.
    pub fn tick(&mut self, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Down => return vec![],
            Phase::Closing { until, .. } if now >= *until => return self.over(),
            Phase::Closing { .. } => return vec![],
            Phase::Registering { until } if now >= *until => {
                return self.end(now, LinkDown::RegisterTimeout(REGISTER_TIMEOUT));
            }
            Phase::Registering { .. } | Phase::Established => {}
        }
        if self.idle_deadline().is_some_and(|due| now >= due) {
            return self.end(now, LinkDown::Idle(IDLE_TIMEOUT));
        }
        if self.barrier_deadline().is_some_and(|due| now >= due) {
            return self.end(now, LinkDown::BarrierTimeout(BARRIER_TIMEOUT));
        }
        if self.ack_deadline().is_some_and(|due| now >= due) {
            return self.end(now, LinkDown::AckTimeout(ACK_TIMEOUT));
        }
        if self.next_ping.is_some_and(|due| now >= due) {
            self.next_ping = Some(now + self.ping_interval);
            self.pings += 1;
            return vec![Action::SendPing(Mark::Own(self.pings))];
        }
        vec![]
    }

    /// When to tick at the latest; None when nothing is waited for any more.
    pub fn next_deadline(&self) -> Option<Moment> {
        let own = match &self.phase {
            Phase::Down => return None,
            Phase::Closing { until, .. } => return Some(*until),
            Phase::Registering { until } => Some(*until),
            Phase::Established => self.next_ping,
        };
        [own, self.idle_deadline(), self.barrier_deadline(), self.ack_deadline()].into_iter().flatten().min()
    }

    /// Whether RegisterAck has come and no goodbye was said.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    fn idle_deadline(&self) -> Option<Moment> {
        (!self.reading_held).then_some(self.last_frame + IDLE_TIMEOUT)
    }

    fn barrier_deadline(&self) -> Option<Moment> {
        let due = self.outstanding.iter().find(|ping| matches!(ping.mark, Mark::Barrier(_)))?.due;
        (!self.reading_held).then_some(due)
    }

    fn ack_deadline(&self) -> Option<Moment> {
        self.awaited.due().filter(|_| !self.reading_held)
    }

    fn binary(&mut self, now: Moment, bytes: &[u8]) -> Vec<Action> {
        let envelope = match wire::decode(bytes) {
            Ok(envelope) => envelope,
            Err(wire::EnvelopeError::TooLarge { bytes }) => {
                let limit = wire::MAX_MESSAGE_BYTES as u64;
                return self.end(now, LinkDown::TooLarge { bytes: bytes as u64, limit });
            }
            Err(wire::EnvelopeError::TooHeavy { decoded }) => return self.too_heavy(now, bytes, decoded),
            Err(wire::EnvelopeError::Undecodable(cause)) => {
                return self.end(now, LinkDown::Undecodable(cause.to_string()));
            }
        };
        let correlation_id = envelope.correlation_id;
        match (&self.phase, Inbound::from(envelope.payload)) {
            (Phase::Registering { .. }, Inbound::RegisterAck(ack)) => vec![self.established(now, ack)],
            (Phase::Registering { .. }, other) => {
                self.end(now, LinkDown::NotRegisterAck(other.name().into()))
            }
            // A later RegisterAck is an answer, not a request: its config counts, it gets no Ack.
            (_, Inbound::RegisterAck(v1::RegisterAck { config: Some(config), .. })) => {
                vec![Action::Deliver { correlation_id: String::new(), command: Command::Configure(config) }]
            }
            (_, Inbound::RegisterAck(_)) => vec![Action::Ignored("a second RegisterAck without a config")],
            (_, Inbound::Command(command)) => vec![Action::Deliver { correlation_id, command }],
            (_, Inbound::Ping) => vec![Action::AckPing { correlation_id }],
            (_, Inbound::Ack(ack)) => vec![self.acked(now, ack)],
            (_, Inbound::Unusable(reason)) if !correlation_id.is_empty() => {
                vec![Action::Refuse { correlation_id, reason }]
            }
            (_, Inbound::Unusable(reason) | Inbound::OfAgents(reason)) => vec![Action::Ignored(reason)],
        }
    }

    /// A registered server hears that its message was not taken, and stays connected: it would send the
    /// same again on the next connection.
    fn too_heavy(&mut self, now: Moment, bytes: &[u8], decoded: usize) -> Vec<Action> {
        if let Phase::Registering { .. } = self.phase {
            return self.end(now, LinkDown::TooHeavy { decoded, limit: wire::MAX_DECODED_BYTES });
        }
        let reason = "too many elements: the decoded message would take too much memory";
        match wire::correlation_id_of(bytes) {
            Some(id) => vec![Action::Refuse { correlation_id: id.to_owned(), reason }],
            None => vec![Action::Ignored(reason)],
        }
    }

    fn acked(&mut self, now: Moment, ack: v1::Ack) -> Action {
        let v1::Ack { correlation_id, accepted, reason } = ack;
        let awaited = match self.confirms {
            Confirms::Acks => self.awaited.acked(now, &correlation_id),
            Confirms::Pongs => None,
        };
        match awaited {
            Some(seq) => Action::Acked { seq, refused: (!accepted).then_some(reason) },
            None => Action::StrayAck { correlation_id },
        }
    }

    fn established(&mut self, now: Moment, ack: v1::RegisterAck) -> Action {
        let heartbeat_interval = match ack.heartbeat_interval_sec {
            0 => DEFAULT_HEARTBEAT_INTERVAL,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.phase = Phase::Established;
        self.ping_interval = heartbeat_interval.min(MAX_PING_INTERVAL);
        self.next_ping = Some(now + self.ping_interval);
        Action::Established { session_id: ack.session_id, heartbeat_interval, config: ack.config }
    }

    /// A pong answers its ping and all before it: a peer may answer only the last (RFC 6455, 5.5.3).
    fn pong(&mut self, now: Moment, payload: &[u8]) -> Vec<Action> {
        let Some(mark) = Mark::parse(payload) else { return vec![] };
        let Some(at) = self.outstanding.iter().position(|ping| ping.mark == mark) else { return vec![] };
        let mut actions = Vec::new();
        for ping in self.outstanding.drain(..=at) {
            match ping.mark {
                Mark::Barrier(token) | Mark::Probe(token) => actions.push(Action::BarrierPassed(token)),
                Mark::Own(_) if ping.mark == mark => {
                    actions.push(Action::RoundTrip(now.saturating_sub(ping.written)));
                }
                Mark::Own(_) => {}
            }
        }
        actions
    }

    fn peer_closed(&mut self, code: Option<u16>, reason: Option<String>) -> Vec<Action> {
        if let Phase::Closing { .. } = self.phase {
            return self.over();
        }
        let mut actions = vec![Action::Close { code, reason: String::new() }];
        actions.extend(self.down(LinkDown::ClosedByPeer { code, reason }));
        actions
    }

    /// The end of Closing.
    fn over(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Closing { why, .. } => vec![Action::Down(why)],
            Phase::Registering { .. } | Phase::Established | Phase::Down => vec![],
        }
    }

    fn down(&mut self, why: LinkDown) -> Vec<Action> {
        self.phase = Phase::Down;
        vec![Action::Down(why)]
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
