//! Every row of protocol.md's table that is the session's, and every way out of it.

use super::*;
use crate::wire::{MAX_MESSAGE_BYTES, Payload, encode};
use bytes::Bytes;

fn s(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn message(correlation_id: &str, payload: Payload) -> Message {
    Message::Binary(encode(1, 2, correlation_id, payload).unwrap())
}

fn register_ack(heartbeat_interval_sec: u32, config: Option<v1::AgentConfig>) -> Message {
    message(
        "",
        Payload::RegisterAck(v1::RegisterAck {
            session_id: "s-1".into(),
            config,
            heartbeat_interval_sec,
            server_time_iso: String::new(),
        }),
    )
}

fn config(version: u64) -> v1::AgentConfig {
    v1::AgentConfig { version, ..Default::default() }
}

/// Registered at 0 s with a heartbeat interval of 30 s.
fn established() -> Session {
    let (mut session, _) = Session::upgraded(s(0), Confirms::Pongs);
    session.received(s(0), register_ack(0, None));
    session
}

fn close(code: u16, why: &LinkDown) -> Action {
    Action::Close { code: Some(code), reason: close_reason(why) }
}

#[test]
fn the_ladder_registers_and_says_who_it_is() {
    let (mut session, first) = Session::upgraded(s(100), Confirms::Pongs);
    assert_eq!(first, [Action::SendRegister]);
    assert!(!session.is_established());
    assert_eq!(session.next_deadline(), Some(s(115)));
    let actions = session.received(s(101), register_ack(7, Some(config(3))));
    let heartbeat_interval = s(7);
    assert_eq!(
        actions,
        [Action::Established { session_id: "s-1".into(), heartbeat_interval, config: Some(config(3)) }]
    );
    assert!(session.is_established());
    assert_eq!(session.next_deadline(), Some(s(108)), "the first own ping");
}

#[test]
fn no_register_ack_within_15_s_closes_with_1008() {
    let (mut session, _) = Session::upgraded(s(0), Confirms::Pongs);
    // Signs of life are not an answer.
    session.received(s(14), Message::Ping("x".into()));
    assert_eq!(session.tick(Duration::from_millis(14_999)), []);
    let why = LinkDown::RegisterTimeout(REGISTER_TIMEOUT);
    assert_eq!(session.tick(s(15)), [close(1008, &why)]);
    assert_eq!(session.next_deadline(), Some(s(16)));
    assert_eq!(session.tick(s(16)), [Action::Down(why)]);
    assert_eq!(session.next_deadline(), None);
}

#[test]
fn anything_else_than_register_ack_first_closes_with_1008() {
    let firsts = [
        message("c", Payload::Ping(v1::Ping { ts_ms: 1 })),
        message("", Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(config(1)) })),
        message("", Payload::Heartbeat(v1::Heartbeat::default())),
        Message::Binary(Bytes::new()),
        Message::Text(20),
    ];
    for first in firsts {
        let (mut session, _) = Session::upgraded(s(0), Confirms::Pongs);
        let actions = session.received(s(1), first.clone());
        assert!(matches!(&actions[..], [Action::Close { code: Some(1008), .. }]), "{first:?}: {actions:?}");
        let down = session.received(s(1), Message::Close { code: Some(1008), reason: None });
        assert!(matches!(&down[..], [Action::Down(LinkDown::NotRegisterAck(_))]), "{down:?}");
    }
}

#[test]
fn what_does_not_decode_closes_with_1007_before_and_after_registration() {
    let (fresh, _) = Session::upgraded(s(0), Confirms::Pongs);
    for mut session in [fresh, established()] {
        let actions = session.received(s(1), Message::Binary("\u{7f}\u{7f}garbage".into()));
        assert!(matches!(&actions[..], [Action::Close { code: Some(1007), .. }]), "{actions:?}");
        assert!(matches!(&session.tick(s(2))[..], [Action::Down(LinkDown::Undecodable(_))]));
    }
}

