//! How a Runner ends: in order, or by a panic.

use crate::runner_bench::{Bench, Event, Hand, completed, order, plan};
use backupy_agent::actors::messages::{ChildExit, QueueError, Quit, StartRun};
use backupy_agent::store::Recovered;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[actix::test]
async fn at_shutdown_runs_are_stopped_stay_started_and_no_order_is_taken() {
    shut_down(Hand::default()).await;
}

#[actix::test]
async fn a_run_that_does_not_stop_does_not_hold_up_the_shutdown() {
    shut_down(Hand { stubborn: true, ..Hand::default() }).await;
}

async fn shut_down(hand: Hand) {
    let bench = Bench::with(hand, plan(1), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    bench.events();
    let begin = Instant::now();
    let (quit, refused) =
        tokio::join!(bench.runner.send(Quit), bench.runner.send(StartRun(order("r3", "a"))));
    quit.unwrap();
    let refusal = refused.unwrap().unwrap_err();
    assert!(refusal.to_string().contains("the agent is ending"), "{refusal}");
    assert!(!refusal.fails_run(), "the next life may know it");
    assert!(begin.elapsed() < 3 * SECOND);
    assert!(bench.going.borrow()[0].cancel.is_cancelled());
    assert_eq!(bench.events(), [], "nothing is said of them, and their records stay");
    sleep(SECOND).await;
    assert_eq!(bench.begun(), ["r1"]);
    assert_eq!(bench.ends.lock().unwrap()[0].exit, ChildExit::Stopped);
}

#[actix::test]
async fn a_result_on_its_way_is_waited_for_at_shutdown() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.events();
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    bench.end(0, completed()).await;
    let ((), ()) = tokio::join!(async { bench.runner.send(Quit).await.unwrap() }, async {
        sleep(SECOND / 2).await;
        bench.seen.lock().unwrap().refuse = None;
    });
    assert_eq!(bench.events(), [Event::Put("r1".into(), "finished"), Event::Done("r1".into())]);
}

#[actix::test]
async fn a_runner_that_panics_takes_its_runs_with_it_and_says_so() {
    let hand = Hand { panics_on: Some("r2"), ..Hand::default() };
    let bench = Bench::with(hand, plan(2), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    assert!(bench.going.borrow()[0].cancel.is_cancelled());
    assert_eq!(bench.ends.lock().unwrap()[0].exit, ChildExit::Panicked);
}
