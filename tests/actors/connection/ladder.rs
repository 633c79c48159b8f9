//! dial -> register -> established -> closing, and every way to fall off.

use super::bench::{Bench, Dial, GENERATION, PANIC, SEQ, about, link, register_ack, window};
use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::connection::LinkListener;
use backupy_agent::actors::messages::{
    AreYouThere, ChildExit, Command, Hangup, LinkLost, LinkUp, QueueError, ServerCommand, TakeSeq,
};
use backupy_agent::channel::frame::{Frame, FrameError, FrameKind};
use backupy_agent::channel::{DialError, LinkDown};
use backupy_agent::model::LinkState;
use backupy_agent::wire::{Payload, v1};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn states(bench: &Bench) -> Vec<LinkState> {
    bench.states.lock().unwrap().iter().map(|changed| changed.state).collect()
}

#[actix::test]
async fn the_ladder_goes_up_rung_by_rung() {
    let (link, mut server) = link(64);
    let bench = Bench::with_dispatcher(Dial::Succeed(link), |_| Box::pin(sleep(Duration::from_secs(2))));
    let register = server.next_envelope().await;
    assert_eq!(register.seq, SEQ);
    assert!(matches!(&register.payload, Some(Payload::Register(register)) if register.hostname == "db-1"));
    assert_eq!(states(&bench), [LinkState::Dialing, LinkState::Registering]);

    let config = v1::AgentConfig { version: 3, ..Default::default() };
    server.say("", register_ack(5, Some(config.clone())));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(states(&bench).last(), Some(&LinkState::Established));
    {
        let states = bench.states.lock().unwrap();
        let established = states.last().unwrap();
        assert_eq!(established.generation, GENERATION);
        assert_eq!(established.session_id.as_deref(), Some("s-1"));
        assert_eq!(established.heartbeat_interval, Some(Duration::from_secs(5)));
    }
    let commands: Vec<Command> = bench.commands.lock().unwrap().iter().map(|c| c.command.clone()).collect();
    assert_eq!(commands, [Command::Configure(config)]);
    assert!(bench.ups.lock().unwrap().is_empty(), "the configuration is not taken yet");
    sleep(Duration::from_millis(1100)).await;
    let ups = bench.ups.lock().unwrap();
    assert_eq!(ups.len(), 1);
    assert_eq!((ups[0].generation, ups[0].heartbeat_interval), (GENERATION, Duration::from_secs(5)));
}

#[actix::test]
async fn a_failed_dial_ends_it_at_once() {
    let error = DialError::Unauthorized { host: "plane.test:443".into(), status: 401 };
    let bench = Bench::new(Dial::Fail(error.clone()));
    let (after, down) = bench.end().await;
    about(after, 0);
    assert_eq!(down, LinkDown::Dial(error));
    assert!(bench.losts.lock().unwrap().is_empty(), "a link that never was is not lost");
}

#[actix::test]
async fn a_dial_that_never_ends_is_given_up_after_15_s() {
    let (after, down) = Bench::new(Dial::Never).end().await;
    about(after, 15);
    let limit = Duration::from_secs(15);
    assert_eq!(down, LinkDown::Dial(DialError::Timeout { host: "plane.test:443".into(), limit }));
}

#[actix::test]
async fn a_queue_that_cannot_give_a_seq_ends_it_with_1011() {
    let (link, mut server) = link(64);
    let bench = Bench::new(Dial::Succeed(link));
    let mut neighbours = bench.neighbours.clone();
    neighbours.take_seq = fake::quick(|_: &TakeSeq| Err(QueueError::StoreGone)).0;
    bench.connection.do_send(neighbours);
    assert_eq!(server.next_close().await.0, 1011);
    assert_eq!(bench.end().await.1, LinkDown::NeighbourGone("queue"));
}

#[actix::test]
async fn no_register_ack_within_15_s_closes_with_1008() {
    let (bench, mut server) = Bench::registering().await;
    assert_eq!(server.next_close().await.0, 1008);
    about(bench.begin.elapsed(), 15);
    let (after, down) = bench.end().await;
    about(after, 16);
    assert_eq!(down, LinkDown::RegisterTimeout(Duration::from_secs(15)));
}

