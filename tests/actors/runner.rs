//! Runs: taken on, waiting, going on, over.

use crate::runner_bench::{Bench, Event, Hand, MIDNIGHT_MS, completed, order, plan, record, with_window};
use backupy_agent::actors::messages::{AreYouThere, Configured, QueueError, Refusal};
use backupy_agent::model::{Plan, RunOrder, RunOutcome, RunPhase, Secret, Step};
use backupy_agent::store::{Recovered, StoreError};
use backupy_agent::wire::v1::JobStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn put(run: &str, phase: &'static str) -> Event {
    Event::Put(run.into(), phase)
}

fn said(run: &str, status: JobStatus) -> Event {
    Event::Said(run.into(), status, String::new())
}

fn failure(events: &[Event], run: &str) -> String {
    let found = events.iter().find_map(|event| {
        let Event::Said(id, JobStatus::Failed, text) = event else { return None };
        (id == run).then(|| text.clone())
    });
    found.unwrap_or_else(|| panic!("{run} did not fail: {events:?}"))
}

fn failed(error: &str) -> RunOutcome {
    RunOutcome::Failed { error: error.into() }
}

#[actix::test]
async fn an_order_is_on_disk_before_it_is_confirmed_and_its_result_with_its_end() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    assert_eq!(
        bench.events(),
        [put("r1", "accepted"), put("r1", "started"), Event::Progress("r1".into(), 0)]
    );
    let job = bench.going.borrow()[0].job.clone();
    assert_eq!((job.job.id.as_str(), job.target.id.as_str()), ("a", "t1"));
    let status = bench.statuses().await.remove(0);
    assert_eq!(
        (status.run_id.as_str(), status.job_id.as_str(), status.step),
        ("r1", "a", Some(Step::Dumping))
    );

    bench.end(0, completed()).await;
    assert_eq!(bench.events(), [put("r1", "finished"), Event::Done("r1".into())]);
    assert!(bench.statuses().await.is_empty());
}

#[actix::test]
async fn the_same_order_again_starts_nothing_and_gets_its_result_again() {
    let bench = Bench::new(plan(1)).await;
    let (one, two) = tokio::join!(bench.start(order("r1", "a")), bench.start(order("r1", "a")));
    assert_eq!((one, two), (Ok(()), Ok(())));
    bench.start(order("r1", "a")).await.unwrap();
    assert_eq!(bench.begun(), ["r1"]);
    let accepted = bench.events().iter().filter(|event| **event == put("r1", "accepted")).count();
    assert_eq!(accepted, 1);
    assert_eq!(bench.start(order("r1", "c")).await, Err(Refusal::RunOfAnotherJob("r1".into())));

    bench.end(0, failed("no such file")).await;
    bench.events();
    bench.start(order("r1", "a")).await.unwrap();
    assert_eq!(bench.begun(), ["r1"]);
    assert_eq!(failure(&bench.events(), "r1"), "no such file");
    assert_eq!(bench.start(order("r1", "c")).await, Err(Refusal::RunOfAnotherJob("r1".into())));
}

#[actix::test]
async fn orders_that_cannot_be_met_are_refused_with_a_reason() {
    let mut plan = plan(1);
    plan.jobs[1].pre_hooks = vec!["true".into()];
    plan.targets[1].engine = Some(backupy_agent::model::Engine::Postgresql);
    plan.targets[1].connection.database.clear();
    let bench = Bench::new(plan).await;
    assert_eq!(bench.start(order("r", "x")).await, Err(Refusal::UnknownJob("x".into())));
    let reason = bench.start(order("r", "b")).await.unwrap_err().to_string();
    assert_eq!(reason, "hooks are disabled on this agent");
    let reason = bench.start(order("r", "c")).await.unwrap_err().to_string();
    assert_eq!(
        reason,
        "target \"t2\": names no database: set connection.database, one target for each database"
    );
    assert!(bench.events().is_empty() && bench.begun().is_empty());
}