#[test]
fn what_is_too_large_closes_with_1009_and_what_is_no_frame_with_1002() {
    let limit = MAX_MESSAGE_BYTES as u64;
    let mut session = established();
    let actions = session.faulty(s(1), FrameError::TooLarge { bytes: 200 << 20, limit });
    assert!(matches!(&actions[..], [Action::Close { code: Some(1009), .. }]), "{actions:?}");
    assert_eq!(session.faulty(s(1), FrameError::Masked), [], "the goodbye is said once");
    assert_eq!(session.ended(s(1)), [Action::Down(LinkDown::TooLarge { bytes: 200 << 20, limit })]);

    let mut session = established();
    let actions = session.faulty(s(1), FrameError::Masked);
    assert!(matches!(&actions[..], [Action::Close { code: Some(1002), .. }]), "{actions:?}");
}

#[test]
fn nothing_received_for_90_s_is_dead_and_any_frame_is_life() {
    let mut session = established();
    let mut now = s(0);
    // Only pongs, for an hour: alive.
    while now < s(3600) {
        now = session.next_deadline().unwrap();
        let actions = session.tick(now);
        assert_eq!(actions.len(), 1, "{actions:?}");
        let Action::SendPing(mark) = actions[0] else { panic!("{actions:?}") };
        session.written(now, mark);
        assert_eq!(session.received(now + s(1), Message::Pong(mark.payload())), [Action::RoundTrip(s(1))]);
    }
    // Then silence.
    let last = now + s(1);
    let end = loop {
        let now = session.next_deadline().unwrap();
        let actions = session.tick(now);
        if let [Action::Close { code, .. }, Action::Down(why)] = &actions[..] {
            assert_eq!((code, why), (&Some(1001), &LinkDown::Idle(IDLE_TIMEOUT)));
            break now;
        }
    };
    assert_eq!(end, last + s(90));
}

#[test]
fn own_pings_follow_the_heartbeat_interval_and_come_at_least_every_30_s() {
    for (interval, expected) in [(1, 1), (30, 30), (0, 30), (86_400, 30)] {
        let (mut session, _) = Session::upgraded(s(0), Confirms::Pongs);
        session.received(s(5), register_ack(interval, None));
        assert_eq!(session.next_deadline(), Some(s(5 + expected)));
        assert_eq!(session.tick(s(5 + expected)), [Action::SendPing(Mark::Own(1))]);
        assert_eq!(session.next_deadline(), Some(s(5 + 2 * expected)));
    }
}

#[test]
fn a_barrier_passes_with_its_pong_and_dies_after_30_s_without() {
    let mut session = established();
    session.written(s(1), Mark::Barrier(7));
    session.written(s(2), Mark::Barrier(8));
    assert_eq!(
        session.received(s(3), Message::Pong(Mark::Barrier(9).payload())),
        [],
        "a pong nobody waits for"
    );
    assert_eq!(session.received(s(3), Message::Pong(Mark::Barrier(7).payload())), [Action::BarrierPassed(7)]);
    session.received(s(29), Message::Ping("alive".into()));
    assert!(session.next_deadline() <= Some(s(32)));
    session.tick(s(30));
    assert_eq!(session.tick(Duration::from_millis(31_999)), []);
    let why = LinkDown::BarrierTimeout(BARRIER_TIMEOUT);
    assert_eq!(session.tick(s(32)), [close(1001, &why), Action::Down(why)]);
}

#[test]
fn a_later_pong_answers_every_ping_before_it() {
    let mut session = established();
    session.written(s(1), Mark::Barrier(1));
    session.written(s(2), Mark::Own(1));
    session.written(s(3), Mark::Barrier(2));
    session.written(s(4), Mark::Barrier(3));
    assert_eq!(
        session.received(s(5), Message::Pong(Mark::Barrier(2).payload())),
        [Action::BarrierPassed(1), Action::BarrierPassed(2)]
    );
}

#[test]
fn pings_are_answered_with_the_same_payload() {
    assert_eq!(established().received(s(1), Message::Ping("abc".into())), [Action::SendPong("abc".into())]);
}

