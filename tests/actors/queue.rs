//! Order, windows, slots, bounds; with the real StateStore and links that answer as the test says.

mod acks;
mod bounds;
mod lives;

use crate::bench::{self, Bench, log, result_of, settle};
use backupy_agent::actors::messages::{
    BarrierPassed, GetQueueStatus, GetStoreStatus, LinkGone, LinkLost, QueueError, Submit, Submitted, TakeSeq,
};
use backupy_agent::wire::{self, Payload, v1};
use futures_util::future::join_all;

fn heartbeat() -> Payload {
    Payload::Heartbeat(v1::Heartbeat::default())
}

fn progress(run_id: &str, percent: u32) -> Payload {
    Payload::JobUpdate(v1::JobUpdate {
        run_id: run_id.into(),
        status: v1::JobStatus::Running.into(),
        progress_percent: percent,
        ..v1::JobUpdate::default()
    })
}

#[actix::test]
async fn a_durable_message_is_on_disk_before_its_sender_hears_yes() {
    let bench = Bench::new().await;
    let seq = bench.durable(log("one")).await;
    assert_eq!(bench.seqs_on_disk(), [seq]);
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.in_flight, status.last_seq), (1, 0, seq));
    assert!(status.bytes > 0);
}

#[actix::test]
async fn many_senders_at_once_are_sent_in_the_order_of_their_seq() {
    let bench = Bench::new().await;
    let wire = bench.link_up(1);
    let answers = join_all((0..200).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let seqs: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer.unwrap().unwrap() {
            Submitted::OnDisk(seq) => seq,
            other @ (Submitted::InSlot | Submitted::Sent) => panic!("{other:?}"),
        })
        .collect();
    assert!(seqs.is_sorted(), "in the order in which they were submitted");
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs(), seqs);
    let messages: Vec<_> = wire.envelopes().iter().map(bench::text_of).collect();
    assert_eq!(messages, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[actix::test]
async fn the_window_rolls_256_in_flight_with_a_barrier_every_64() {
    let bench = Bench::new().await;
    let mut seqs = Vec::new();
    for n in 0..400 {
        seqs.push(bench.durable(log(&n.to_string())).await);
    }
    let in_flight = async || bench.queue.send(GetQueueStatus).await.unwrap().in_flight;
    let wire = bench.link_up(1);
    settle().await;
    assert_eq!(wire.seqs(), seqs[..256]);
    assert_eq!(wire.barriers().len(), 4);
    assert_eq!(in_flight().await, 256);
    assert_eq!(bench.seqs_on_disk().len(), 400, "nothing leaves the disk before a barrier");

    let barriers = wire.barriers();
    bench.pass_one(&wire, barriers[0]).await;
    assert_eq!(wire.seqs(), seqs[..320], "the next 64 go while 192 are in flight");
    assert_eq!(bench.seqs_on_disk(), seqs[64..]);
    assert_eq!(in_flight().await, 256);
    bench.pass_one(&wire, barriers[2]).await;
    assert_eq!(bench.seqs_on_disk(), seqs[192..], "a barrier proves what stood before it too");
    bench.pass_one(&wire, barriers[1]).await;
    assert_eq!(bench.seqs_on_disk(), seqs[192..], "late, and no news");
    assert_eq!(wire.seqs(), seqs, "each once");
    bench.confirm_everything(&wire).await;
    assert!(bench.seqs_on_disk().is_empty());
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.bytes, status.in_flight), (0, 0, 0));
}