#[actix::test]
async fn only_a_run_that_is_not_known_needs_an_upload_url() {
    let bench = Bench::new(plan(1)).await;
    let nowhere = || RunOrder { put_url: Secret::default(), expires_at_ms: 0, ..order("r1", "a") };
    let refusal = bench.start(nowhere()).await.unwrap_err();
    assert!(refusal.fails_run() && refusal.to_string() == "RunBackup has no presigned_put_url", "{refusal}");
    let short = RunOrder { expires_at_ms: MIDNIGHT_MS + 60_000, ..order("r1", "a") };
    bench.start(short).await.unwrap();
    bench.events();
    bench.start(nowhere()).await.unwrap();
    assert_eq!(bench.events(), [], "it is going, and keeps the URL that it has");
    assert!(bench.going.borrow()[0].progress.urls().take().is_none());
    bench.end(0, completed()).await;
    bench.events();
    bench.start(nowhere()).await.unwrap();
    assert_eq!(bench.events(), [Event::Done("r1".into())]);
}

#[actix::test]
async fn an_order_that_cannot_be_stored_is_refused_and_can_come_again() {
    let bench = Bench::new(plan(1)).await;
    let full = StoreError::NoSpace { path: "state.redb".into(), cause: "disk full".into() };
    bench.seen.lock().unwrap().refuse = Some(QueueError::Store(full));
    let refusal = bench.start(order("r1", "a")).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::NotStored(text) if text.contains("no space left")), "{refusal}");
    assert!(bench.begun().is_empty());
    bench.seen.lock().unwrap().refuse = None;
    bench.start(order("r1", "a")).await.unwrap();
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn one_run_at_a_time_and_the_others_wait_as_queued_in_order() {
    let bench = Bench::new(plan(1)).await;
    for (run, job) in [("r1", "a"), ("r2", "c"), ("r3", "b")] {
        bench.start(order(run, job)).await.unwrap();
    }
    assert_eq!(bench.begun(), ["r1"]);
    let events = bench.events();
    for run in ["r2", "r3"] {
        let at = events.iter().position(|event| *event == put(run, "accepted")).unwrap();
        assert_eq!(events[at + 1], said(run, JobStatus::Queued), "in one transaction");
    }
    bench.end(0, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    bench.end(1, failed("x")).await;
    assert_eq!(bench.begun(), ["r1", "r2", "r3"]);
}

#[actix::test]
async fn two_runs_at_once_but_never_two_on_one_target() {
    let bench = Bench::new(plan(2)).await;
    for (run, job) in [("r1", "a"), ("r2", "b"), ("r3", "c")] {
        bench.start(order(run, job)).await.unwrap();
    }
    assert_eq!(bench.begun(), ["r1", "r3"]);
    bench.end(1, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r3"], "the target of r2 is still busy");
    bench.end(0, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r3", "r2"]);
}

#[actix::test]
async fn with_more_places_what_waited_starts_at_once() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    bench.runner.send(Configured(Arc::new(plan(2)))).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
}

#[actix::test]
async fn the_maintenance_window_holds_what_nobody_started_by_hand() {
    let bench = Bench::new(with_window(plan(2), 1380, 90)).await;
    bench.start(order("timed", "a")).await.unwrap();
    bench.start(RunOrder { manual: true, ..order("manual", "c") }).await.unwrap();
    assert_eq!(bench.begun(), ["manual"]);
    assert!(bench.events().contains(&said("timed", JobStatus::Queued)));
    sleep(Duration::from_secs(90 * 60 - 2)).await;
    assert_eq!(bench.begun(), ["manual"]);
    sleep(3 * SECOND).await;
    assert_eq!(bench.begun(), ["manual", "timed"]);
}

#[actix::test]
async fn a_window_that_is_taken_away_lets_its_runs_go() {
    let bench = Bench::new(with_window(plan(1), 1380, 90)).await;
    bench.start(order("r1", "a")).await.unwrap();
    assert!(bench.begun().is_empty());
    bench.runner.send(Configured(Arc::new(plan(1)))).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn a_run_is_cancelled_while_it_waits_and_while_it_runs() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    bench.events();
    bench.cancel("c").await.unwrap();
    assert_eq!(bench.events(), [put("r2", "finished"), said("r2", JobStatus::Cancelled)]);
    assert!(!bench.going.borrow()[0].cancel.is_cancelled());
    bench.cancel("a").await.unwrap();
    assert!(bench.going.borrow()[0].cancel.is_cancelled());
    assert_eq!(bench.events(), [put("r1", "finished"), said("r1", JobStatus::Cancelled)]);
    assert_eq!(bench.cancel("a").await, Err(Refusal::NothingToCancel("a".into())));
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn a_run_that_does_not_stop_is_given_up_within_two_seconds() {
    let hand = Hand { stubborn: true, ..Hand::default() };
    let bench = Bench::with(hand, plan(1), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    let begin = Instant::now();
    bench.cancel("a").await.unwrap();
    assert!(begin.elapsed() < 2 * SECOND);
    assert!(bench.events().contains(&said("r1", JobStatus::Cancelled)));
    // What it says afterwards is not heard.
    bench.end(0, completed()).await;
    assert!(bench.events().is_empty());
}

#[actix::test]
async fn a_run_that_was_stored_before_it_heard_of_its_cancellation_is_a_success() {
    let hand = Hand { stubborn: true, ..Hand::default() };
    let bench = Bench::with(hand, plan(1), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    let (answer, ()) = tokio::join!(bench.cancel("a"), async {
        sleep(SECOND).await;
        bench.end(0, completed()).await;
    });
    assert_eq!(answer, Err(Refusal::NothingToCancel("a".into())));
    assert!(bench.events().contains(&Event::Done("r1".into())));
}

#[actix::test]
async fn a_run_is_stopped_at_its_timeout_and_says_so() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "b")).await.unwrap();
    sleep(Duration::from_secs(599)).await;
    assert!(!bench.going.borrow()[0].cancel.is_cancelled());
    sleep(2 * SECOND).await;
    let text = failure(&bench.events(), "r1");
    assert!(text.contains("timeout of 600 s") && text.contains("dumping"), "{text}");
    assert_eq!(bench.begun(), ["r1", "r2"]);
    // A run that ended in time is not stopped later.
    bench.end(1, completed()).await;
    sleep(Duration::from_secs(3600)).await;
    assert!(!bench.events().iter().any(|event| matches!(event, Event::Said(..))));
}

#[actix::test]
async fn progress_is_told_at_most_once_a_second_and_only_when_it_moved() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.events();
    for n in 0..1000 {
        bench.going.borrow()[0].progress.dumping(n, 1000);
        sleep(Duration::from_millis(10)).await;
    }
    let told = bench.timed_events();
    assert!((9..=11).contains(&told.len()), "{told:?}");
    for pair in told.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= SECOND - Duration::from_millis(5), "{told:?}");
        let (Event::Progress(_, before), Event::Progress(_, after)) = (&pair[0].1, &pair[1].1) else {
            panic!("{told:?}")
        };
        assert!(after > before);
    }
    sleep(2 * SECOND).await;
    bench.events();
    sleep(60 * SECOND).await;
    assert!(bench.events().is_empty(), "nothing moved");
}

