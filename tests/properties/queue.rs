//! Queue and StateStore against a plain model: random messages, links, confirmations and crashes.
//!
//! The model is a list of what was accepted and not confirmed. Whatever happens: a seq is never given
//! twice; a link is given what waits in the order of seq, each once, byte for byte as before, at most a
//! window unconfirmed; what is missing on the disk was confirmed or refused by the server, or evicted, the
//! oldest of its kind first and never a run's; what was evicted is told or still to be told, to the last
//! one, over every crash; and in the end everything arrives.
//!
//! `PROPTEST_CASES=10000 cargo test --test properties queue` is the long form.

mod look;
mod world;

use proptest::prelude::*;
use world::World;

/// In CI; hundreds more find nothing new within a minute.
const CASES: u32 = 60;

/// Room for some hundred messages of the steps below, so that a step can overflow it.
const SMALL: u64 = 12_000;

/// One step.
#[derive(Debug, Clone)]
enum Step {
    /// So many durable messages of that kind at once.
    Submit(u8, usize),
    Heartbeat,
    Progress,
    /// A link, to a server that acknowledges or not.
    LinkUp(bool),
    LinkLost,
    /// The pong of one of the barriers, the newest first; of an acknowledging server, acks for a part of what
    /// is in flight, from either end.
    Confirm(usize, bool),
    /// The server refuses one for good.
    Refuse(usize),
    /// Pongs and acks that mean nothing: old, doubled, never sent.
    Nonsense,
    /// The process is killed while so many messages are on their way to the disk.
    Crash(usize),
    /// It ends in order and starts again.
    Reopen,
    /// Only the StateStore is replaced.
    NewStore,
    /// So many seconds pass: evictions are told once a minute.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..3_u8, prop_oneof![1..5_usize, 100..300_usize]).prop_map(|(kind, n)| Step::Submit(kind, n)),
        2 => Just(Step::Heartbeat),
        2 => Just(Step::Progress),
        4 => any::<bool>().prop_map(Step::LinkUp),
        1 => Just(Step::LinkLost),
        6 => (0..200_usize, any::<bool>()).prop_map(|(n, newest)| Step::Confirm(n, newest)),
        1 => (0..100_usize).prop_map(Step::Refuse),
        1 => Just(Step::Nonsense),
        1 => (0..20_usize).prop_map(Step::Crash),
        1 => Just(Step::Reopen),
        1 => Just(Step::NewStore),
        1 => (1..100_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..25)
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order_whatever_happens(
        steps in steps(),
        max_bytes in prop_oneof![Just(u64::MAX), Just(SMALL)],
        acking in any::<bool>(),
    ) {
        actix::System::new().block_on(async move {
            let mut world = World::new(max_bytes).await;
            for step in steps {
                world.step(step).await;
            }
            world.arrive(acking).await;
        });
    }
}
