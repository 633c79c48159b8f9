//! What the server asks, in order.

use crate::fake::{self, Told};
use actix::prelude::*;
use backupy_agent::actors::dispatcher::{Dispatcher, DispatcherDeps, DispatcherNeighbours};
use backupy_agent::actors::life::Life;
use backupy_agent::actors::messages::{
    CancelRun, ChildDown, ChildExit, ChildName, Command, Commit, Configured, GetConfigVersion, QueueError,
    Recover, Refusal, RunCheck, ServerCommand, StartRun, Submit, Submitted,
};
use backupy_agent::store::{Change, Recovered, StoreError};
use backupy_agent::wire::{Payload, v1};
use prost::Message as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// Everything that the neighbours were told, in one order.
pub type Story = Arc<Mutex<Vec<String>>>;

pub struct Bench {
    pub dispatcher: Addr<Dispatcher>,
    pub neighbours: DispatcherNeighbours,
    pub story: Story,
    commits: Told<Commit>,
    ends: Told<ChildDown>,
}

/// How the neighbours answer.
pub struct World {
    pub recovered: Result<Recovered, StoreError>,
    pub commit: Result<(), StoreError>,
    pub commit_takes: Duration,
    pub start_takes: Duration,
    pub cancel_takes: Duration,
    pub submit: fn(&Submit) -> Result<Submitted, QueueError>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            recovered: Ok(Recovered::default()),
            commit: Ok(()),
            commit_takes: Duration::ZERO,
            start_takes: Duration::ZERO,
            cancel_takes: Duration::ZERO,
            submit: |_| Ok(Submitted::OnDisk(1)),
        }
    }
}

impl World {
    pub fn bench(self) -> Bench {
        tokio::time::pause();
        let story = Story::default();
        let tell = |text: String, story: &Story| story.lock().unwrap().push(text);
        let (supervisor, ends) = fake::quick(|_: &ChildDown| ());
        let (commit_answer, takes, log) = (self.commit, self.commit_takes, Arc::clone(&story));
        let (commit, commits) = fake::slow(move |_: &Commit| {
            let (answer, log) = (commit_answer.clone(), Arc::clone(&log));
            Box::pin(async move {
                sleep(takes).await;
                tell("stored".into(), &log);
                answer
            })
        });
        let (answer, log) = (self.submit, Arc::clone(&story));
        let submit = fake::quick(move |submit: &Submit| {
            tell(said(submit), &log);
            answer(submit)
        });
        let (takes, log) = (self.start_takes, Arc::clone(&story));
        let start_run = fake::slow(move |StartRun(order): &StartRun| {
            let (run, log) = (order.run_id.as_str().to_owned(), Arc::clone(&log));
            Box::pin(async move {
                sleep(takes).await;
                tell(format!("run {run}"), &log);
                match run.as_str() {
                    "unknown" => Err(Refusal::UnknownJob("j".into())),
                    "of another" => Err(Refusal::RunOfAnotherJob("of another".into())),
                    _ => Ok(()),
                }
            })
        });
        let (takes, log) = (self.cancel_takes, Arc::clone(&story));
        let cancel_run = fake::quick(move |CancelRun(job): &CancelRun| {
            tell(format!("cancel {job}"), &log);
            let (answer, ended) = oneshot::channel();
            let refusal = Refusal::NothingToCancel(job.clone());
            actix::spawn(async move {
                sleep(takes).await;
                let _ = answer.send(if takes.is_zero() { Err(refusal) } else { Ok(()) });
            });
            ended
        });
        let log = Arc::clone(&story);
        let run_check = fake::quick(move |RunCheck(id): &RunCheck| {
            tell(format!("check {id}"), &log);
            if id.as_str() == "known" { Ok(()) } else { Err(Refusal::UnknownCheck(id.clone())) }
        });
        let recovered = self.recovered;
        let neighbours = DispatcherNeighbours {
            recover: fake::quick(move |_: &Recover| recovered.clone()).0,
            commit,
            submit: submit.0,
            start_run: start_run.0,
            cancel_run: cancel_run.0,
            run_check: run_check.0,
            listeners: vec![listener(&story, "listener")],
        };
        let life = Life::new(ChildName::Dispatcher, 1, supervisor);
        let dispatcher = Dispatcher::new(DispatcherDeps { life }).start();
        dispatcher.do_send(neighbours.clone());
        Bench { dispatcher, neighbours, story, commits, ends }
    }
}