#[actix::test]
async fn a_result_is_not_lost_while_the_queue_is_gone_or_the_disk_is_full() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.events();
    bench.lose_queue().await;
    bench.end(0, completed()).await;
    sleep(40 * SECOND).await;
    assert_eq!(bench.events(), []);
    assert_eq!(bench.statuses().await.len(), 1, "it is not over before its result is safe");
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    bench.introduce().await;
    sleep(300 * SECOND).await;
    assert_eq!(bench.events(), []);
    bench.seen.lock().unwrap().refuse = None;
    sleep(31 * SECOND).await;
    assert_eq!(bench.events(), [put("r1", "finished"), Event::Done("r1".into())]);
    assert!(bench.statuses().await.is_empty());
}

#[actix::test]
async fn after_a_restart_what_was_not_over_begins_again_and_results_are_known() {
    let recovered = Recovered {
        runs: vec![
            record(order("old", "a"), RunPhase::Finished { at_ms: 1, outcome: failed("was bad") }),
            record(order("r1", "a"), RunPhase::Started { at_ms: MIDNIGHT_MS - 1, outcome: None }),
            record(order("r2", "c"), RunPhase::Accepted),
        ],
        ..Recovered::default()
    };
    let bench = Bench::with(Hand::default(), plan(1), recovered).await;
    let begun = plan(1).target(&"t1".into()).cloned().unwrap();
    assert_eq!(*bench.cleared.borrow(), [[begun]], "only what was begun can have left something running");
    assert_eq!(bench.begun(), ["r1"]);
    assert!(bench.events().contains(&said("r2", JobStatus::Queued)));
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    assert!(bench.events().is_empty(), "they are known");
    bench.start(order("old", "a")).await.unwrap();
    assert_eq!(failure(&bench.events(), "old"), "was bad");
    bench.introduce().await;
    assert_eq!(bench.cleared.borrow().len(), 1, "runs that go on keep their spools");
}

