//! What flows through an established link: windows, barriers, commands, pings.

use super::bench::{Bench, Dial, Server, about, link, register_ack, window};
use actix::prelude::*;
use backupy_agent::actors::messages::{BarrierPassed, Command, Confirms, LinkGone, Proof, Submit, Transmit};
use backupy_agent::channel::LinkDown;
use backupy_agent::channel::frame::{Frame, FrameKind};
use backupy_agent::wire::{Payload, v1};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn text_of(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.payload).into_owned()
}

#[actix::test]
async fn windows_go_out_in_order_and_a_barrier_follows_its_window() {
    let (bench, mut server) = Bench::established().await;
    let link = bench.link().await;
    let sends: Vec<_> = (0..4).map(|n| link.send(window(n * 3..n * 3 + 3, (n == 1).then_some(99)))).collect();
    let mut seen = Vec::new();
    let mut ping = None;
    for _ in 0..13 {
        let frame = server.next().await;
        if frame.kind == FrameKind::Binary {
            seen.push(text_of(&frame));
        } else {
            assert_eq!((frame.kind, seen.len()), (FrameKind::Ping, 6), "right after the second window");
            ping = Some(frame);
        }
    }
    assert_eq!(seen, (0..12).map(|seq| format!("envelope {seq}")).collect::<Vec<_>>());
    for send in sends {
        assert_eq!(send.await.unwrap(), Ok(()));
    }
    assert!(bench.barriers.lock().unwrap().is_empty(), "written is not read");
    server.send(Frame::pong(ping.unwrap().payload));
    sleep(Duration::from_millis(1)).await;
    let passed: Vec<(u64, u64)> = bench
        .barriers
        .lock()
        .unwrap()
        .iter()
        .map(|BarrierPassed { generation, token }| (*generation, *token))
        .collect();
    assert_eq!(passed, [(7, 99)]);
}

#[actix::test]
async fn a_barrier_without_its_pong_ends_the_link_after_30_s() {
    let (bench, mut server) = Bench::established().await;
    let link = bench.link().await;
    link.send(window(0..1, Some(5))).await.unwrap().unwrap();
    let written = Instant::now();
    // Alive, but deaf to this ping.
    for _ in 0..10 {
        sleep(Duration::from_secs(2)).await;
        server.send(Frame::ping("alive"));
    }
    let (_, down) = bench.end().await;
    about(written.elapsed(), 30);
    assert_eq!(down, LinkDown::BarrierTimeout(Duration::from_secs(30)));
    assert_eq!(server.next_close().await.0, 1001);
}