#[actix::test]
async fn confirmed_messages_leave_the_disk_in_one_transaction_a_barrier_or_fewer() {
    let bench = Bench::new().await;
    join_all((0..640).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let commits = async || bench.store.send(GetStoreStatus).await.unwrap().commits;
    let before = commits().await;
    let wire = bench.link_up(1);
    bench.confirm_everything(&wire).await;
    assert!(bench.seqs_on_disk().is_empty());
    let commits = commits().await - before;
    assert!((3..=10).contains(&commits), "{commits} transactions for 640 messages in 10 barriers");
}

#[actix::test]
async fn new_messages_go_out_behind_the_waiting_ones() {
    let bench = Bench::new().await;
    join_all((0..300).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let wire = bench.link_up(1);
    settle().await;
    let late = bench.durable(log("late")).await;
    bench.submit(heartbeat()).await.unwrap();
    assert!(!wire.seqs().contains(&late), "44 older ones wait for room");
    assert!(bench::kinds(&wire).contains(&"heartbeat"), "which waits for no room");
    bench.confirm_everything(&wire).await;
    let durable: Vec<_> = wire
        .envelopes()
        .into_iter()
        .filter(|envelope| matches!(envelope.payload, Some(Payload::Log(_))))
        .map(|envelope| envelope.seq)
        .collect();
    assert!(durable.is_sorted() && durable.len() == 301 && durable.last() == Some(&late));
}

#[actix::test]
async fn a_window_of_large_messages_ends_at_4_mib() {
    let bench = Bench::new().await;
    let big = "x".repeat(1024 * 1024);
    for _ in 0..6 {
        bench.durable(log(&big)).await;
    }
    let wire = bench.link_up(1);
    settle().await;
    assert_eq!(wire.seqs().len(), 3, "a fourth with its envelope would be over");
    assert_eq!(wire.told().len(), 3, "each in a part of its own");
    assert_eq!(wire.barriers().len(), 3, "each is a barrier's worth");
    bench.pass_one(&wire, wire.barriers()[0]).await;
    assert_eq!(wire.seqs().len(), 4, "into the room of the first");
    bench.confirm_everything(&wire).await;
    assert_eq!(wire.seqs().len(), 6);
}

#[actix::test]
async fn what_a_lost_link_did_not_confirm_goes_out_again_with_its_seq_and_time() {
    let bench = Bench::new().await;
    for n in 0..300 {
        bench.durable(log(&n.to_string())).await;
    }
    let first = bench.link_up(1);
    settle().await;
    bench.queue.send(LinkLost { generation: 1 }).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let second = bench.link_up(2);
    settle().await;
    let all =
        |wire: &bench::Wire| wire.told().into_iter().flat_map(|part| part.envelopes).collect::<Vec<_>>();
    assert_eq!(all(&second), all(&first), "byte for byte");
    bench.confirm_everything(&second).await;
    assert_eq!(second.seqs(), (first.seqs()[0]..first.seqs()[0] + 300).collect::<Vec<_>>());
    assert!(bench.seqs_on_disk().is_empty());
}

#[actix::test]
async fn a_barrier_of_another_link_or_another_token_confirms_nothing() {
    let bench = Bench::new().await;
    let seq = bench.durable(log("one")).await;
    let old = bench.link_up(1);
    settle().await;
    let wire = bench.link_up(2);
    settle().await;
    let (old_token, token) = (old.barriers()[0], wire.barriers()[0]);
    assert_ne!(old_token, token);
    for (generation, token) in [(1, old_token), (2, old_token), (1, token), (2, token + 1), (3, token)] {
        bench.queue.send(BarrierPassed { generation, token }).await.unwrap();
    }
    settle().await;
    assert_eq!(bench.seqs_on_disk(), [seq]);
    bench.queue.send(BarrierPassed { generation: 2, token }).await.unwrap();
    settle().await;
    assert!(bench.seqs_on_disk().is_empty());
}

#[actix::test]
async fn a_link_that_cannot_write_is_lost_and_the_end_of_an_older_one_means_nothing() {
    let bench = Bench::new().await;
    let broken = bench.link_with(1, |_| Box::pin(async { Err(LinkGone) }));
    bench.durable(log("one")).await;
    settle().await;
    assert_eq!(broken.told().len(), 1);
    assert_eq!(
        bench.queue.send(Submit::new(heartbeat())).await.unwrap(),
        Err(QueueError::NotConnected),
        "nothing more is given to it"
    );
    let wire = bench.link_up(2);
    bench.queue.send(LinkLost { generation: 1 }).await.unwrap();
    settle().await;
    assert_eq!(wire.seqs(), broken.seqs());
    assert_eq!(bench.queue.send(Submit::new(heartbeat())).await.unwrap(), Ok(Submitted::Sent));
}

#[actix::test]
async fn of_a_slot_the_newest_is_sent_and_nothing_once_the_run_is_over() {
    let bench = Bench::new().await;
    for percent in [10, 20, 30] {
        assert_eq!(bench.submit(progress("a", percent)).await, Ok(Submitted::InSlot));
    }
    bench.submit(progress("b", 50)).await.unwrap();
    bench.submit(Payload::Discovery(v1::DiscoveryReport::default())).await.unwrap();
    let end = bench.durable(result_of("b")).await;
    let wire = bench.link_up(1);
    settle().await;
    let sent = wire.envelopes();
    let of_a: Vec<_> = sent.iter().filter_map(bench::percent_of).collect();
    assert_eq!(of_a, [30]);
    assert!(sent.iter().any(|envelope| matches!(envelope.payload, Some(Payload::Discovery(_)))));
    assert!(wire.seqs().contains(&end));
    assert_eq!(sent.len(), 3);
    assert_eq!(bench.seqs_on_disk(), [end], "slots are never on disk");
}

#[actix::test]
async fn progress_that_a_lost_link_did_not_write_is_sent_by_the_next() {
    let bench = Bench::new().await;
    bench.link_with(1, |_| Box::pin(std::future::pending()));
    bench.submit(progress("a", 10)).await.unwrap();
    settle().await;
    let wire = bench.link_up(2);
    settle().await;
    assert_eq!(wire.envelopes().iter().filter_map(bench::percent_of).collect::<Vec<_>>(), [10]);
}

#[actix::test]
async fn progress_that_was_written_just_before_the_link_broke_is_sent_again_until_a_pong_proves_it_read() {
    let bench = Bench::new().await;
    let percents =
        |wire: &bench::Wire| wire.envelopes().iter().filter_map(bench::percent_of).collect::<Vec<_>>();
    let first = bench.link_up(1);
    bench.submit(progress("a", 10)).await.unwrap();
    bench.submit(progress("b", 20)).await.unwrap();
    settle().await;
    assert!(first.barriers().is_empty(), "no pong of theirs must come");
    bench.queue.send(LinkLost { generation: 1 }).await.unwrap();
    bench.submit(progress("b", 30)).await.unwrap();

    let second = bench.link_up(2);
    settle().await;
    assert_eq!(percents(&second), [10, 30]);
    let token = *second.probes().last().unwrap();
    bench.pass_one(&second, token).await;
    bench.submit(progress("b", 40)).await.unwrap();
    settle().await;

    let third = bench.acking_link(3);
    settle().await;
    assert_eq!(percents(&third), [40], "a was read by the second");
    bench.durable(result_of("b")).await;
    let fourth = bench.link_up(4);
    settle().await;
    assert_eq!(percents(&fourth), [] as [u32; 0], "the run is over");
}

#[actix::test]
async fn an_ephemeral_message_is_sent_now_or_never() {
    let bench = Bench::new().await;
    assert_eq!(bench.submit(heartbeat()).await, Err(QueueError::NotConnected));
    let wire = bench.link_up(1);
    assert_eq!(bench.submit(heartbeat()).await, Ok(Submitted::Sent));
    let ack = v1::Ack { correlation_id: "ping-1".into(), accepted: true, ..v1::Ack::default() };
    let ack = Submit::ephemeral(Payload::Ack(ack), "ping-1");
    assert_eq!(bench.queue.send(ack).await.unwrap(), Ok(Submitted::Sent));
    assert_eq!(wire.envelopes()[1].correlation_id, "ping-1");
    assert!(wire.barriers().is_empty() && bench.seqs_on_disk().is_empty());
    assert!(wire.seqs().is_sorted());
}

#[actix::test]
async fn ephemeral_messages_go_between_the_parts_of_a_window_on_a_slow_link() {
    let bench = Bench::new().await;
    let big = "x".repeat(200 * 1024);
    for _ in 0..8 {
        bench.durable(log(&big)).await;
    }
    let (wire, gate) = bench.gated_link(1);
    settle().await;
    assert_eq!(wire.told().len(), 1, "one part is being written");
    let beat = bench.queue.send(Submit::new(heartbeat()));
    settle().await;
    gate.open_once();
    settle().await;
    assert_eq!(bench::kinds(&wire), ["log", "heartbeat"], "the heartbeat did not wait for the window");
    gate.open_once();
    assert_eq!(beat.await.unwrap(), Ok(Submitted::Sent));
    settle().await;
    assert_eq!(bench::kinds(&wire), ["log", "heartbeat", "log"]);
}

#[actix::test]
async fn neither_heartbeats_nor_the_window_starve_each_other() {
    let bench = Bench::new().await;
    let big = "x".repeat(200 * 1024);
    for _ in 0..3 {
        bench.durable(log(&big)).await;
    }
    let (wire, gate) = bench.gated_link(1);
    settle().await;
    let mut beats = Vec::new();
    for _ in 0..5 {
        beats.push(bench.queue.send(Submit::new(heartbeat())));
        settle().await;
        gate.open_once();
        settle().await;
    }
    assert_eq!(bench::kinds(&wire)[..5], ["log", "heartbeat", "log", "heartbeat", "log"]);
}

#[actix::test]
async fn a_link_that_does_not_keep_up_refuses_more_than_a_few_ephemeral_messages() {
    let bench = Bench::new().await;
    let wire = bench.link_with(1, |_| Box::pin(std::future::pending()));
    let beats: Vec<_> = (0..40).map(|_| bench.queue.send(Submit::new(heartbeat()))).collect();
    settle().await;
    bench.queue.send(LinkLost { generation: 1 }).await.unwrap();
    let answers: Vec<_> = join_all(beats).await.into_iter().map(Result::unwrap).collect();
    let busy = answers.iter().filter(|answer| matches!(answer, Err(QueueError::Busy(_)))).count();
    assert_eq!(busy, 40 - 16, "sixteen wait");
    assert_eq!(answers.iter().filter(|answer| **answer == Err(QueueError::NotConnected)).count(), 16);
    assert_eq!(wire.told().len(), 1);
}

#[actix::test]
async fn messages_that_cannot_be_sent_are_refused_at_the_door() {
    let bench = Bench::new().await;
    let ping = Payload::Ping(v1::Ping::default());
    assert_eq!(bench.submit(ping).await, Err(QueueError::NotOurs));
    let huge = log(&"x".repeat(wire::MAX_MESSAGE_BYTES));
    assert!(matches!(bench.submit(huge).await, Err(QueueError::TooLarge { .. })));
    let with = vec![backupy_agent::store::Change::PutSession("s".into())];
    let answer = bench.queue.send(Submit::new(heartbeat()).with(with)).await.unwrap();
    assert_eq!(answer, Err(QueueError::NotDurable));
}

#[actix::test]
async fn changes_become_durable_with_the_message_they_ride_with() {
    let bench = Bench::new().await;
    let with = vec![backupy_agent::store::Change::PutSession("session-9".into())];
    bench.queue.send(Submit::new(result_of("a")).with(with)).await.unwrap().unwrap();
    let copy = bench::crashed_copy(bench.dir.path());
    let key = bench::key();
    let (_, recovered) = backupy_agent::store::Store::open_read_only(copy.path(), &key).unwrap();
    assert_eq!((recovered.session_id.as_deref(), recovered.outbox.depth()), (Some("session-9"), 1));
}

#[actix::test]
async fn every_seq_is_given_once_to_whatever_message() {
    let bench = Bench::new().await;
    let wire = bench.link_up(1);
    let mut given = Vec::new();
    for _ in 0..20 {
        given.push(bench.queue.send(TakeSeq).await.unwrap().unwrap());
        given.push(bench.durable(log("x")).await);
        bench.submit(heartbeat()).await.unwrap();
        bench.submit(progress("a", 1)).await.unwrap();
    }
    bench.confirm_everything(&wire).await;
    let durable = wire.seqs();
    given.extend(durable.iter().filter(|seq| !given.contains(seq)).copied().collect::<Vec<_>>());
    let all = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), all);
    assert_eq!(wire.seqs().len(), wire.seqs().iter().collect::<std::collections::BTreeSet<_>>().len());
}