#[actix::test]
async fn a_wrong_first_answer_closes_with_1008() {
    let ping = backupy_agent::wire::encode(1, 2, "c", Payload::Ping(v1::Ping { ts_ms: 1 })).unwrap();
    let text = Frame { kind: FrameKind::Text, fin: true, payload: "{}".into() };
    for first in [Frame::binary(ping), text] {
        let (bench, mut server) = Bench::registering().await;
        server.send(first);
        assert_eq!(server.next_close().await.0, 1008);
        server.send(Frame::close(Some(1008), ""));
        let (after, down) = bench.end().await;
        about(after, 0);
        assert!(matches!(down, LinkDown::NotRegisterAck(_)), "{down:?}");
        assert!(bench.ups.lock().unwrap().is_empty());
    }
}

#[actix::test]
async fn garbage_closes_with_1007() {
    let (bench, mut server) = Bench::established().await;
    server.send(Frame::binary("\u{7f}\u{7f}garbage"));
    assert_eq!(server.next_close().await.0, 1007);
    assert!(matches!(bench.end().await.1, LinkDown::Undecodable(_)));
}

#[actix::test]
async fn a_frame_refused_by_its_header_closes_with_1009() {
    let (bench, mut server) = Bench::established().await;
    server.fault(FrameError::TooLarge { bytes: 200 << 20, limit: 4 << 20 });
    assert_eq!(server.next_close().await.0, 1009);
    server.cut();
    assert_eq!(bench.end().await.1, LinkDown::TooLarge { bytes: 200 << 20, limit: 4 << 20 });
}

#[actix::test]
async fn fragments_over_the_limit_close_with_1009() {
    let (bench, mut server) = Bench::established().await;
    server.send(Frame { kind: FrameKind::Binary, fin: false, payload: vec![0; 1 << 20].into() });
    server.send(Frame { kind: FrameKind::Continuation, fin: true, payload: vec![0; 4 << 20].into() });
    assert_eq!(server.next_close().await.0, 1009);
    assert!(matches!(bench.end().await.1, LinkDown::TooLarge { .. }));
}

#[actix::test]
async fn silence_kills_after_90_s_and_pongs_keep_alive() {
    let (bench, mut server) = Bench::established().await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(600) {
        let ping = server.next().await;
        assert_eq!(ping.kind, FrameKind::Ping);
        server.send(Frame::pong(ping.payload));
    }
    sleep(Duration::from_millis(5)).await;
    assert_eq!(bench.trips.lock().unwrap().len(), 20, "every pong is a round trip");
    assert!(bench.ends.lock().unwrap().is_empty());

    let silent_since = bench.begin.elapsed();
    let (after, down) = bench.end().await;
    about(after - silent_since + Duration::from_millis(10), 90);
    assert_eq!(down, LinkDown::Idle(Duration::from_secs(90)));
    assert_eq!(server.next_close().await.0, 1001);
    assert_eq!(bench.losts.lock().unwrap().len(), 1);
}

#[actix::test]
async fn the_peers_close_is_echoed_and_named() {
    let (bench, mut server) = Bench::established().await;
    server.send(Frame::close(Some(1012), "restart"));
    assert_eq!(server.next_close().await.0, 1012);
    let (after, down) = bench.end().await;
    about(after, 0);
    assert_eq!(down, LinkDown::ClosedByPeer { code: Some(1012), reason: Some("restart".into()) });
    assert!(server.received.recv().await.is_none(), "the socket is shut");
}

#[actix::test]
async fn a_cut_link_is_broken() {
    let (bench, mut server) = Bench::established().await;
    server.cut();
    assert!(matches!(bench.end().await.1, LinkDown::Broken(_)));
}

#[actix::test]
async fn a_refused_write_does_not_hide_the_close_frame_behind_it() {
    let (bench, mut server) = Bench::established().await;
    server.received.close();
    let link = bench.link().await;
    let sent = link.send(window(1..2, None)).await.unwrap();
    assert!(sent.is_err());
    server.send(Frame::close(Some(1013), "try later"));
    let (_, down) = bench.end().await;
    assert_eq!(down, LinkDown::ClosedByPeer { code: Some(1013), reason: Some("try later".into()) });
}

