//! Control of runs: what waits, what is stopped, what is left of it, what is said of it.

use crate::runner_bench::{Bench, Event, Hand, MIDNIGHT_MS, completed, order, plan, record, with_window};
use backupy_agent::actors::messages::{Configured, QueueError, Quit, Refusal};
use backupy_agent::model::{Completed, RunOrder, RunOutcome, RunPhase, Step};
use backupy_agent::store::Recovered;
use backupy_agent::wire::v1::JobStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn logs(events: &[Event]) -> Vec<&str> {
    let texts = events.iter().filter_map(|event| {
        let Event::Log(_, text) = event else { return None };
        Some(text.as_str())
    });
    texts.collect()
}

fn of_size(size_bytes: u64) -> RunOutcome {
    let RunOutcome::Completed(done) = completed() else { panic!("completed") };
    RunOutcome::Completed(Completed { size_bytes, ..done })
}

#[actix::test]
async fn a_run_that_waits_past_the_end_of_its_url_fails_then_and_not_when_its_turn_comes() {
    let held = with_window(plan(1), 0, 120);
    let bench = Bench::new(held).await;
    bench.start(RunOrder { expires_at_ms: MIDNIGHT_MS + 90_000, ..order("r1", "a") }).await.unwrap();
    bench.start(RunOrder { expires_at_ms: 0, ..order("r2", "c") }).await.unwrap();
    sleep(89 * SECOND).await;
    bench.events();
    sleep(2 * SECOND).await;
    let events = bench.events();
    let failed = events.iter().find_map(|event| {
        let Event::Said(run, JobStatus::Failed, why) = event else { return None };
        Some((run.as_str(), why.as_str()))
    });
    let (run, why) = failed.unwrap_or_else(|| panic!("{events:?}"));
    assert!(run == "r1" && why.contains("waited for its turn, and its upload URL expired"), "{why}");
    sleep(Duration::from_secs(3601)).await;
    let text = format!("{:?}", bench.events());
    assert!(text.contains("r2") && text.contains("expired"), "an undated URL lives an hour: {text}");
    assert!(bench.begun().is_empty());
}

#[actix::test]
async fn more_runs_at_once_start_as_soon_as_the_configuration_allows_them() {
    let bench = Bench::new(plan(0)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    assert_eq!(bench.begun(), ["r1"], "0 means 1");
    bench.runner.send(Configured(Arc::new(plan(2)))).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    bench.runner.send(Configured(Arc::new(plan(1)))).await.unwrap();
    bench.start(order("r3", "b")).await.unwrap();
    bench.end(1, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r2"], "the one that goes on has the only place");
    bench.end(0, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r2", "r3"]);
}

#[actix::test]
async fn a_cancelled_run_is_told_within_two_seconds_while_its_post_hooks_keep_its_target() {
    let bench = Bench::with(Hand { stubborn: true, ..Hand::default() }, plan(2), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "b")).await.unwrap();
    bench.events();
    let begin = Instant::now();
    bench.cancel("a").await.unwrap();
    assert!(begin.elapsed() < 2 * SECOND);
    assert!(!bench.going.borrow()[0].cancel.is_interrupted(), "post-hooks have their time");
    let events = bench.events();
    assert!(events.contains(&Event::Said("r1".into(), JobStatus::Cancelled, String::new())), "{events:?}");
    sleep(60 * SECOND).await;
    assert_eq!(bench.begun(), ["r1"], "another run on the same target would meet them");

    bench.going.borrow()[0].progress.info("post-hook 1 of 1 ended well", Vec::new());
    bench.end(0, RunOutcome::Cancelled).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    assert_eq!(logs(&bench.events()), ["post-hook 1 of 1 ended well"], "and no second result");
}

#[actix::test]
async fn what_never_comes_back_gives_its_target_up_in_the_end() {
    let bench = Bench::with(Hand { stubborn: true, ..Hand::default() }, plan(1), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "b")).await.unwrap();
    bench.cancel("a").await.unwrap();
    sleep(Duration::from_secs(32 * 60)).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    bench.end(0, completed()).await;
    assert!(!bench.events().contains(&Event::Done("r1".into())), "it was told as cancelled");
}

#[actix::test]
async fn what_a_run_says_is_told_live_and_what_is_too_much_is_counted() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.events();
    let progress = bench.going.borrow()[0].progress.clone();
    progress.warn("GET https://store/o?sig=TOPSECRET failed", Vec::new());
    sleep(SECOND).await;
    assert_eq!(bench.events(), [Event::Log("a".into(), "GET https://store/o?*** failed".into())]);
    for number in 0..100 {
        progress.info("again", vec![("number", number.to_string())]);
    }
    sleep(SECOND).await;
    assert_eq!(logs(&bench.events()).len(), 32);
    bench.end(0, completed()).await;
    let events = bench.events();
    assert_eq!(logs(&events), ["68 log events of this run were left out: they were too many"]);
    assert!(matches!(events.last(), Some(Event::Done(_))), "the log stands before the result: {events:?}");
}

