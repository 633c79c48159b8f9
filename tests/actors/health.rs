//! Health checks, with looks that do what the test says.

use crate::fake::{self, Told};
use actix::prelude::*;
use backupy_agent::actors::health::{Health, HealthDeps, HealthNeighbours};
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::*;
use backupy_agent::model::{CheckKind, CheckOutcome, HealthCheck, Plan};
use backupy_agent::probe::health::Prober;
use backupy_agent::store::StoreError;
use backupy_agent::wire::Payload;
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the looks were, and how many of each check went on at once.
#[derive(Default)]
struct Looks {
    begun: RefCell<Vec<(String, Duration)>>,
    now: RefCell<HashMap<String, usize>>,
    doubled: Cell<bool>,
    going: Cell<usize>,
    most: Cell<usize>,
}

/// A look takes as long as its target says, in milliseconds; or it panics, hangs or fails.
struct Looker(Rc<Looks>, Instant);

struct Count(Rc<Looks>, String);

impl Drop for Count {
    fn drop(&mut self) {
        *self.0.now.borrow_mut().get_mut(&self.1).unwrap() -= 1;
        self.0.going.set(self.0.going.get() - 1);
    }
}

impl Prober for Looker {
    fn probe(&self, check: Arc<HealthCheck>) -> LocalBoxFuture<'static, CheckOutcome> {
        let (looks, id) = (Rc::clone(&self.0), check.id.as_str().to_owned());
        looks.begun.borrow_mut().push((id.clone(), self.1.elapsed()));
        *looks.now.borrow_mut().entry(id.clone()).or_default() += 1;
        if looks.now.borrow()[&id] > 1 {
            looks.doubled.set(true);
        }
        looks.going.set(looks.going.get() + 1);
        looks.most.set(looks.most.get().max(looks.going.get()));
        let count = Count(looks, id);
        Box::pin(async move {
            let _count = count;
            match check.target.expose() {
                "panic" => panic!("as the test wants it"),
                "hang" => std::future::pending().await,
                "late" => {
                    sleep(check.timeout).await;
                    CheckOutcome { error: Some("timed out".into()), timed_out: true, ..Default::default() }
                }
                "bad" => CheckOutcome { error: Some("bad".into()), ..Default::default() },
                takes => {
                    sleep(Duration::from_millis(takes.parse().unwrap())).await;
                    CheckOutcome::default()
                }
            }
        })
    }
}

struct Bench {
    health: Addr<Health>,
    looks: Rc<Looks>,
    results: Told<Submit>,
    ends: Told<ChildDown>,
}

type Answer = Box<dyn FnMut(usize) -> Result<Submitted, QueueError>>;

impl Bench {
    /// The first turn of each check comes after this share of its interval.
    fn new(share: f64, mut answer: Answer) -> Self {
        tokio::time::pause();
        let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
        let mut number = 0;
        let (submit, results) = fake::slow(move |_: &Submit| {
            number += 1;
            let answer = answer(number);
            Box::pin(async move { answer })
        });
        let looks = Rc::<Looks>::default();
        let mut spread = share;
        let health = Health::new(HealthDeps {
            life: Life::new(ChildName::Health, 1, supervisor),
            prober: Rc::new(Looker(Rc::clone(&looks), Instant::now())),
            clock: Arc::new(|| 7),
            unit: Box::new(move || {
                spread = if share < 0.0 { (spread + 0.618_034).fract().abs() } else { share };
                spread
            }),
        });
        let health = health.start();
        health.do_send(HealthNeighbours { submit });
        Self { health, looks, results, ends }
    }

    fn well(share: f64) -> Self {
        Self::new(share, Box::new(|_| Ok(Submitted::OnDisk(1))))
    }

    fn configure(&self, health_checks: Vec<HealthCheck>) {
        self.health.do_send(Configured(Arc::new(Plan { health_checks, ..Plan::default() })));
    }

