//! How a run ended, before its post-hooks: kept, and told whatever stops them. And its time, over restarts.

use crate::runner_bench::{Bench, Event, Hand, MIDNIGHT_MS, completed, order, plan, record};
use backupy_agent::actors::messages::{Configured, QueueError, Quit, Refusal};
use backupy_agent::model::{Plan, RunOrder, RunOutcome, RunPhase};
use backupy_agent::store::Recovered;
use backupy_agent::wire::v1::JobStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn failed() -> RunOutcome {
    RunOutcome::Failed { error: "shop.db: does not exist".into() }
}

fn put(run: &str, phase: &'static str) -> Event {
    Event::Put(run.into(), phase)
}

fn failure(events: &[Event]) -> String {
    let found = events.iter().find_map(|event| {
        let Event::Said(_, JobStatus::Failed, text) = event else { return None };
        Some(text.clone())
    });
    found.unwrap_or_else(|| panic!("nothing failed: {events:?}"))
}

async fn stubborn(plan: Plan) -> Bench {
    Bench::with(Hand { stubborn: true, ..Hand::default() }, plan, Recovered::default()).await
}

async fn after(phase: RunPhase, order: RunOrder) -> Bench {
    let recovered = Recovered { runs: vec![record(order, phase)], ..Recovered::default() };
    let mut plan = plan(1);
    plan.jobs[0].post_hooks = vec!["sleep 20".into()];
    Bench::with(Hand::default(), plan, recovered).await
}

#[actix::test]
async fn an_end_is_on_disk_before_its_post_hooks_and_the_result_follows_them() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.events();
    bench.reach(0, completed()).await;
    assert_eq!(bench.events(), [put("r1", "judged")]);
    sleep(600 * SECOND / 2).await;
    bench.events();
    bench.end(0, completed()).await;
    assert_eq!(bench.events(), [put("r1", "finished"), Event::Done("r1".into())]);
}

#[actix::test]
async fn a_disk_that_takes_no_end_does_not_keep_the_post_hooks_waiting() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    let begin = Instant::now();
    bench.reach(0, completed()).await;
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
}

#[actix::test]
async fn what_stops_post_hooks_changes_nothing_of_the_end_before_them() {
    for (by_cancel, outcome) in
        [(true, completed()), (true, failed()), (false, completed()), (false, failed())]
    {
        let good = matches!(outcome, RunOutcome::Completed(_));
        let bench = stubborn(plan(1)).await;
        bench.start(order("r1", "a")).await.unwrap();
        bench.reach(0, outcome).await;
        bench.events();
        if by_cancel {
            let expected = if good { Err(Refusal::NothingToCancel("a".into())) } else { Ok(()) };
            assert_eq!(bench.cancel("a").await, expected);
        } else {
            sleep(602 * SECOND).await;
        }
        let events = bench.events();
        if good {
            assert!(events.contains(&Event::Done("r1".into())), "{events:?}");
            assert!(!events.iter().any(|event| matches!(event, Event::Said(..))), "{events:?}");
        } else {
            assert_eq!(failure(&events), "shop.db: does not exist");
        }
        let warned = |part: &str| {
            events.iter().any(|event| matches!(event, Event::Log(_, text) if text.contains(part)))
        };
        assert!(
            warned(if by_cancel { "cancelled in its post-hooks" } else { "timeout of 600 s" }),
            "{events:?}"
        );
        assert!(warned(if good { "the stored backup counts" } else { "run to their end" }), "{events:?}");
        bench.end(0, RunOutcome::Cancelled).await;
        assert!(!bench.events().iter().any(|event| matches!(event, Event::Said(..) | Event::Done(_))));
        tokio::time::resume();
    }
}

#[actix::test]
async fn what_the_end_of_the_agent_stops_of_post_hooks_is_left_to_the_next_life_with_the_result() {
    for (stubborn, outcome) in [(false, completed()), (false, failed()), (true, completed())] {
        let bench = Bench::with(Hand { stubborn, ..Hand::default() }, plan(1), Recovered::default()).await;
        bench.start(order("r1", "a")).await.unwrap();
        bench.events();
        bench.reach(0, outcome).await;
        bench.runner.send(Quit).await.unwrap();
        assert!(bench.going.borrow()[0].cancel.is_interrupted());
        let mut events = bench.events();
        events.retain(|event| !matches!(event, Event::Progress(..)));
        assert_eq!(events, [put("r1", "judged")], "that is what the next life finds");
        tokio::time::resume();
    }
}

#[actix::test]
async fn an_end_that_the_disk_did_not_take_before_the_post_hooks_is_told_when_the_agent_ends() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    bench.reach(0, failed()).await;
    bench.seen.lock().unwrap().refuse = None;
    bench.runner.send(Quit).await.unwrap();
    assert_eq!(failure(&bench.events()), "shop.db: does not exist");
}