#[actix::test]
async fn a_backup_that_is_less_than_half_of_the_last_good_one_is_warned_about() {
    let bench = Bench::new(plan(1)).await;
    let mut warned = Vec::new();
    for (index, size) in [1000, 500, 249, 200].into_iter().enumerate() {
        bench.start(order(&format!("r{index}"), "a")).await.unwrap();
        bench.end(index, of_size(size)).await;
        let events = bench.events();
        if logs(&events).iter().any(|text| text.contains("less than half")) {
            warned.push(size);
        }
    }
    assert_eq!(warned, [249]);
}

#[actix::test]
async fn at_shutdown_a_run_that_is_nearly_over_ends_well_and_another_one_is_stopped_at_once() {
    let bench = Bench::new(plan(2)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "c")).await.unwrap();
    bench.events();
    bench.going.borrow()[0].progress.verifying();
    assert_eq!(bench.statuses().await[0].step, Some(Step::Verifying));
    let ((), ()) = tokio::join!(async { bench.runner.send(Quit).await.unwrap() }, async {
        sleep(SECOND / 2).await;
        assert!(!bench.going.borrow()[0].cancel.is_cancelled());
        assert!(bench.going.borrow()[1].cancel.is_interrupted());
        bench.end(0, completed()).await;
    });
    assert!(bench.events().contains(&Event::Done("r1".into())));
}

#[actix::test]
async fn at_shutdown_a_run_that_only_seemed_nearly_over_is_stopped_in_time() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.going.borrow()[0].progress.uploading(97, 100);
    bench.events();
    let begin = Instant::now();
    bench.runner.send(Quit).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(2_600), "{:?}", begin.elapsed());
    assert!(bench.going.borrow()[0].cancel.is_interrupted());
    assert_eq!(bench.events(), [], "it begins again with the next life");
}

#[actix::test]
async fn a_run_that_is_left_behind_keeps_its_target_and_no_place() {
    let bench = Bench::with(Hand { stubborn: true, ..Hand::default() }, plan(1), Recovered::default()).await;
    for (run, job) in [("r1", "a"), ("r2", "b"), ("r3", "c")] {
        bench.start(order(run, job)).await.unwrap();
    }
    bench.cancel("a").await.unwrap();
    sleep(SECOND).await;
    assert_eq!(bench.begun(), ["r1", "r3"], "one dead disk does not stop the backups of other databases");
}

#[actix::test]
async fn a_cancel_of_several_runs_is_answered_when_the_last_of_them_has_ended() {
    let bench = Bench::with(Hand { stubborn: true, ..Hand::default() }, plan(1), Recovered::default()).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "a")).await.unwrap();
    bench.events();
    let begin = Instant::now();
    bench.cancel("a").await.unwrap();
    let stopped = bench.events();
    for run in ["r1", "r2"] {
        assert!(
            stopped.contains(&Event::Said(run.into(), JobStatus::Cancelled, String::new())),
            "{stopped:?}"
        );
    }
    assert!(begin.elapsed() < 2 * SECOND);
}

#[actix::test]
async fn a_cancel_that_comes_before_the_earlier_life_is_known_waits_for_it() {
    let started = RunPhase::Started { at_ms: MIDNIGHT_MS, outcome: None };
    let recovered = Recovered { runs: vec![record(order("r1", "a"), started)], ..Recovered::default() };
    let bench = Bench::without_neighbours(Hand::default(), recovered);
    bench.runner.send(Configured(Arc::new(plan(1)))).await.unwrap();
    let (answer, ()) = tokio::join!(bench.cancel("a"), bench.introduce());
    assert_eq!(answer, Ok(()));
    assert!(bench.events().contains(&Event::Said("r1".into(), JobStatus::Cancelled, String::new())));
    assert!(bench.begun().is_empty());
}

#[actix::test]
async fn a_cancel_of_a_run_whose_end_is_not_on_the_disk_yet_is_answered_with_that_end() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    let (first, second, ()) = tokio::join!(
        bench.cancel("a"),
        async {
            sleep(15 * SECOND).await;
            bench.cancel("a").await
        },
        async {
            sleep(20 * SECOND).await;
            bench.seen.lock().unwrap().refuse = None;
        }
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
}

#[actix::test]
async fn a_window_ends_by_the_hosts_clock_also_when_that_is_set_or_stood_still() {
    let bench = Bench::new(with_window(plan(1), 1380, 90)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.ahead_ms.store(90 * 60_000, std::sync::atomic::Ordering::Relaxed);
    sleep(61 * SECOND).await;
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn a_cancel_names_what_it_did_not_find() {
    let bench = Bench::new(plan(1)).await;
    assert_eq!(bench.cancel("a").await, Err(Refusal::NothingToCancel("a".into())));
    assert_eq!(bench.cancel("x").await, Err(Refusal::UnknownJob("x".into())));
}