    /// When looks of that check began, in seconds; forgets them all.
    fn times(&self, id: &str) -> Vec<f64> {
        let begun = self.looks.begun.take();
        let mine = begun.iter().filter(|(check, _)| check == id);
        mine.map(|(_, at)| (at.as_secs_f64() * 10.0).round() / 10.0).collect()
    }

    /// Each result: the check, and what is wrong with it.
    fn results(&self) -> Vec<(String, String)> {
        let told = self.results.lock().unwrap();
        let result = |submit: &Submit| {
            let Payload::HealthResult(result) = &submit.payload else { panic!("{:?}", submit.payload) };
            assert_eq!((result.ok, result.ts_ms), (result.error.is_empty(), 7));
            (result.check_id.clone(), result.error.clone())
        };
        told.iter().map(result).collect()
    }
}

fn check(id: &str, interval_s: u64, target: &str) -> HealthCheck {
    HealthCheck {
        id: id.into(),
        name: String::new(),
        kind: CheckKind::Http,
        target: target.into(),
        interval: Duration::from_secs(interval_s),
        timeout: Duration::from_secs(10),
        expected_status: 0,
    }
}

async fn seconds(number: f64) {
    sleep(Duration::from_secs_f64(number)).await;
}

#[actix::test]
async fn without_a_check_nothing_ever_happens() {
    let bench = Bench::well(0.5);
    bench.configure(Vec::new());
    seconds(86_400.0).await;
    assert!(bench.results().is_empty());
}

#[actix::test]
async fn checks_start_change_and_stop_with_the_configuration() {
    let bench = Bench::well(0.5);
    bench.configure(vec![check("a", 10, "1"), check("b", 4, "1")]);
    seconds(16.0).await;
    assert_eq!(bench.times("a"), [5.0, 15.0]);
    // The unchanged one keeps its times, under a new name too; the changed one starts anew.
    let renamed = HealthCheck { name: "new".into(), ..check("a", 10, "1") };
    bench.configure(vec![renamed, check("b", 8, "1")]);
    seconds(10.0).await;
    assert_eq!(bench.looks.begun.borrow().iter().filter(|(id, _)| id == "b").count(), 1);
    assert_eq!(bench.times("a"), [25.0]);
    bench.configure(vec![check("b", 8, "1")]);
    seconds(16.0).await;
    assert_eq!(bench.times("b"), [28.0, 36.0]);
    bench.configure(Vec::new());
    seconds(1_000.0).await;
    assert_eq!(bench.times("b"), Vec::<f64>::new());
}

#[actix::test]
async fn a_check_slower_than_its_interval_skips_and_holds_nobody_up() {
    let bench = Bench::well(0.5);
    bench.configure(vec![check("slow", 2, "5000"), check("quick", 2, "1")]);
    seconds(20.5).await;
    let quick = bench.looks.begun.borrow().iter().filter(|(id, _)| id == "quick").count();
    assert_eq!(quick, 10);
    assert_eq!(bench.times("slow"), [1.0, 7.0, 13.0, 19.0]);
    assert!(!bench.looks.doubled.get());
}

#[actix::test]
async fn a_thousand_checks_at_ten_seconds_never_meet_themselves() {
    let bench = Bench::well(-1.0);
    bench.configure((0..1_000).map(|number| check(&number.to_string(), 10, "300")).collect());
    seconds(60.0).await;
    assert!(!bench.looks.doubled.get());
    let (looks, most) = (bench.looks.begun.borrow().len(), bench.looks.most.get());
    assert!((5_900..=6_100).contains(&looks), "{looks}");
    // 100 begin in a second and take 0.3 s: spread out, about 30 go on at once.
    assert!(most < 60, "{most} at once");
}

