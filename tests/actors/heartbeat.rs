//! Signs of life.

use crate::fake;
use actix::prelude::*;
use backupy_agent::actors::heartbeat::{Heartbeat, HeartbeatDeps, HeartbeatNeighbours};
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::{
    ChildDown, ChildExit, ChildName, Configured, GetQueueStatus, GetRuns, LinkLost, LinkUp, Quit, Submit,
    Submitted, Transmit,
};
use backupy_agent::model::{Plan, QueueStatus, RunStatus};
use backupy_agent::probe::host::HostProbe;
use backupy_agent::wire::{Payload, v1};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

type Sent = Arc<Mutex<Vec<(Duration, v1::Heartbeat)>>>;

struct Bench {
    heartbeat: Addr<Heartbeat>,
    sent: Sent,
    ends: fake::Told<ChildDown>,
    link: Recipient<Transmit>,
}

impl Bench {
    fn new(runs: Recipient<GetRuns>, queue_status: Recipient<GetQueueStatus>) -> Self {
        tokio::time::pause();
        let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
        let sent = Sent::default();
        let (begin, log) = (Instant::now(), Arc::clone(&sent));
        let (submit, _) = fake::quick(move |submit: &Submit| {
            let Payload::Heartbeat(beat) = &submit.payload else { panic!("{:?}", submit.payload) };
            log.lock().unwrap().push((begin.elapsed(), beat.clone()));
            Ok(Submitted::Sent)
        });
        let life = Life::new(ChildName::Heartbeat, 1, supervisor);
        let host = HostProbe::new(&std::env::temp_dir());
        let heartbeat = Heartbeat::new(HeartbeatDeps { life, host }).start();
        heartbeat.do_send(HeartbeatNeighbours { submit, queue_status, runs });
        let (link, _) = fake::quick(|_: &Transmit| Ok(()));
        Self { heartbeat, sent, ends, link }
    }

    fn idle() -> Self {
        Self::new(fake::quick(|_| Vec::new()).0, fake::quick(|_| QueueStatus::default()).0)
    }

    fn link_up(&self, generation: u64, interval: Duration) {
        let (link, confirms) = (self.link.clone(), Default::default());
        self.heartbeat.do_send(LinkUp { generation, link, heartbeat_interval: interval, confirms });
    }

    /// When heartbeats went out, and forgets them.
    fn times(&self) -> Vec<Duration> {
        self.sent.lock().unwrap().drain(..).map(|(at, _)| at).collect()
    }
}

fn secs(list: &[u64]) -> Vec<Duration> {
    list.iter().copied().map(Duration::from_secs).collect()
}

fn run_of(job_id: &str) -> RunStatus {
    RunStatus {
        run_id: format!("run of {job_id}").as_str().into(),
        job_id: job_id.into(),
        step: None,
        progress_percent: 0,
        since_ms: 1,
    }
}

#[actix::test]
async fn without_a_link_there_is_no_sign_of_life() {
    let bench = Bench::idle();
    sleep(Duration::from_secs(300)).await;
    assert!(bench.times().is_empty(), "{:?}", bench.times());
}

#[actix::test]
async fn the_first_goes_out_at_once_and_the_others_every_30_s() {
    let bench = Bench::idle();
    bench.link_up(1, Duration::from_secs(30));
    sleep(Duration::from_millis(90_500)).await;
    assert_eq!(rounded(bench.times()), secs(&[0, 30, 60, 90]));
}

#[actix::test]
async fn an_interval_of_1_s_is_kept_for_minutes() {
    let bench = Bench::idle();
    bench.link_up(1, Duration::from_secs(1));
    sleep(Duration::from_millis(180_500)).await;
    assert_eq!(rounded(bench.times()), secs(&(0..=180).collect::<Vec<_>>()));
}