#[actix::test]
async fn hanging_up_says_1000_on_every_rung() {
    {
        let bench = Bench::new(Dial::Never);
        bench.connection.send(Hangup).await.unwrap();
        about(bench.begin.elapsed(), 0);
        assert_eq!(bench.end().await.1, LinkDown::Hangup);
    }
    for registered in [false, true] {
        let (bench, mut server) =
            if registered { Bench::established().await } else { Bench::registering().await };
        let goodbye = bench.connection.send(Hangup);
        let peer = async {
            assert_eq!(server.next_close().await, (1000, "agent stops".into()));
            server.send(Frame::close(Some(1000), ""));
        };
        let (answer, ()) = tokio::join!(goodbye, peer);
        answer.unwrap();
        about(bench.begin.elapsed(), 0);
        assert_eq!(bench.end().await.1, LinkDown::Hangup);
    }
}

#[actix::test]
async fn hanging_up_on_a_peer_that_does_not_answer_takes_a_second() {
    let (bench, _server) = Bench::established().await;
    let begin = Instant::now();
    bench.connection.send(Hangup).await.unwrap();
    about(begin.elapsed(), 1);
    assert_eq!(states(&bench).last(), Some(&LinkState::Closing));
}

#[actix::test]
async fn a_panic_is_told_as_one() {
    let bench = Bench::new(Dial::Panic);
    assert_eq!(bench.exit().await.1, ChildExit::Panicked);
}

/// The Queue then sends again what this link did not confirm: `what_a_lost_link_did_not_confirm_goes_out_again`.
#[actix::test]
async fn a_panic_in_the_middle_of_a_link_is_told_to_those_who_used_it() {
    let (bench, server) = Bench::established().await;
    bench.link().await;
    server.fault(FrameError::Io(PANIC.into()));
    assert_eq!(bench.exit().await.1, ChildExit::Panicked);
    assert_eq!(bench.losts.lock().unwrap().len(), 1, "the Queue must know that nothing more is confirmed");
}

#[actix::test]
async fn it_answers_on_every_rung() {
    {
        let dialing = Bench::new(Dial::Never);
        dialing.connection.send(AreYouThere).await.unwrap();
    }
    let (established, _server) = Bench::established().await;
    established.connection.send(AreYouThere).await.unwrap();
}

#[actix::test]
async fn a_listener_that_was_replaced_hears_that_the_link_is_up() {
    let (bench, _server) = Bench::established().await;
    let (up, ups) = fake::quick(|_: &LinkUp| ());
    let (lost, losts) = fake::quick(|_: &LinkLost| ());
    let mut neighbours = bench.neighbours.clone();
    neighbours.listeners.push(LinkListener { up, lost });
    bench.connection.send(neighbours).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ups.lock().unwrap().len(), 1);
    assert_eq!(bench.ups.lock().unwrap().len(), 1, "who knew it is not told again");
    bench.connection.send(Hangup).await.unwrap();
    bench.end().await;
    assert_eq!((losts.lock().unwrap().len(), bench.losts.lock().unwrap().len()), (1, 1));
}

#[actix::test]
async fn a_dispatcher_that_is_gone_or_silent_ends_the_link() {
    let (bench, mut server) = Bench::established().await;
    let silent = fake::slow(|_: &ServerCommand| Box::pin(std::future::pending()) as ResponseFuture<()>).0;
    let mut neighbours = bench.neighbours.clone();
    neighbours.commands = silent;
    bench.connection.send(neighbours).await.unwrap();
    let asked = Instant::now();
    server.say("c", Payload::CancelJob(v1::CancelJob::default()));
    // Meanwhile the peer is answered.
    sleep(Duration::from_secs(20)).await;
    server.send(Frame::ping("still there?"));
    assert_eq!(server.next().await, Frame::pong("still there?"));
    assert_eq!(server.next_close().await.0, 1011);
    about(asked.elapsed(), 30);
    assert_eq!(bench.end().await.1, LinkDown::NeighbourGone("dispatcher"));
}
