use super::*;
use crate::model::MessageKind;
use bytes::Bytes;

fn record(seq: u64, bytes: usize) -> OutboxRecord {
    OutboxRecord { seq, kind: MessageKind::Run, envelope: Bytes::from(vec![0; bytes]) }
}

/// A flight that has read messages of these sizes, from seq 1 on.
fn read(confirms: Confirms, sizes: &[usize]) -> Flight {
    let mut flight = Flight::new(confirms);
    feed(&mut flight, 1, sizes);
    flight
}

fn feed(flight: &mut Flight, first: u64, sizes: &[usize]) {
    let records: Vec<_> = (first..).zip(sizes).map(|(seq, bytes)| record(seq, *bytes)).collect();
    let newest = records.last().map(|record| record.seq);
    flight.begins_reading();
    flight.read(records, newest, u64::MAX);
}

/// Everything that can be written now: seqs and proof of each part.
fn parts(flight: &mut Flight, token: &mut u64) -> Vec<(Vec<u64>, Proof)> {
    std::iter::from_fn(|| flight.next_part(token))
        .map(|part| (part.envelopes.iter().map(|out| out.seq).collect(), part.proof))
        .collect()
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

#[test]
fn a_barrier_follows_every_64_messages_and_the_last_one() {
    let mut flight = read(Confirms::Pongs, &[10; 200]);
    let parts = parts(&mut flight, &mut 0);
    let shape: Vec<_> = parts.iter().map(|(seqs, proof)| (seqs.len(), *proof)).collect();
    assert_eq!(
        shape,
        [(64, Proof::Barrier(1)), (64, Proof::Barrier(2)), (64, Proof::Barrier(3)), (8, Proof::Barrier(4))]
    );
    assert_eq!(flight.in_flight(), 200);
    assert_eq!(seqs(&flight.barrier_passed(1)), (1..=64).collect::<Vec<_>>());
    assert_eq!(flight.barrier_passed(1), [], "once");
    assert_eq!(flight.barrier_passed(9), [], "nobody's");
    assert_eq!(seqs(&flight.barrier_passed(3)), (65..=192).collect::<Vec<_>>(), "and what stood before it");
    assert_eq!(flight.barrier_passed(2), []);
    assert_eq!((flight.in_flight(), flight.in_flight_bytes), (8, 80));
}

#[test]
fn large_messages_go_in_parts_of_their_own_with_a_barrier_every_mib() {
    let sizes = [100, PART_BYTES - 100, 1, 2 * PART_BYTES, 5, PART_BYTES, 7];
    let mut flight = read(Confirms::Pongs, &sizes);
    assert_eq!(
        parts(&mut flight, &mut 8),
        [
            (vec![1, 2], Proof::None),
            (vec![3], Proof::None),
            (vec![4], Proof::None),
            (vec![5], Proof::None),
            (vec![6], Proof::Barrier(9)),
            (vec![7], Proof::Barrier(10)),
        ]
    );
}

#[test]
fn the_window_holds_4_mib_and_a_larger_rest_waits_for_a_confirmation() {
    let mib = 1024 * 1024;
    let mut flight = read(Confirms::Pongs, &[mib, mib, 3 * mib, 2 * mib]);
    let mut token = 0;
    let written = parts(&mut flight, &mut token);
    assert_eq!(written, [(vec![1], Proof::Barrier(1)), (vec![2], Proof::Barrier(2))]);
    flight.barrier_passed(1);
    assert_eq!(parts(&mut flight, &mut token), [(vec![3], Proof::Barrier(3))], "just fits");
    flight.barrier_passed(3);
    assert_eq!(parts(&mut flight, &mut token), [(vec![4], Proof::Barrier(4))]);
}

#[test]
fn the_next_are_read_as_soon_as_a_barriers_worth_of_room_is_there() {
    let mut flight = Flight::new(Confirms::Pongs);
    assert_eq!(flight.wanted(0), None, "nothing is there");
    let all = Wanted { after: 0, max_count: WINDOW_MESSAGES, max_bytes: WINDOW_BYTES };
    assert_eq!(flight.wanted(1_000), Some(all));
    feed(&mut flight, 1, &[10; WINDOW_MESSAGES]);
    let mut token = 0;
    parts(&mut flight, &mut token);
    assert_eq!(flight.wanted(1_000), None, "the window is full");
    flight.barrier_passed(1);
    let next = Wanted { after: 256, max_count: 64, max_bytes: WINDOW_BYTES - 192 * 10 };
    assert_eq!(flight.wanted(1_000), Some(next), "192 are still in flight");
    flight.begins_reading();
    assert_eq!(flight.wanted(1_000), None);
    flight.stop_reading();
    assert!(flight.wanted(1_000).is_some());
}

#[test]
fn acks_confirm_one_by_one_in_any_order() {
    let mut flight = read(Confirms::Acks, &[10; 100]);
    let written = parts(&mut flight, &mut 0);
    assert_eq!(written.iter().map(|(seqs, _)| seqs.len()).collect::<Vec<_>>(), [64, 36]);
    assert!(written.iter().all(|(_, proof)| *proof == Proof::Acks));
    assert_eq!(flight.acked(70).map(|entry| entry.seq), Some(70));
    assert_eq!(flight.acked(70), None, "twice");
    assert_eq!(flight.acked(101), None, "never sent");
    assert_eq!(flight.acked(1).map(|entry| entry.seq), Some(1));
    assert_eq!((flight.in_flight(), flight.in_flight_bytes), (98, 980));
}

#[test]
fn what_left_the_disk_is_neither_written_nor_confirmed_whenever_it_left() {
    let entry = |seq| Entry { seq, kind: MessageKind::Run, bytes: 10 };
    let mut flight = read(Confirms::Pongs, &[10; 70]);
    let mut token = 0;
    flight.next_part(&mut token);
    // In flight, read ahead, and in a page that is on its way.
    flight.begins_reading();
    flight.left(&[entry(3), entry(66), entry(71)]);
    flight.read((71..=72).map(|seq| record(seq, 10)).collect(), Some(72), u64::MAX);
    assert_eq!(parts(&mut flight, &mut token), [(vec![65, 67, 68, 69, 70, 72], Proof::Barrier(2))]);
    let confirmed = seqs(&flight.barrier_passed(2));
    assert_eq!((confirmed.len(), confirmed.contains(&3)), (69, false));
    assert_eq!((flight.in_flight_bytes, flight.ahead_bytes), (0, 0));
}

#[test]
fn what_may_still_be_preceded_on_the_disk_is_read_again_later() {
    let mut flight = Flight::new(Confirms::Pongs);
    flight.begins_reading();
    flight.read(vec![record(3, 1), record(5, 1)], Some(5), 4);
    assert_eq!(parts(&mut flight, &mut 0), [(vec![3], Proof::Barrier(1))]);
    assert_eq!(flight.wanted(5).map(|wanted| wanted.after), Some(4));
}