fn said(submit: &Submit) -> String {
    if let Payload::JobUpdate(update) = &submit.payload {
        assert_eq!((update.status(), update.job_id.as_str()), (v1::JobStatus::Failed, "j"));
        return format!("failed {}: {}", update.run_id, update.error_message);
    }
    if let Payload::Log(log) = &submit.payload {
        assert_eq!(log.level(), v1::LogLevel::Warn);
        return format!("warning: {}", log.message);
    }
    let Payload::Ack(ack) = &submit.payload else { panic!("{:?}", submit.payload) };
    assert_eq!(ack.correlation_id, submit.correlation_id);
    let how = if submit.ephemeral { "ack now" } else { "ack" };
    let verdict = if ack.accepted { "yes".to_owned() } else { format!("no: {}", ack.reason) };
    format!("{how} {} {verdict}", ack.correlation_id)
}

fn listener(story: &Story, name: &'static str) -> Recipient<Configured> {
    let log = Arc::clone(story);
    fake::quick(move |Configured(plan): &Configured| {
        log.lock().unwrap().push(format!("{name} has {}", plan.version));
    })
    .0
}

impl Bench {
    pub async fn ask(&self, id: &str, command: Command) {
        self.dispatcher.send(ServerCommand { correlation_id: id.into(), command }).await.unwrap();
    }

    /// What happened since the last look, once all is quiet.
    pub async fn story(&self) -> Vec<String> {
        sleep(Duration::from_secs(1)).await;
        self.story.lock().unwrap().drain(..).collect()
    }

    async fn version(&self) -> u64 {
        self.dispatcher.send(GetConfigVersion).await.unwrap()
    }
}

pub fn config(version: u64) -> Command {
    Command::Configure(v1::AgentConfig { version, ..Default::default() })
}

pub fn run(run_id: &str) -> Command {
    let creds = v1::S3UploadCreds { presigned_put_url: "https://s/o".into(), ..Default::default() };
    Command::RunBackup(v1::RunBackup {
        job_id: "j".into(),
        run_id: run_id.into(),
        upload_creds: Some(creds),
        ..Default::default()
    })
}

fn no_space() -> StoreError {
    StoreError::NoSpace { path: PathBuf::from("/s/state.redb"), cause: "ENOSPC".into() }
}

#[actix::test]
async fn a_configuration_is_stored_then_told_then_acked() {
    let bench = World { commit_takes: Duration::from_millis(200), ..World::default() }.bench();
    bench.ask("c1", config(3)).await;
    assert_eq!(bench.story().await, ["stored", "listener has 3", "ack c1 yes"]);
    assert_eq!(bench.version().await, 3);
    let commits = bench.commits.lock().unwrap();
    let [Change::PutConfig { version: 3, config }] = commits[0].0.as_slice() else { panic!("{commits:?}") };
    assert_eq!(v1::AgentConfig::decode(config.clone()).unwrap().version, 3);
}

#[actix::test]
async fn an_older_configuration_is_refused_and_an_equal_one_changes_nothing() {
    let bench = World::default().bench();
    bench.ask("", config(5)).await;
    assert_eq!(bench.story().await, ["stored", "listener has 5"]);
    bench.ask("old", config(4)).await;
    assert_eq!(bench.story().await, ["ack old no: version 4 is older than the applied 5"]);
    bench.ask("same", config(5)).await;
    assert_eq!(bench.story().await, ["ack same yes"]);
    bench.ask("", config(4)).await;
    assert_eq!(bench.story().await, Vec::<String>::new());
    assert_eq!(bench.version().await, 5);
}