#[test]
fn commands_are_delivered_with_their_correlation_id() {
    let mut session = established();
    let order = v1::RunBackup { run_id: "r".into(), ..Default::default() };
    assert_eq!(
        session.received(s(1), message("c-1", Payload::RunBackup(order.clone()))),
        [Action::Deliver { correlation_id: "c-1".into(), command: Command::RunBackup(order) }]
    );
    assert_eq!(
        session.received(s(1), message("c-2", Payload::Ping(v1::Ping { ts_ms: 5 }))),
        [Action::AckPing { correlation_id: "c-2".into() }]
    );
    assert_eq!(
        session.received(s(1), register_ack(1, Some(config(9)))),
        [Action::Deliver { correlation_id: String::new(), command: Command::Configure(config(9)) }],
        "a second RegisterAck is a ConfigUpdate, not a second registration"
    );
}

#[test]
fn what_is_not_understood_is_refused_where_somebody_waits_and_ignored_otherwise() {
    let mut session = established();
    let unknown = |correlation_id: &str| {
        let envelope = wire::Envelope { correlation_id: correlation_id.into(), ..Default::default() };
        Message::Binary(prost::Message::encode_to_vec(&envelope).into())
    };
    assert_eq!(
        session.received(s(1), unknown("c-9")),
        [Action::Refuse { correlation_id: "c-9".into(), reason: "not supported by this agent version" }]
    );
    for ignored in [
        unknown(""),
        Message::Text(3),
        message("c", Payload::Heartbeat(v1::Heartbeat::default())),
        message("", Payload::ConfigUpdate(v1::ConfigUpdate { config: None })),
    ] {
        let actions = session.received(s(1), ignored);
        assert!(matches!(&actions[..], [Action::Ignored(_)]), "{actions:?}");
    }
    let ack = v1::Ack { correlation_id: "mine".into(), accepted: true, reason: String::new() };
    assert_eq!(
        session.received(s(1), message("", Payload::Ack(ack))),
        [Action::StrayAck { correlation_id: "mine".into() }]
    );
}

#[test]
fn the_peers_close_is_echoed_and_told() {
    for (code, reason) in [(Some(1012), Some("restart".to_owned())), (None, None)] {
        let mut session = established();
        assert_eq!(
            session.received(s(1), Message::Close { code, reason: reason.clone() }),
            [
                Action::Close { code, reason: String::new() },
                Action::Down(LinkDown::ClosedByPeer { code, reason })
            ]
        );
    }
}

#[test]
fn hanging_up_closes_with_1000_and_waits_a_second_for_the_answer() {
    let mut session = established();
    assert_eq!(session.end(s(5), LinkDown::Hangup), [close(1000, &LinkDown::Hangup)]);
    assert_eq!(session.received(s(5), Message::Ping("late".into())), [], "no frame follows a close");
    assert_eq!(session.end(s(5), LinkDown::NeighbourGone("queue")), [], "the first reason counts");
    assert_eq!(session.next_deadline(), Some(s(6)));
    assert_eq!(session.tick(s(6)), [Action::Down(LinkDown::Hangup)]);

    let mut session = established();
    session.end(s(5), LinkDown::Hangup);
    assert_eq!(
        session.received(s(5), Message::Close { code: Some(1000), reason: None }),
        [Action::Down(LinkDown::Hangup)]
    );
    assert_eq!(session.ended(s(5)), [], "down once");
}

#[test]
fn a_socket_that_ends_without_a_close_is_broken() {
    assert!(matches!(&established().ended(s(1))[..], [Action::Down(LinkDown::Broken(_))]));
    let reset = FrameError::Io("connection reset by peer".into());
    assert_eq!(
        established().faulty(s(1), reset),
        [Action::Down(LinkDown::Broken("connection reset by peer".into()))]
    );
}

#[test]
fn while_reading_is_held_silence_proves_nothing() {
    let mut session = established();
    session.written(s(1), Mark::Barrier(1));
    session.hold_reading(s(2), true);
    assert_eq!(session.next_deadline(), Some(s(30)), "only the next ping");
    assert_eq!(session.tick(s(500)), [Action::SendPing(Mark::Own(1))]);
    session.hold_reading(s(500), false);
    assert_eq!(session.tick(s(529)), []);
    let why = LinkDown::BarrierTimeout(BARRIER_TIMEOUT);
    assert_eq!(session.tick(s(530)), [close(1001, &why), Action::Down(why)]);
}