#[actix::test]
async fn hanging_targets_leave_places_to_the_others() {
    let bench = Bench::well(-1.0);
    let mut checks: Vec<_> = (0..700).map(|number| check(&format!("h{number}"), 10, "late")).collect();
    checks.extend((0..300).map(|number| check(&format!("q{number}"), 10, "5")));
    bench.configure(checks);
    // Until it is known who hangs.
    seconds(60.0).await;
    bench.looks.begun.take();
    seconds(60.0).await;
    let quick = bench.looks.begun.borrow().iter().filter(|(id, _)| id.starts_with('q')).count();
    assert!((1_790..=1_810).contains(&quick), "{quick} looks of 300 checks in 6 intervals");
    assert!(bench.looks.most.get() <= 256, "{}", bench.looks.most.get());
}

#[actix::test]
async fn a_look_that_panics_or_never_ends_is_a_failing_check_and_no_more() {
    let bench = Bench::well(0.0);
    bench.configure(vec![check("p", 60, "panic"), check("h", 60, "hang"), check("w", 60, "1")]);
    seconds(13.0).await;
    let results: HashMap<_, _> = bench.results().into_iter().collect();
    assert!(results["p"].contains("fault of the agent"), "{results:?}");
    assert_eq!(results["h"], "timed out after 12 s");
    assert_eq!(results["w"], "");
    let status = bench.health.send(GetHealth).await.unwrap();
    assert_eq!((status.checks, status.failing, status.failures.len()), (3, 2, 2));
    assert!(bench.ends.lock().unwrap().is_empty());
}

#[actix::test]
async fn run_now_runs_once_and_keeps_the_schedule() {
    let bench = Bench::well(0.5);
    bench.configure(vec![check("a", 10, "2000")]);
    let run = |id: &str| bench.health.send(RunCheck(id.into()));
    run("a").await.unwrap().unwrap();
    run("a").await.unwrap().unwrap();
    seconds(3.0).await;
    assert_eq!(bench.results().len(), 1);
    seconds(5.0).await;
    assert_eq!(bench.times("a"), [0.0, 5.0]);
    assert_eq!(run("x").await.unwrap(), Err(Refusal::UnknownCheck("x".into())));
}

#[actix::test]
async fn a_result_outlives_a_restart_of_the_queue_and_a_full_disk_costs_only_itself() {
    let bench = Bench::new(
        0.0,
        Box::new(|number| match number {
            1 => Err(QueueError::StoreGone),
            3 => Err(QueueError::Store(StoreError::NoSpace { path: "/s".into(), cause: "ENOSPC".into() })),
            _ => Ok(Submitted::OnDisk(1)),
        }),
    );
    bench.configure(vec![check("a", 10, "bad")]);
    seconds(5.0).await;
    assert_eq!(bench.results().len(), 2, "offered again");
    seconds(20.0).await;
    assert_eq!(bench.results().len(), 4, "the refused one is not offered again");
    let status = bench.health.send(GetHealth).await.unwrap();
    assert_eq!((status.lost, status.failing, status.failures[0].error.as_str()), (1, 1, "bad"));
}

#[actix::test]
async fn a_changed_check_ends_the_look_that_was_under_way() {
    let bench = Bench::well(0.0);
    bench.configure(vec![check("a", 60, "hang")]);
    seconds(1.0).await;
    bench.configure(vec![check("a", 60, "1")]);
    seconds(1.0).await;
    assert!(!bench.looks.doubled.get());
    assert_eq!(bench.results(), [("a".to_owned(), String::new())]);
}

#[actix::test]
async fn quitting_gives_up_looks_and_brings_what_was_seen_to_the_disk() {
    let bench = Bench::well(0.0);
    bench.configure(vec![check("h", 60, "hang"), check("w", 60, "1")]);
    seconds(1.0).await;
    let begin = Instant::now();
    bench.health.send(Quit).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500));
    seconds(1.0).await;
    assert_eq!(bench.results(), [("w".to_owned(), String::new())]);
    assert_eq!(bench.looks.now.borrow()["h"], 0, "the look goes on");
    let ends = bench.ends.lock().unwrap();
    assert_eq!((ends.len(), &ends[0].exit), (1, &ChildExit::Stopped));
}
