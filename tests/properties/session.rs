//! The session, under any sequence of events.

use backupy_agent::channel::LinkDown;
use backupy_agent::channel::assemble::Message;
use backupy_agent::channel::backoff::Backoff;
use backupy_agent::channel::dial::Confirms;
use backupy_agent::channel::frame::{Frame, FrameError};
use backupy_agent::channel::guard::FrameGuard;
use backupy_agent::channel::session::{Action, Mark, Session};
use backupy_agent::wire::{Payload, encode, v1};
use bytes::BytesMut;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Event {
    Received(Message),
    Fault(FrameError),
    Ended,
    Written(Mark),
    Sent(u64),
    Hold(bool),
    Hangup,
    Tick,
    /// Straight to the next deadline.
    Wait,
}

fn payloads() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (0..100_u32).prop_map(|heartbeat_interval_sec| {
            let config = Some(v1::AgentConfig::default());
            Payload::RegisterAck(v1::RegisterAck { heartbeat_interval_sec, config, ..Default::default() })
        }),
        Just(Payload::Ping(v1::Ping::default())),
        Just(Payload::RunBackup(v1::RunBackup::default())),
        Just(Payload::ConfigUpdate(v1::ConfigUpdate::default())),
        Just(Payload::Heartbeat(v1::Heartbeat::default())),
        (0..6_u64, any::<bool>()).prop_map(|(seq, accepted)| {
            Payload::Ack(v1::Ack { correlation_id: seq.to_string(), accepted, ..Default::default() })
        }),
    ]
}

fn marks() -> impl Strategy<Value = Mark> {
    (0..3, 0..4_u64).prop_map(|(kind, n)| match kind {
        0 => Mark::Own(n),
        1 => Mark::Probe(n),
        _ => Mark::Barrier(n),
    })
}

fn confirms() -> impl Strategy<Value = Confirms> {
    prop_oneof![Just(Confirms::Pongs), Just(Confirms::Acks)]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => ("[a-z]{0,2}", payloads())
            .prop_map(|(id, payload)| Event::Received(Message::Binary(encode(1, 2, &id, payload).unwrap()))),
        1 => prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| Event::Received(Message::Binary(bytes.into()))),
        1 => Just(Event::Received(Message::Text(3))),
        2 => Just(Event::Received(Message::Ping("p".into()))),
        3 => marks().prop_map(|mark| Event::Received(Message::Pong(mark.payload()))),
        1 => Just(Event::Received(Message::Close { code: Some(1012), reason: None })),
        1 => Just(Event::Fault(FrameError::Masked)),
        1 => Just(Event::Fault(FrameError::Io("reset".into()))),
        1 => Just(Event::Ended),
        3 => marks().prop_map(Event::Written),
        2 => (0..6_u64).prop_map(Event::Sent),
        2 => any::<bool>().prop_map(Event::Hold),
        1 => Just(Event::Hangup),
        3 => Just(Event::Tick),
        6 => Just(Event::Wait),
    ]
}

/// What the session has promised so far.
#[derive(Default)]
struct Promises {
    established: usize,
    closes: usize,
    down: usize,
}