#[actix::test]
async fn the_configuration_of_the_earlier_life_counts() {
    let stored = v1::AgentConfig { version: 8, ..Default::default() }.encode_to_vec();
    let recovered = Recovered { config: Some((8, stored.into())), ..Recovered::default() };
    let bench = World { recovered: Ok(recovered), ..World::default() }.bench();
    assert_eq!(bench.version().await, 8);
    bench.ask("old", config(7)).await;
    assert_eq!(bench.story().await, ["listener has 8", "ack old no: version 7 is older than the applied 8"]);
}

#[actix::test]
async fn a_stored_configuration_that_does_not_decode_is_asked_for_again() {
    let recovered = Recovered { config: Some((8, vec![0xff; 9].into())), ..Recovered::default() };
    let bench = World { recovered: Ok(recovered), ..World::default() }.bench();
    assert_eq!(bench.version().await, 0);
    bench.ask("c", config(8)).await;
    assert_eq!(bench.story().await, ["stored", "listener has 8", "ack c yes"]);
}

#[actix::test]
async fn what_cannot_be_stored_is_refused_and_not_applied() {
    let bench = World {
        commit: Err(no_space()),
        submit: |submit| {
            if submit.ephemeral { Ok(Submitted::Sent) } else { Err(QueueError::Store(no_space())) }
        },
        ..World::default()
    }
    .bench();
    bench.ask("c", config(1)).await;
    let story = bench.story().await;
    // The Ack does not fit on the disk either: the server hears it all the same.
    assert_eq!((story[0].as_str(), story.len()), ("stored", 3), "{story:?}");
    assert!(story[1].starts_with("ack c no: could not be stored: /s/state.redb: no space left"), "{story:?}");
    assert!(story[2].starts_with("ack now c no: could not be stored"), "{story:?}");
    assert_eq!(bench.version().await, 0);
}

#[actix::test]
async fn a_run_is_acked_only_once_the_runner_has_it_on_disk() {
    let bench = World { start_takes: Duration::from_secs(3), ..World::default() }.bench();
    bench.ask("r", run("r1")).await;
    assert_eq!(bench.story().await, Vec::<String>::new());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.story().await, ["run r1", "ack r yes"]);
}

#[actix::test]
async fn refusals_carry_a_reason_for_people() {
    let bench = World::default().bench();
    bench.ask("1", run("unknown")).await;
    bench.ask("2", run("")).await;
    bench.ask("3", Command::CancelJob(v1::CancelJob { job_id: "j".into() })).await;
    bench.ask("4", Command::RunHealthCheck(v1::RunHealthCheck { check_id: "c".into() })).await;
    bench.ask("5", Command::SelfUpdate(v1::SelfUpdate::default())).await;
    let mut acks: Vec<_> = bench.story().await.into_iter().filter(|line| line.starts_with("ack")).collect();
    // The one of a cancel comes when its runs have ended.
    acks.sort();
    assert_eq!(
        acks,
        [
            "ack 1 no: unknown job_id \"j\"",
            "ack 2 no: RunBackup has no run_id",
            "ack 3 no: no run of job \"j\" is waiting or going on",
            "ack 4 no: unknown check_id \"c\"",
            "ack 5 no: self-update is not supported by this version",
        ]
    );
}

pub fn cancel(job_id: &str) -> Command {
    Command::CancelJob(v1::CancelJob { job_id: job_id.into() })
}

#[actix::test]
async fn a_health_check_is_acked_once_its_turn_has_come() {
    let bench = World::default().bench();
    bench.ask("h", Command::RunHealthCheck(v1::RunHealthCheck { check_id: "known".into() })).await;
    assert_eq!(bench.story().await, ["check known", "ack h yes"]);
}