#[actix::test]
async fn a_slow_peer_pushes_back_to_who_sends() {
    let (one_frame, mut server) = link(1);
    let bench = Bench::new(Dial::Succeed(one_frame));
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    let link = bench.link().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    for n in 0..5_u64 {
        let (send, done) = (link.send(window(n * 4..n * 4 + 4, None)), done.clone());
        actix::spawn(async move {
            assert_eq!(send.await.unwrap(), Ok(()));
            done.lock().unwrap().push(n);
        });
    }
    sleep(Duration::from_secs(1)).await;
    assert!(done.lock().unwrap().is_empty(), "nothing was read yet");
    for seq in 0..20 {
        let frame = server.next().await;
        assert_eq!(text_of(&frame), format!("envelope {seq}"));
        sleep(Duration::from_secs(1)).await;
        let flushed = done.lock().unwrap().len() as u64;
        assert!(flushed * 4 <= seq + 2, "{flushed} windows are told done after {} messages", seq + 1);
    }
    assert_eq!(*done.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[actix::test]
async fn a_write_that_stalls_for_10_s_ends_the_link() {
    let (one_frame, mut server) = link(1);
    let bench = Bench::new(Dial::Succeed(one_frame));
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    let link = bench.link().await;
    let begin = Instant::now();
    let outcomes = tokio::join!(link.send(window(0..100, None)), link.send(window(100..200, Some(1))));
    assert_eq!((outcomes.0.unwrap(), outcomes.1.unwrap()), (Err(LinkGone), Err(LinkGone)));
    let (_, down) = bench.end().await;
    assert_eq!(down, LinkDown::WriteTimeout(Duration::from_secs(10)));
    // The socket's own shutdown gets its second.
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(12), "{took:?}");
    assert_eq!(link.send(window(0..1, None)).await.ok(), None, "the address is closed");
}

#[actix::test]
async fn control_frames_pass_between_the_messages_of_a_window() {
    let (one_frame, mut server) = link(1);
    let bench = Bench::new(Dial::Succeed(one_frame));
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    let link = bench.link().await;
    let send = link.send(window(0..50, None));
    actix::spawn(async move {
        let _ = send.await;
    });
    server.next().await;
    server.send(Frame::ping("now"));
    sleep(Duration::from_millis(1)).await;
    let mut before = 0;
    while server.next().await != Frame::pong("now") {
        before += 1;
    }
    assert!(before < 5, "{before} messages went before the pong");
}

#[actix::test]
async fn a_ping_is_answered_by_an_ephemeral_ack_also_while_a_command_is_being_taken() {
    let (memory, mut server) = link(64);
    let bench = Bench::with_dispatcher(Dial::Succeed(memory), |_| {
        Box::pin(sleep(Duration::from_secs(5))) as ResponseFuture<()>
    });
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    bench.link().await;
    server.say("slow", Payload::RunBackup(v1::RunBackup::default()));
    server.say("p-1", Payload::Ping(v1::Ping { ts_ms: 1 }));
    server.send(Frame::binary(prost::Message::encode_to_vec(&backupy_agent::wire::Envelope {
        correlation_id: "new".into(),
        ..Default::default()
    })));
    sleep(Duration::from_millis(10)).await;
    let submits: Vec<Submit> = bench.submits.lock().unwrap().clone();
    assert_eq!(submits.len(), 2);
    assert!(submits.iter().all(|submit| submit.ephemeral));
    let answers: Vec<_> = submits
        .iter()
        .map(|submit| {
            let Payload::Ack(ack) = &submit.payload else { panic!("{submit:?}") };
            assert_eq!(submit.correlation_id, ack.correlation_id);
            (ack.correlation_id.as_str(), ack.accepted, ack.reason.as_str())
        })
        .collect();
    assert_eq!(answers, [("p-1", true, ""), ("new", false, "not supported by this agent version")]);
}

/// Welcomed; each command takes 100 ms.
async fn slow_commands() -> (Bench, Server) {
    let (memory, mut server) = link(64);
    let bench = Bench::with_dispatcher(Dial::Succeed(memory), |_| {
        Box::pin(sleep(Duration::from_millis(100))) as ResponseFuture<()>
    });
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    bench.link().await;
    (bench, server)
}

#[actix::test]
async fn commands_keep_their_order_and_a_flood_of_them_waits_on_the_wire() {
    let (bench, server) = slow_commands().await;
    let before = server.read.get();
    for n in 0..1000 {
        server.say(&n.to_string(), Payload::CancelJob(v1::CancelJob { job_id: "j".into() }));
    }
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.read.get() - before, 64, "the rest is left to TCP");
    sleep(Duration::from_secs(110)).await;
    let ids: Vec<String> = bench.commands.lock().unwrap().iter().map(|c| c.correlation_id.clone()).collect();
    assert_eq!(ids, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(bench.ends.lock().unwrap().is_empty(), "while reading is held, silence kills nobody");
}

#[actix::test]
async fn what_a_command_takes_once_it_is_decoded_decides_whether_the_next_one_is_read() {
    let (bench, server) = slow_commands().await;
    let before = server.read.get();
    // 24 kB on the wire, more than 4 MiB in memory.
    let targets = vec![v1::Target::default(); 12_000];
    for version in 1..=20 {
        let config = v1::AgentConfig { version, targets: targets.clone(), ..Default::default() };
        let update = v1::ConfigUpdate { config: Some(config) };
        server.say(&version.to_string(), Payload::ConfigUpdate(update));
    }
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.read.get() - before, 1, "the rest is left to TCP");
    sleep(Duration::from_secs(3)).await;
    let ids: Vec<String> = bench.commands.lock().unwrap().iter().map(|c| c.correlation_id.clone()).collect();
    assert_eq!(ids, (1..=20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[actix::test]
async fn of_configurations_that_wait_only_the_newest_is_applied_unless_an_answer_is_wanted() {
    let (bench, server) = slow_commands().await;
    let configure = |id: &str, version| {
        let config = Some(v1::AgentConfig { version, ..v1::AgentConfig::default() });
        server.say(id, Payload::ConfigUpdate(v1::ConfigUpdate { config }));
    };
    for version in 1..=5000 {
        configure("", version);
    }
    // An older one is still refused by name, and what is answered is never skipped.
    for (id, version) in [("", 4), ("", 6000), ("asked", 6001), ("", 6002), ("", 6003)] {
        configure(id, version);
    }
    sleep(Duration::from_secs(10)).await;
    let versions: Vec<u64> = bench
        .commands
        .lock()
        .unwrap()
        .iter()
        .map(|command| {
            let Command::Configure(config) = &command.command else { panic!("{command:?}") };
            config.version
        })
        .collect();
    assert_eq!(versions, [1, 5000, 6000, 6001, 6003]);
}

#[actix::test]
async fn a_flood_of_pings_is_answered_without_piling_up() {
    let (one_frame, mut server) = link(1);
    let bench = Bench::new(Dial::Succeed(one_frame));
    server.next_envelope().await;
    server.say("", register_ack(0, None));
    bench.link().await;
    for n in 0..10_000 {
        server.send(Frame::ping(n.to_string()));
    }
    sleep(Duration::from_millis(10)).await;
    let mut pongs = Vec::new();
    while pongs.last().map(String::as_str) != Some("9999") {
        pongs.push(text_of(&server.next().await));
    }
    assert!(pongs.len() < 50, "{} pongs waited", pongs.len());
}

fn acked(bench: &Bench) -> Vec<(u64, Option<String>)> {
    let acks = bench.acks.lock().unwrap();
    acks.iter().map(|acked| (acked.seq, acked.refused.clone())).collect()
}

fn to_be_acked(seqs: std::ops::Range<u64>) -> Transmit {
    Transmit { envelopes: seqs.map(super::bench::outgoing).collect(), proof: Proof::Acks }
}

#[actix::test]
async fn a_server_that_agreed_on_acks_confirms_by_them_alone() {
    let (bench, mut server) = Bench::acking().await;
    assert_eq!(bench.ups.lock().unwrap()[0].confirms, Confirms::Acks);
    let link = bench.link().await;
    link.send(to_be_acked(3..6)).await.unwrap().unwrap();
    for _ in 3..6 {
        assert_eq!(server.next().await.kind, FrameKind::Binary);
    }
    let ack = |id: &str, accepted| {
        let reason = if accepted { "" } else { "unknown run" }.to_owned();
        Payload::Ack(v1::Ack { correlation_id: id.into(), accepted, reason })
    };
    for (id, accepted) in [("5", true), ("5", true), ("9", true), ("", true), ("x", true), ("3", false)] {
        server.say("", ack(id, accepted));
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(acked(&bench), [(5, None), (3, Some("unknown run".into()))]);
    // The link lives, and 4 ends it.
    for _ in 0..14 {
        sleep(Duration::from_secs(2)).await;
        server.send(Frame::ping("alive"));
    }
    assert!(bench.ends.lock().unwrap().is_empty());
    assert_eq!(bench.end().await.1, LinkDown::AckTimeout(Duration::from_secs(30)));
    assert_eq!(server.next_close().await.0, 1001);
}

#[actix::test]
async fn acks_of_a_server_that_did_not_agree_on_them_confirm_nothing() {
    let (bench, server) = Bench::established().await;
    let link = bench.link().await;
    link.send(window(1..3, Some(7))).await.unwrap().unwrap();
    for id in ["1", "2"] {
        server.say(
            "",
            Payload::Ack(v1::Ack { correlation_id: id.into(), accepted: true, ..Default::default() }),
        );
    }
    sleep(Duration::from_millis(1)).await;
    assert!(acked(&bench).is_empty() && bench.barriers.lock().unwrap().is_empty());
    assert!(bench.ends.lock().unwrap().is_empty());
}

#[actix::test]
async fn a_flood_of_tiny_frames_leaves_everybody_else_their_turn() {
    let (bench, server) = Bench::established().await;
    for _ in 0..200_000 {
        server.send(Frame::pong(""));
    }
    // A neighbour that must have its turn while the flood is being read.
    let turns = actix::spawn(async move {
        let mut turns = 0_u32;
        while server.read.get() < 200_000 {
            turns += 1;
            tokio::task::yield_now().await;
        }
        (turns, server)
    });
    let (turns, _server) = turns.await.unwrap();
    assert!(turns > 1_000, "{turns} turns during 200,000 frames");
    assert!(bench.ends.lock().unwrap().is_empty());
}