#[actix::test]
async fn a_new_link_brings_its_own_interval_and_a_heartbeat_at_once() {
    let bench = Bench::idle();
    bench.link_up(1, Duration::from_secs(30));
    sleep(Duration::from_millis(40_500)).await;
    assert_eq!(rounded(bench.times()), secs(&[0, 30]));
    bench.link_up(2, Duration::from_secs(5));
    sleep(Duration::from_secs(11)).await;
    let expected: Vec<_> = [40_500, 45_500, 50_500].map(Duration::from_millis).into();
    assert_eq!(rounded(bench.times()), expected);
}

#[actix::test]
async fn a_lost_link_ends_it_and_the_loss_of_an_older_one_does_not() {
    let bench = Bench::idle();
    bench.link_up(2, Duration::from_secs(1));
    sleep(Duration::from_millis(1_500)).await;
    bench.heartbeat.do_send(LinkLost { generation: 1 });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rounded(bench.times()), secs(&[0, 1, 2]));
    bench.heartbeat.do_send(LinkLost { generation: 2 });
    sleep(Duration::from_secs(60)).await;
    assert!(bench.times().is_empty(), "{:?}", bench.times());
}

#[actix::test]
async fn it_carries_the_active_jobs_once_the_depth_the_version_and_the_host() {
    let runs = fake::quick(|_: &GetRuns| vec![run_of("a"), run_of("b"), run_of("a")]).0;
    let status = fake::quick(|_: &GetQueueStatus| QueueStatus { depth: 7, ..Default::default() }).0;
    let bench = Bench::new(runs, status);
    bench.heartbeat.do_send(Configured(Arc::new(Plan { version: 12, ..Plan::default() })));
    bench.link_up(1, Duration::from_secs(30));
    sleep(Duration::from_millis(10)).await;
    let (_, beat) = bench.sent.lock().unwrap().pop().unwrap();
    assert_eq!(beat.active_job_ids, ["a", "b"]);
    assert_eq!(beat.config_version, 12);
    let metrics = beat.metrics.unwrap();
    assert_eq!(metrics.queue_depth, 7);
    assert!(metrics.mem_total_bytes > 0 && metrics.disk_total_bytes > 0);
}

#[actix::test]
async fn neighbours_that_are_late_do_not_hold_it_and_what_they_said_before_stays() {
    let mut first = true;
    let runs = fake::slow(move |_: &GetRuns| {
        let answer = std::mem::replace(&mut first, false);
        Box::pin(async move { if answer { vec![run_of("long")] } else { std::future::pending().await } })
    });
    let bench = Bench::new(runs.0, fake::silent());
    bench.link_up(1, Duration::from_secs(10));
    sleep(Duration::from_secs(35)).await;
    let sent = bench.sent.lock().unwrap().clone();
    // The Queue is silent: each beat is late by the limit, and the lateness does not add up.
    assert_eq!(rounded(sent.iter().map(|(at, _)| *at).collect()), secs(&[1, 11, 21, 31]));
    for (at, beat) in sent {
        assert_eq!(beat.active_job_ids, ["long"], "at {at:?}");
    }
}

#[actix::test]
async fn neighbours_that_are_gone_do_not_hold_it() {
    let bench = Bench::new(fake::gone(), fake::gone());
    bench.link_up(1, Duration::from_secs(10));
    sleep(Duration::from_millis(10_500)).await;
    assert_eq!(rounded(bench.times()), secs(&[0, 10]));
}

#[actix::test]
async fn it_ends_when_it_is_asked_to_and_says_so() {
    let bench = Bench::idle();
    bench.heartbeat.send(Quit).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let ends = bench.ends.lock().unwrap();
    assert_eq!(ends.len(), 1);
    assert_eq!(
        (ends[0].child, ends[0].generation, &ends[0].exit),
        (ChildName::Heartbeat, 1, &ChildExit::Stopped)
    );
}

/// Virtual timers fire within a millisecond or two of their time.
fn rounded(times: Vec<Duration>) -> Vec<Duration> {
    let round = |at: Duration| Duration::from_millis((at.as_millis() as u64 + 5) / 10 * 10);
    times.into_iter().map(round).collect()
}