#[actix::test]
async fn a_disk_that_takes_no_start_takes_no_time_of_the_run() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    bench.start(order("r2", "b")).await.unwrap();
    bench.seen.lock().unwrap().refuse = Some(QueueError::StoreGone);
    bench.end(0, completed()).await;
    sleep(3600 * SECOND).await;
    assert_eq!(bench.begun(), ["r1"]);
    bench.seen.lock().unwrap().refuse = None;
    sleep(31 * SECOND).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    sleep(560 * SECOND).await;
    assert!(!bench.going.borrow()[1].cancel.is_cancelled());
    sleep(40 * SECOND).await;
    assert!(failure(&bench.events()).contains("its timeout of 600 s"));
}

#[actix::test]
async fn after_a_kill_in_the_post_hooks_the_end_is_told_and_only_they_run_again() {
    let expired = RunOrder { expires_at_ms: MIDNIGHT_MS - 1, ..order("r1", "a") };
    let judged = |outcome| RunPhase::Started { at_ms: MIDNIGHT_MS - 3_600_000, outcome: Some(outcome) };
    let bench = after(judged(completed()), expired.clone()).await;
    assert_eq!(bench.events(), [put("r1", "finished"), Event::Done("r1".into())]);
    assert_eq!(bench.begun(), ["r1"]);
    assert_eq!(bench.going.borrow()[0].progress.verdict().known(), Some(completed()), "its hooks are left");
    bench.start(order("r2", "b")).await.unwrap();
    assert_eq!(bench.begun(), ["r1"], "they have their target");
    bench.end(0, completed()).await;
    assert_eq!(bench.begun(), ["r1", "r2"]);
    assert!(!bench.events().contains(&Event::Done("r1".into())), "told once");
    tokio::time::resume();

    let bench = after(judged(failed()), expired).await;
    assert_eq!(failure(&bench.events()), "shop.db: does not exist");
    assert_eq!(bench.begun(), ["r1"]);
}

#[actix::test]
async fn a_timeout_counts_from_the_first_start_also_over_restarts() {
    let started = |ago_s: u64| RunPhase::Started { at_ms: MIDNIGHT_MS - ago_s * 1000, outcome: None };
    let bench = after(started(590), order("r1", "a")).await;
    sleep(9 * SECOND).await;
    assert!(!bench.going.borrow()[0].cancel.is_cancelled());
    sleep(2 * SECOND).await;
    assert!(failure(&bench.events()).contains("timeout of 600 s and was stopped"));
    tokio::time::resume();

    let bench = after(started(601), order("r1", "a")).await;
    let text = failure(&bench.events());
    assert!(text.contains("timeout of 600 s, during which the agent was interrupted"), "{text}");
    let known = bench.going.borrow()[0].progress.verdict().known();
    assert_eq!(known, Some(RunOutcome::Failed { error: text }), "only its post-hooks run: they always do");
    tokio::time::resume();

    // The clock went back an hour since.
    let later = RunPhase::Started { at_ms: MIDNIGHT_MS + 3_600_000, outcome: None };
    let bench = after(later, order("r1", "a")).await;
    sleep(602 * SECOND).await;
    assert!(failure(&bench.events()).contains("timeout of 600 s"));
}

#[actix::test]
async fn a_run_that_was_interrupted_and_cannot_begin_again_has_its_post_hooks_all_the_same() {
    let expired = RunOrder { expires_at_ms: MIDNIGHT_MS - 1, ..order("r1", "a") };
    let bench = after(RunPhase::Started { at_ms: MIDNIGHT_MS - 1000, outcome: None }, expired.clone()).await;
    assert!(failure(&bench.events()).contains("its upload URL expired"));
    let known = bench.going.borrow()[0].progress.verdict().known();
    assert!(matches!(known, Some(RunOutcome::Failed { .. })), "{known:?}");
    tokio::time::resume();

    let bench = after(RunPhase::Accepted, expired).await;
    assert!(failure(&bench.events()).contains("its upload URL expired"));
    assert!(bench.begun().is_empty(), "it never began");
}

#[actix::test]
async fn a_timeout_names_the_limit_that_the_run_began_with() {
    let bench = Bench::new(plan(1)).await;
    bench.start(order("r1", "a")).await.unwrap();
    let mut changed = plan(1);
    changed.jobs[0].timeout = Some(Duration::from_secs(7200));
    bench.runner.send(Configured(Arc::new(changed))).await.unwrap();
    sleep(601 * SECOND).await;
    assert!(failure(&bench.events()).contains("its timeout of 600 s"));
}