/// Registered at 0 s, with end-to-end acks agreed on, and these left at 1 s.
fn acking(seqs: std::ops::Range<u64>) -> Session {
    let (mut session, _) = Session::upgraded(s(0), Confirms::Acks);
    session.received(s(0), register_ack(0, None));
    seqs.for_each(|seq| session.sent_durable(s(1), seq, None));
    session
}

fn ack(correlation_id: &str, accepted: bool, reason: &str) -> Message {
    let reason = reason.to_owned();
    message("", Payload::Ack(v1::Ack { correlation_id: correlation_id.into(), accepted, reason }))
}

#[test]
fn an_ack_answers_the_message_of_its_seq_once_and_a_pong_none() {
    let mut session = acking(5..8);
    assert_eq!(session.received(s(2), ack("6", true, "")), [Action::Acked { seq: 6, refused: None }]);
    let stray = |id: &str| [Action::StrayAck { correlation_id: id.into() }];
    for id in ["6", "8", "", "cmd-1"] {
        assert_eq!(session.received(s(2), ack(id, true, "")), stray(id));
    }
    assert_eq!(
        session.received(s(2), ack("5", false, "no such run")),
        [Action::Acked { seq: 5, refused: Some("no such run".into()) }]
    );
    assert_eq!(session.received(s(2), Message::Pong(Mark::Barrier(7).payload())), []);
}

#[test]
fn an_ack_that_does_not_come_within_30_s_ends_the_link_though_others_come() {
    let why = LinkDown::AckTimeout(ACK_TIMEOUT);
    let mut session = acking(5..8);
    session.received(s(20), ack("7", true, ""));
    session.received(s(30), Message::Ping("alive".into()));
    assert_eq!(session.tick(Duration::from_millis(30_999)).len(), 1, "an own ping");
    assert_eq!(session.tick(s(31)), [close(1001, &why), Action::Down(why.clone())]);

    let mut session = acking(5..7);
    session.received(s(25), ack("5", true, ""));
    session.tick(s(30));
    assert_eq!(session.tick(s(54)), [], "6 has been the oldest for 29 s");
    session.hold_reading(s(54), true);
    assert_eq!(session.tick(s(59)), [], "nothing is read: nothing is proved");
    session.hold_reading(s(60), false);
    session.tick(s(60));
    assert_eq!(session.tick(s(89)), []);
    assert!(matches!(&session.tick(s(90))[..], [.., Action::Down(down)] if *down == why));
}

#[test]
fn a_probe_is_proved_by_its_pong_and_missed_by_nobody() {
    let mut session = established();
    session.written(s(1), Mark::Probe(3));
    session.written(s(2), Mark::Own(1));
    assert_eq!(
        session.received(s(3), Message::Pong(Mark::Own(1).payload())),
        [Action::BarrierPassed(3), Action::RoundTrip(s(1))],
        "what stood before a ping that was answered was read"
    );
    (0..1000).for_each(|token| session.written(s(4), Mark::Probe(token)));
    assert_eq!(session.outstanding.len(), 1, "a peer without pongs costs no memory");
    session.received(s(60), Message::Ping("alive".into()));
    assert!(session.tick(s(60)).iter().all(|action| matches!(action, Action::SendPing(_))));
}

#[test]
fn a_message_that_is_too_heavy_is_refused_by_a_registered_agent_and_closes_with_1009_before() {
    let targets = vec![v1::Target::default(); 50_000];
    let heavy = v1::AgentConfig { targets, ..config(7) };
    let update =
        |id: &str| message(id, Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(heavy.clone()) }));
    let mut session = established();
    let refused = session.received(s(1), update("cfg-7"));
    assert!(
        matches!(&refused[..], [Action::Refuse { correlation_id, .. }] if correlation_id == "cfg-7"),
        "{refused:?}"
    );
    assert!(matches!(&session.received(s(1), update(""))[..], [Action::Ignored(_)]));
    let (mut fresh, _) = Session::upgraded(s(0), Confirms::Pongs);
    let actions = fresh.received(s(1), register_ack(0, Some(heavy.clone())));
    assert!(matches!(&actions[..], [Action::Close { code: Some(1009), .. }]), "{actions:?}");
}