impl Promises {
    fn note(&mut self, actions: &[Action]) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert_eq!(self.down, 0, "nothing follows Down: {:?}", action);
            match action {
                Action::Established { .. } => self.established += 1,
                Action::Close { .. } => self.closes += 1,
                Action::Down(_) => self.down += 1,
                Action::SendPing(_) | Action::SendPong(_) => {
                    prop_assert_eq!(self.closes, 0, "no frame follows a close");
                }
                Action::Deliver { .. } | Action::AckPing { .. } | Action::Refuse { .. } => {
                    prop_assert_eq!(self.established, 1, "nobody is served before registration");
                }
                Action::SendRegister
                | Action::Acked { .. }
                | Action::StrayAck { .. }
                | Action::Ignored(_)
                | Action::BarrierPassed(_)
                | Action::RoundTrip(_) => {}
            }
        }
        prop_assert!(self.established <= 1 && self.closes <= 1 && self.down <= 1);
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_ladder(
        confirms in confirms(),
        events in prop::collection::vec((events(), 0..40_000_u64), 0..60),
    ) {
        let mut now = Duration::from_secs(5);
        let (mut session, first) = Session::upgraded(now, confirms);
        let mut promises = Promises::default();
        promises.note(&first)?;
        for (event, passed_ms) in events {
            now += Duration::from_millis(passed_ms);
            let actions = match event {
                Event::Received(message) => session.received(now, message),
                Event::Fault(error) => session.faulty(now, error),
                Event::Ended => session.ended(now),
                Event::Written(mark) => { session.written(now, mark); vec![] }
                Event::Sent(seq) => { session.sent_durable(now, seq, None); vec![] }
                Event::Hold(held) => { session.hold_reading(now, held); vec![] }
                Event::Hangup => session.end(now, LinkDown::Hangup),
                Event::Tick => session.tick(now),
                Event::Wait => {
                    now = session.next_deadline().map_or(now, |due| due.max(now));
                    session.tick(now)
                }
            };
            promises.note(&actions)?;
            prop_assert_eq!(session.next_deadline().is_none(), promises.down == 1, "a timer until it is down");
            prop_assert_eq!(session.is_established(), promises.established == 1 && promises.closes + promises.down == 0);
        }
    }

    #[test]
    fn a_silent_peer_is_dead_in_bounded_time_and_deadlines_never_go_back(
        registered in any::<bool>(),
        interval in 0..100_000_u32,
        barriers in 0..5_u64,
        confirms in confirms(),
        durable in 0..3_u64,
    ) {
        let mut now = Duration::ZERO;
        let (mut session, _) = Session::upgraded(now, confirms);
        if registered {
            let ack = v1::RegisterAck { heartbeat_interval_sec: interval, ..Default::default() };
            session.received(now, Message::Binary(encode(1, 2, "", Payload::RegisterAck(ack)).unwrap()));
        }
        for token in 0..barriers {
            session.written(now, Mark::Barrier(token));
        }
        for seq in 0..durable {
            session.sent_durable(now, seq, None);
        }
        let mut ticks = 0;
        while let Some(due) = session.next_deadline() {
            prop_assert!(due >= now);
            now = due;
            for action in session.tick(now) {
                if let Action::SendPing(mark) = action { session.written(now, mark); }
            }
            prop_assert!(session.next_deadline().is_none_or(|next| next > now), "a tick at its deadline moves it");
            ticks += 1;
            prop_assert!(ticks < 200);
        }
        prop_assert!(now <= Duration::from_secs(90));
    }

    #[test]
    fn no_bytes_break_the_frame_guard(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        use actix_codec::Decoder;
        let mut guard = FrameGuard::default();
        let mut src = BytesMut::new();
        let mut refused = false;
        for chunk in chunks {
            src.extend_from_slice(&chunk);
            while let Some(frame) = match guard.decode(&mut src) {
                Ok(frame) => frame,
                Err(_) => { prop_assert!(!refused, "told once"); refused = true; None }
            } {
                prop_assert!(!refused, "no frame after a refused one");
                prop_assert!(frame.payload.len() <= 1000);
            }
            prop_assert!(!refused || src.is_empty());
        }
    }

    #[test]
    fn delays_stay_in_their_bounds(units in prop::collection::vec(-1.0..2.0_f64, 1..40)) {
        let mut backoff = Backoff::default();
        let broken = LinkDown::Broken("reset".into());
        let mut nominal = 1.0_f64;
        for unit in units {
            let delay = backoff.next_delay(&broken, unit).as_secs_f64();
            prop_assert!(delay >= nominal * 0.799 && delay <= nominal * 1.201, "{delay} of {nominal}");
            nominal = (nominal * 2.0).min(60.0);
        }
    }

    #[test]
    fn what_is_written_is_read_back(payload in prop::collection::vec(any::<u8>(), 0..70_000)) {
        use actix_codec::{Decoder, Encoder};
        let mut wire = BytesMut::new();
        FrameGuard::default().encode(Frame::binary(payload.clone()), &mut wire).unwrap();
        // A server's parser, which unmasks.
        let (fin, _, back) = actix_http::ws::Parser::parse(&mut wire, true, 1 << 20).unwrap().unwrap();
        prop_assert!(fin && wire.is_empty());
        prop_assert_eq!(back.map(|back| back.to_vec()).unwrap_or_default(), payload.clone());
        // And a server's frame, read by the guard.
        let mut wire = BytesMut::new();
        actix_http::ws::Parser::write_message(&mut wire, &payload, actix_http::ws::OpCode::Binary, true, false);
        let frame = FrameGuard::default().decode(&mut wire).unwrap().unwrap();
        prop_assert_eq!(frame.payload.to_vec(), payload);
    }
}
