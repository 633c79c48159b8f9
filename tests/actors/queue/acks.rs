//! A server that acknowledges end to end.

use crate::bench::{self, Bench, log, result_of, settle};
use backupy_agent::actors::messages::{BarrierPassed, GetQueueStatus, LinkLost, Quit, Submit};
use backupy_agent::store::STATE_FILE;
use futures_util::future::join_all;
use redb::{ReadableDatabase, ReadableTableMetadata};

/// Records in the quarantine of what a crash would leave now.
fn quarantined(bench: &Bench) -> u64 {
    let copy = bench::crashed_copy(bench.dir.path());
    let db = redb::Database::open(copy.path().join(STATE_FILE)).unwrap();
    let table = redb::TableDefinition::<(&str, &[u8]), &[u8]>::new("quarantine");
    db.begin_read().unwrap().open_table(table).unwrap().len().unwrap()
}

#[actix::test]
async fn only_acks_confirm_and_the_window_rolls_with_them() {
    let bench = Bench::new().await;
    join_all((0..400).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let all = bench.seqs_on_disk();
    let wire = bench.acking_link(1);
    settle().await;
    assert_eq!((wire.to_be_acked(), wire.barriers()), (all[..256].to_vec(), vec![]), "no pong is asked for");
    for token in 0..300 {
        bench.queue.send(BarrierPassed { generation: 1, token }).await.unwrap();
    }
    assert_eq!(bench.seqs_on_disk(), all, "and none confirms");
    bench.ack(&wire, all[..64].iter().copied(), None).await;
    assert_eq!(bench.seqs_on_disk(), all[64..]);
    assert_eq!(wire.to_be_acked(), all[..320]);
    bench.ack(&wire, all[64..320].iter().rev().copied(), None).await;
    assert_eq!(wire.to_be_acked(), all);
    bench.ack(&wire, all[320..].iter().copied(), None).await;
    assert!(bench.seqs_on_disk().is_empty());
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.in_flight, status.refused), (0, 0, 0));
}

#[actix::test]
async fn acks_out_of_order_doubled_unknown_or_of_another_link_are_harmless() {
    let bench = Bench::new().await;
    join_all((0..300).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let all = bench.seqs_on_disk();
    let old = bench.acking_link(1);
    settle().await;
    bench.queue.send(LinkLost { generation: 1 }).await.unwrap();
    let wire = bench.acking_link(2);
    settle().await;
    bench.ack(&old, all.clone(), None).await;
    bench.ack(&wire, [0, u64::MAX, all[299] + 1], Some("what is that")).await;
    bench.ack(&wire, all[256..].iter().copied(), None).await;
    assert_eq!(bench.seqs_on_disk(), all, "the last 44 were not sent yet");
    bench.ack(&wire, [all[9], all[3], all[9]], None).await;
    let left: Vec<_> = all.iter().copied().filter(|seq| *seq != all[3] && *seq != all[9]).collect();
    assert_eq!(bench.seqs_on_disk(), left);
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.refused), (298, 0));
}

#[actix::test]
async fn what_a_lost_link_did_not_acknowledge_is_sent_by_the_next_whatever_confirms_there() {
    let bench = Bench::new().await;
    join_all((0..10).map(|n| bench.queue.send(Submit::new(log(&n.to_string()))))).await;
    let all = bench.seqs_on_disk();
    let first = bench.acking_link(1);
    settle().await;
    bench.ack(&first, [all[0], all[5]], None).await;
    let left: Vec<_> = all.iter().copied().filter(|seq| *seq != all[0] && *seq != all[5]).collect();
    let second = bench.link_up(2);
    settle().await;
    assert_eq!((second.seqs(), second.barriers().len()), (left, 1));
    bench.pass(&second).await;
    assert!(bench.seqs_on_disk().is_empty());
}

#[actix::test]
async fn a_message_that_the_server_refuses_for_good_is_kept_aside_and_blocks_nobody() {
    let bench = Bench::new().await;
    let first = bench.durable(result_of("a")).await;
    let second = bench.durable(log("b")).await;
    let wire = bench.acking_link(1);
    settle().await;
    bench.ack(&wire, [first], Some("no such run")).await;
    bench.ack(&wire, [second], None).await;
    assert!(bench.seqs_on_disk().is_empty());
    assert_eq!(quarantined(&bench), 1);
    let status = bench.queue.send(GetQueueStatus).await.unwrap();
    assert_eq!((status.depth, status.bytes, status.refused), (0, 0, 1));

    bench.store.send(Quit).await.unwrap();
    bench.queue.send(Quit).await.unwrap();
    let bench = Bench::in_dir(bench.dir, u64::MAX).await;
    let next = bench.acking_link(1);
    settle().await;
    assert!(next.told().is_empty(), "it is never sent again");
}