#[actix::test]
async fn after_a_restart_a_run_whose_url_or_job_is_gone_is_failed_with_the_reason() {
    let expired = RunOrder { expires_at_ms: MIDNIGHT_MS - 1, ..order("r1", "a") };
    let undated = RunOrder { expires_at_ms: 0, ..order("r2", "c") };
    let recovered = Recovered {
        runs: vec![
            record(expired, RunPhase::Started { at_ms: 1, outcome: None }),
            record(undated, RunPhase::Accepted),
            record(order("r3", "gone"), RunPhase::Started { at_ms: 1, outcome: None }),
        ],
        ..Recovered::default()
    };
    let bench = Bench::with(Hand::default(), plan(2), recovered).await;
    let events = bench.events();
    let text = failure(&events, "r1");
    assert!(text.contains("interrupted") && text.contains("expired at 2024-10-03 23:59:59 UTC"), "{text}");
    assert!(failure(&events, "r3").contains("job \"gone\" is no longer in its configuration"));
    assert_eq!(bench.begun(), ["r2"]);
}

#[actix::test]
async fn a_run_whose_url_expires_while_it_waits_is_failed_instead_of_started() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(RunOrder { expires_at_ms: MIDNIGHT_MS + 60_000, ..order("r2", "b") }).await.unwrap();
    sleep(61 * SECOND).await;
    bench.end(0, completed()).await;
    assert!(failure(&bench.events(), "r2").contains("waited for its turn, and its upload URL expired"));
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn orders_that_come_before_the_earlier_life_is_known_wait_for_it() {
    let recovered = Recovered {
        runs: vec![record(order("r1", "a"), RunPhase::Finished { at_ms: 1, outcome: completed() })],
        ..Recovered::default()
    };
    let bench = Bench::without_neighbours(Hand::default(), recovered);
    bench.runner.send(Configured(Arc::new(plan(1)))).await.unwrap();
    let early = timeout(SECOND, bench.start(order("r1", "a"))).await;
    assert!(early.is_err(), "nothing is promised yet");
    bench.runner.send(AreYouThere).await.unwrap();
    bench.introduce().await;
    assert!(bench.begun().is_empty());
    assert!(bench.events().contains(&Event::Done("r1".into())), "the result was sent again");
}

#[actix::test]
async fn old_results_are_forgotten_in_the_store_too() {
    let old = |n: usize| {
        record(order(&format!("old{n}"), "a"), RunPhase::Finished { at_ms: 1, outcome: completed() })
    };
    let recovered = Recovered { runs: (0..256).map(old).collect(), ..Recovered::default() };
    let bench = Bench::with(Hand::default(), plan(1), recovered).await;
    assert!(bench.events().is_empty());
    bench.start(order("new", "a")).await.unwrap();
    bench.end(0, completed()).await;
    assert!(bench.events().contains(&Event::Forgot("old0".into())));
}

#[actix::test]
async fn without_any_configuration_every_job_is_unknown() {
    let bench = Bench::with(Hand::default(), Plan::default(), Recovered::default()).await;
    assert_eq!(bench.start(order("r1", "a")).await, Err(Refusal::UnknownJob("a".into())));
}