#[actix::test]
async fn commands_keep_their_order_whatever_each_takes() {
    let world = World {
        start_takes: Duration::from_millis(300),
        commit_takes: Duration::from_millis(20),
        ..World::default()
    };
    let bench = world.bench();
    let begin = Instant::now();
    for (id, command) in [("1", run("r1")), ("2", config(1)), ("3", run("r2"))] {
        bench.ask(id, command).await;
    }
    assert!(begin.elapsed() < Duration::from_millis(100), "taking in waited for the work");
    assert_eq!(
        bench.story().await,
        ["run r1", "ack 1 yes", "stored", "listener has 1", "ack 2 yes", "run r2", "ack 3 yes"]
    );
}

#[actix::test]
async fn a_flood_makes_the_connection_wait_and_loses_nothing() {
    let bench = World { start_takes: Duration::from_secs(1), ..World::default() }.bench();
    let begin = Instant::now();
    for number in 0..70 {
        bench.ask("", run(&format!("r{number}"))).await;
    }
    // 64 wait, one is worked off: the others had to wait for room.
    assert!(begin.elapsed() >= Duration::from_secs(4), "{:?}", begin.elapsed());
    sleep(Duration::from_secs(80)).await;
    let expected: Vec<_> = (0..70).map(|number| format!("run r{number}")).collect();
    assert_eq!(bench.story().await, expected);
}

#[actix::test]
async fn a_huge_configuration_is_taken_in_and_makes_the_next_command_wait() {
    let text = v1::Target { id: "t".into(), display_name: "x".repeat(3_000_000), ..Default::default() };
    // 24 kB when it is encoded, and more than 2 MB in memory.
    let elements = vec![v1::Target::default(); 12_000];
    for targets in [vec![text], elements] {
        let bench = World { commit_takes: Duration::from_secs(2), ..World::default() }.bench();
        let begin = Instant::now();
        for version in 1..=3 {
            let config = v1::AgentConfig { version, targets: targets.clone(), ..Default::default() };
            bench.ask("", Command::Configure(config)).await;
        }
        assert!(begin.elapsed() >= Duration::from_secs(4), "{:?}", begin.elapsed());
        sleep(Duration::from_secs(4)).await;
        assert_eq!(bench.version().await, 3);
        tokio::time::resume();
    }
}

#[actix::test]
async fn a_runner_that_was_replaced_is_told_the_jobs_before_it_gets_the_order_again() {
    let mut world = World::default().bench();
    world.ask("", config(2)).await;
    world.story().await;
    let fresh = world.neighbours.clone();
    world.neighbours.start_run = fake::gone();
    world.dispatcher.do_send(world.neighbours.clone());
    world.ask("r", run("r1")).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(world.story.lock().unwrap().clone(), Vec::<String>::new());
    let listeners = vec![listener(&world.story, "fresh runner"), fresh.listeners[0].clone()];
    world.dispatcher.do_send(DispatcherNeighbours { listeners, ..fresh });
    assert_eq!(world.story().await, ["fresh runner has 2", "run r1", "ack r yes"]);
}

#[actix::test]
async fn a_fresh_listener_is_told_while_nothing_else_happens() {
    let bench = World::default().bench();
    bench.ask("", config(2)).await;
    bench.story().await;
    let listeners = vec![listener(&bench.story, "fresh"), bench.neighbours.listeners[0].clone()];
    bench.dispatcher.do_send(DispatcherNeighbours { listeners, ..bench.neighbours.clone() });
    assert_eq!(bench.story().await, ["fresh has 2"]);
}

#[actix::test]
async fn a_runner_that_stays_away_is_a_refusal_and_not_a_silence() {
    let mut bench = World::default().bench();
    bench.neighbours.start_run = fake::gone();
    bench.dispatcher.do_send(bench.neighbours.clone());
    bench.ask("r", run("r1")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.story().await, ["ack r no: the agent's runner is restarting: send it again"]);
}

#[actix::test]
async fn a_state_that_cannot_be_read_ends_this_life_with_the_reason() {
    let bench = World { recovered: Err(no_space()), ..World::default() }.bench();
    sleep(Duration::from_secs(1)).await;
    let ends = bench.ends.lock().unwrap();
    let ChildExit::Failed(cause) = &ends[0].exit else { panic!("{ends:?}") };
    assert!(cause.contains("no space left"), "{cause}");
}
