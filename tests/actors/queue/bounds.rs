//! What goes when the queue is full, and how the server hears of it.

use crate::bench::{Bench, health, log, result_of, settle};
use backupy_agent::actors::messages::{GetQueueStatus, QueueError, Submit};
use backupy_agent::store::MESSAGE_OVERHEAD_BYTES;
use backupy_agent::wire::Payload;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::sleep;

/// Room for about ten of the messages below, each with what the file adds to it.
const LIMIT: u64 = 10 * (1_100 + MESSAGE_OVERHEAD_BYTES);

fn kilo(name: &str) -> String {
    format!("{name}{}", "x".repeat(1_000))
}

#[actix::test]
async fn the_oldest_log_goes_first_then_the_oldest_health_result_and_a_run_never() {
    let bench = Bench::bounded(LIMIT).await;
    let first_health = bench.durable(health(&kilo("h1"))).await;
    let first_log = bench.durable(log(&kilo("l1"))).await;
    let first_run = bench.durable(result_of(&kilo("r1"))).await;
    let second_log = bench.durable(log(&kilo("l2"))).await;
    let second_health = bench.durable(health(&kilo("h2"))).await;
    let mut kept = vec![first_health, first_log, first_run, second_log, second_health];
    let mut submitted = 0;
    for gone in [first_log, second_log, first_health, second_health] {
        loop {
            assert!(submitted < 40, "{gone} never went");
            kept.push(bench.durable(result_of(&kilo(&format!("n{submitted}")))).await);
            submitted += 1;
            let on_disk = bench.seqs_on_disk();
            if on_disk == kept {
                continue;
            }
            kept.retain(|seq| *seq != gone);
            assert_eq!(on_disk, kept, "{gone} goes next, and alone");
            break;
        }
    }
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.evicted, status.depth), (4, kept.len() as u64));
    assert!(status.bytes <= LIMIT);

    let refused = loop {
        if let Err(error) = bench.submit(result_of(&kilo("last"))).await {
            break error;
        }
        kept.push(0);
        assert!(kept.len() < 40, "the queue is never full");
    };
    assert!(matches!(refused, QueueError::Full { bytes, limit: LIMIT } if bytes <= LIMIT), "{refused}");
    assert!(bench.seqs_on_disk().contains(&first_run));
}

#[actix::test]
async fn a_message_that_would_not_fit_whatever_went_makes_nothing_go() {
    let bench = Bench::bounded(LIMIT).await;
    let seq = bench.durable(log("small")).await;
    let refused = bench.submit(result_of(&"x".repeat(2 * LIMIT as usize))).await;
    assert!(matches!(refused, Err(QueueError::Full { .. })), "{refused:?}");
    assert_eq!(bench.seqs_on_disk(), [seq]);
    let next = bench.durable(log("next")).await;
    assert_eq!(next, seq + 1, "a refused message takes no seq");
}

#[actix::test]
async fn many_senders_at_a_full_queue_are_all_answered_and_the_newest_stay() {
    let bench = Bench::bounded(LIMIT).await;
    let answers = join_all((0..100).map(|n| bench.queue.send(Submit::new(log(&kilo(&n.to_string())))))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_ok()));
    let on_disk = bench.seqs_on_disk();
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!(status.last_seq, *on_disk.last().unwrap());
    assert_eq!((status.evicted, status.depth), (100 - on_disk.len() as u64, on_disk.len() as u64));
    assert!(on_disk.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{on_disk:?}");
    assert!(status.bytes <= LIMIT && on_disk.len() >= 9);
}

#[actix::test]
async fn what_is_in_flight_may_go_and_is_counted_once() {
    let bench = Bench::bounded(LIMIT).await;
    for n in 0..9 {
        bench.durable(log(&kilo(&n.to_string()))).await;
    }
    let wire = bench.link_up(1);
    settle().await;
    for n in 0..5 {
        bench.durable(result_of(&kilo(&n.to_string()))).await;
    }
    let before = bench.queue.send(GetQueueStatus).await.unwrap();
    assert!(before.evicted >= 4 && before.in_flight == before.depth, "{before:?}");
    bench.pass(&wire).await;
    let after = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!(after.depth, bench.seqs_on_disk().len() as u64);
    bench.confirm_everything(&wire).await;
    let end = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((end.depth, end.bytes), (0, 0));
}

#[actix::test]
async fn the_server_is_told_what_went_in_one_event_and_at_most_once_a_minute() {
    let bench = Bench::bounded(LIMIT).await;
    for n in 0..14 {
        bench.durable(log(&kilo(&n.to_string()))).await;
    }
    let dropped = bench.queue.send(GetQueueStatus).await.unwrap().evicted;
    assert!(dropped >= 4);
    let wire = bench.link_up(1);
    bench.confirm_everything(&wire).await;
    let notices = || {
        let events = wire.envelopes().into_iter().filter_map(|envelope| match envelope.payload {
            Some(Payload::Log(event)) if event.message.contains("queue was full") => Some(event),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    let first = notices();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].fields["dropped_log_events"], dropped.to_string());
    assert_eq!(first[0].fields["dropped_health_results"], "0");

    // The barrier of these does not come back, so that more and more of them go.
    let before = bench.queue.send(GetQueueStatus).await.unwrap().evicted;
    for n in 0..40 {
        bench.durable(log(&kilo(&n.to_string()))).await;
        sleep(Duration::from_secs(1)).await;
    }
    let dropped = bench.queue.send(GetQueueStatus).await.unwrap().evicted - before;
    assert!(dropped >= 25, "{dropped}");
    bench.confirm_everything(&wire).await;
    assert_eq!(notices().len(), 1, "not within the minute");
    sleep(Duration::from_secs(21)).await;
    bench.confirm_everything(&wire).await;
    assert_eq!(notices().len(), 2);
    assert_eq!(notices()[1].fields["dropped_log_events"], dropped.to_string());
    sleep(Duration::from_secs(600)).await;
    bench.confirm_everything(&wire).await;
    assert_eq!(notices().len(), 2, "and never again when nothing goes");
}
