//! What the server hears of cancels, refusals and faults, and when.

use crate::dispatcher::{World, cancel, config, run};
use crate::fake;
use backupy_agent::actors::messages::{CancelRun, Command};
use backupy_agent::store::Recovered;
use backupy_agent::wire::v1;
use prost::Message as _;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

#[actix::test]
async fn cancels_are_waited_for_side_by_side_and_hold_up_nothing_behind_them() {
    let bench = World { cancel_takes: Duration::from_millis(1_500), ..World::default() }.bench();
    for number in 0..5 {
        bench.ask(&format!("c{number}"), cancel(&format!("j{number}"))).await;
    }
    bench.ask("conf", config(1)).await;
    bench.ask("run", run("r")).await;
    let expected = ["cancel j0", "cancel j1", "cancel j2", "cancel j3", "cancel j4", "stored"];
    let told = bench.story().await;
    assert_eq!(told[..6], expected);
    assert_eq!(told[6..], ["listener has 1", "ack conf yes", "run r", "ack run yes"]);
    let mut acks = bench.story().await;
    acks.sort();
    assert_eq!(acks, ["ack c0 yes", "ack c1 yes", "ack c2 yes", "ack c3 yes", "ack c4 yes"]);
}

#[actix::test]
async fn an_end_that_the_disk_does_not_take_is_a_refusal_that_says_so_in_the_end() {
    let bench = World { cancel_takes: Duration::from_secs(3600), ..World::default() }.bench();
    bench.ask("c", cancel("j")).await;
    sleep(Duration::from_secs(43)).await;
    assert_eq!(bench.story().await, ["cancel j"], "asked once");
    let told = bench.story().await;
    assert!(told.len() == 1 && told[0].contains("job \"j\" is not on the agent's disk yet"), "{told:?}");
}

#[actix::test]
async fn a_cancel_whose_runner_dies_is_asked_of_its_successor() {
    let mut bench = World { cancel_takes: Duration::from_millis(10), ..World::default() }.bench();
    let living = bench.neighbours.clone();
    bench.neighbours.cancel_run = fake::quick(|_: &CancelRun| oneshot::channel().1).0;
    bench.dispatcher.do_send(bench.neighbours.clone());
    bench.ask("c", cancel("j")).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.story.lock().unwrap().clone(), Vec::<String>::new());
    bench.dispatcher.do_send(living);
    assert_eq!(bench.story().await, ["cancel j", "ack c yes"]);
}

#[actix::test]
async fn a_refused_run_that_wants_no_ack_is_told_as_failed_unless_it_is_known() {
    let bench = World::default().bench();
    bench.ask("", run("unknown")).await;
    assert_eq!(bench.story().await, ["run unknown", "failed unknown: unknown job_id \"j\""]);
    bench.ask("", run("of another")).await;
    assert_eq!(bench.story().await, ["run of another"]);
    let nowhere = v1::RunBackup { job_id: "j".into(), run_id: "r".into(), ..Default::default() };
    bench.ask("", Command::RunBackup(nowhere)).await;
    assert_eq!(bench.story().await, ["run r"], "whether it needs a URL is for the Runner to say");
    bench.ask("", run("")).await;
    assert_eq!(bench.story().await, Vec::<String>::new(), "nobody knows a run without an id");
}

#[actix::test]
async fn a_run_that_the_runner_may_know_once_it_is_back_is_not_told_as_failed() {
    let mut bench = World::default().bench();
    bench.neighbours.start_run = fake::gone();
    bench.dispatcher.do_send(bench.neighbours.clone());
    bench.ask("", run("r")).await;
    bench.ask("behind", config(1)).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.story().await, ["stored", "listener has 1", "ack behind yes"]);
}

#[actix::test]
async fn a_window_that_cannot_be_read_is_told_once_a_version() {
    let broken = |version| v1::AgentConfig {
        version,
        maintenance: Some(v1::MaintenanceWindow { start_utc: "22:00".into(), end_utc: "24:00".into() }),
        ..Default::default()
    };
    let stored = broken(1).encode_to_vec();
    let recovered = Recovered { config: Some((1, stored.into())), ..Recovered::default() };
    let bench = World { recovered: Ok(recovered), ..World::default() }.bench();
    assert_eq!(bench.story().await, ["listener has 1"], "an earlier life told it");
    bench.ask("c", Command::Configure(broken(2))).await;
    let warning = "warning: the maintenance window \"22:00\" to \"24:00\" is not two times like 02:00 and holds nothing";
    assert_eq!(bench.story().await, ["stored", "listener has 2", warning, "ack c yes"]);
    bench.ask("c", Command::Configure(broken(2))).await;
    assert_eq!(bench.story().await, ["ack c yes"]);
}
