//! Who lives: panic, error, freeze, restart storm, orderly stop, kill, state observed; and what goes
//! with them: backoff, neighbours, watchdog, READY.

use crate::house::{Deed, House};
use backupy_agent::actors::messages::{
    ChildDown, ChildExit, ChildName, Configured, GetStatus, LinkChanged, RoundTrip, Shutdown,
};
use backupy_agent::channel::{DialError, LinkDown};
use backupy_agent::model::{AgentStatus, LinkState, Plan, SysExit};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Restarts after a panic, after an error, after a freeze.
fn counts(status: &AgentStatus, child: ChildName) -> (u64, u64, u64) {
    let child = status.children.iter().find(|status| status.name == child.name()).unwrap();
    (child.panics, child.errors, child.freezes)
}

async fn status(house: &House) -> AgentStatus {
    house.supervisor.send(GetStatus).await.unwrap()
}

fn broken() -> Deed {
    Deed::End(ChildExit::Link(LinkDown::Broken("cut".into())))
}

fn failed() -> Deed {
    Deed::End(ChildExit::Failed("no luck".into()))
}

const NOT_CONNECTIONS: [ChildName; 5] =
    [ChildName::StateStore, ChildName::Queue, ChildName::Runner, ChildName::Dispatcher, ChildName::Heartbeat];

#[actix::test]
async fn children_start_in_order_and_know_each_other_before_the_first_dial() {
    let house = House::open(None, false).await;
    let all = "store 1, queue 1, runner 1";
    assert_eq!(
        house.story.take(),
        [
            "state_store 1 begins".to_owned(),
            "queue 1 begins".into(),
            "runner 1 begins".into(),
            "dispatcher 1 begins".into(),
            "heartbeat 1 begins".into(),
            format!("state_store 1 meets {all}"),
            format!("queue 1 meets {all}"),
            format!("runner 1 meets {all}"),
            format!("dispatcher 1 meets {all}"),
            format!("heartbeat 1 meets {all}"),
            "connection 1 begins".into(),
        ]
    );
}

#[actix::test]
async fn a_child_that_panics_is_replaced_at_once() {
    let house = House::open(None, false).await;
    for child in NOT_CONNECTIONS {
        house.tell(child, Deed::Panic).await;
        assert_eq!(house.lives(child), 2, "{child:?}");
        assert_eq!(counts(&status(&house).await, child), (1, 0, 0), "{child:?}");
    }
}

#[actix::test]
async fn a_child_that_fails_is_replaced_and_counted_apart() {
    let house = House::open(None, false).await;
    for child in NOT_CONNECTIONS {
        house.tell(child, failed()).await;
        assert_eq!(house.lives(child), 2, "{child:?}");
        assert_eq!(counts(&status(&house).await, child), (0, 1, 0), "{child:?}");
    }
    house.tell(ChildName::Runner, Deed::End(ChildExit::Stopped)).await;
    assert_eq!(counts(&status(&house).await, ChildName::Runner), (0, 2, 0));
}

#[actix::test]
async fn a_child_that_freezes_is_found_within_two_rounds_and_replaced() {
    let house = House::open(None, false).await;
    for child in NOT_CONNECTIONS {
        house.tell(child, Deed::Freeze).await;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(house.lives(child), 2, "{child:?}");
        assert_eq!(counts(&status(&house).await, child), (0, 0, 1), "{child:?}");
    }
    // The StateStore's thread ends with it, and its successor has another one.
    let arbiters = house.known.borrow().arbiters.clone();
    assert_eq!(arbiters.len(), 2);
    while arbiters[0].alive() {
        sleep(Duration::from_millis(1)).await;
        std::thread::yield_now();
    }
    assert!(arbiters[1].alive());
}

#[actix::test]
async fn a_frozen_connection_is_given_up_and_dialled_again() {
    let house = House::open(None, false).await;
    house.tell(ChildName::Connection, Deed::Freeze).await;
    sleep(Duration::from_secs(22)).await;
    assert_eq!(house.lives(ChildName::Connection), 2);
    let status = status(&house).await;
    assert_eq!(counts(&status, ChildName::Connection), (0, 0, 1));
    assert!(status.link.last_error.unwrap().contains("did not answer"));
}

#[actix::test]
async fn five_restarts_a_minute_are_borne_and_the_sixth_ends_the_process_in_order() {
    let house = House::open(None, false).await;
    for restarts in 1..=5 {
        house.tell(ChildName::Runner, failed()).await;
        assert_eq!(house.lives(ChildName::Runner), 1 + restarts);
    }
    assert_eq!(*house.exit.borrow(), None);
    house.story.take();
    house.tell(ChildName::Runner, Deed::Panic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*house.exit.borrow(), Some(SysExit::Internal));
    assert_eq!(house.lives(ChildName::Runner), 6);
    let end = [
        "STOPPING",
        "dispatcher 1 ends",
        "connection 1 ends",
        "heartbeat 1 ends",
        "queue 1 ends",
        "state_store 1 ends",
    ];
    assert_eq!(house.story.take(), end);
}

#[actix::test]
async fn restarts_that_are_spread_over_time_never_end_the_process() {
    let house = House::open(None, false).await;
    for _ in 0..30 {
        house.tell(ChildName::Runner, failed()).await;
        sleep(Duration::from_secs(13)).await;
    }
    assert_eq!(*house.exit.borrow(), None);
    assert_eq!(house.lives(ChildName::Runner), 31);
}

#[actix::test]
async fn a_store_that_cannot_be_made_again_ends_the_process() {
    let house = House::open(None, false).await;
    house.known.borrow_mut().store_fails = true;
    house.tell(ChildName::StateStore, Deed::Panic).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*house.exit.borrow(), Some(SysExit::Internal));
}

#[actix::test]
async fn an_orderly_stop_goes_from_the_commands_to_the_disk_and_exits_with_0() {
    let house = House::open(None, false).await;
    house.story.take();
    let begin = Instant::now();
    let (first, second) = (house.supervisor.send(Shutdown), house.supervisor.send(Shutdown));
    first.await.unwrap();
    second.await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(100));
    assert_eq!(
        house.story.take(),
        [
            "STOPPING",
            "dispatcher 1 ends",
            "connection 1 ends",
            "runner 1 ends",
            "heartbeat 1 ends",
            "queue 1 ends",
            "state_store 1 ends"
        ]
    );
    assert_eq!(*house.exit.borrow(), Some(SysExit::Ok));
    // Nothing is begun again after the end.
    sleep(Duration::from_secs(120)).await;
    assert_eq!(house.story.take(), Vec::<String>::new());
}

#[actix::test]
async fn children_that_never_answer_do_not_hold_the_end_over_ten_seconds() {
    let house = House::open(None, true).await;
    house.story.take();
    let begin = Instant::now();
    timeout(Duration::from_secs(10), house.supervisor.send(Shutdown)).await.unwrap().unwrap();
    assert!(begin.elapsed() > Duration::from_secs(5), "nobody was waited for");
    assert_eq!(*house.exit.borrow(), Some(SysExit::Ok));
    let asked = house.story.take();
    assert_eq!(asked.iter().filter(|line| line.ends_with("ends")).count(), 6, "{asked:?}");
}

#[actix::test]
async fn a_frozen_child_does_not_hold_the_end_over_ten_seconds() {
    let house = House::open(None, false).await;
    house.tell(ChildName::Runner, Deed::Freeze).await;
    timeout(Duration::from_secs(10), house.supervisor.send(Shutdown)).await.unwrap().unwrap();
    let told = house.story.take();
    assert!(told.contains(&"state_store 1 ends".to_owned()), "{told:?}");
}

#[actix::test]
async fn a_child_that_goes_without_a_word_is_missed_at_the_next_round() {
    let house = House::open(None, false).await;
    for child in NOT_CONNECTIONS {
        house.tell(child, Deed::Vanish).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(house.lives(child), 2, "{child:?}");
        assert_eq!(counts(&status(&house).await, child), (1, 0, 0), "{child:?}");
    }
    house.tell(ChildName::Connection, Deed::Vanish).await;
    sleep(Duration::from_secs(12)).await;
    let lives = house.lives(ChildName::Connection);
    assert!(lives >= 2);
}

#[actix::test]
async fn the_link_is_observed_at_each_step() {
    let house = House::open(None, false).await;
    let begin = status(&house).await;
    assert_eq!((begin.link.state, begin.link.session_id.as_str()), (LinkState::Waiting, ""));
    assert_eq!((begin.config_version, begin.queue.depth, begin.store.commits), (9, 3, 5));
    assert_eq!(begin.server_url, "https://plane");
    assert_eq!(begin.pid, std::process::id());
    assert!(begin.children.iter().all(|child| child.alive));
    for state in [LinkState::Dialing, LinkState::Registering, LinkState::Established] {
        house.tell(ChildName::Connection, Deed::Climb(state, None)).await;
        let link = status(&house).await.link;
        assert_eq!(link.state, state);
        assert!(link.since_ms >= begin.link.since_ms);
    }
    house.supervisor.do_send(RoundTrip(Duration::from_millis(12)));
    let link = status(&house).await.link;
    assert_eq!(
        (link.session_id.as_str(), link.reconnects, link.round_trip_ms),
        ("s-connection 1", 0, Some(12.0))
    );
    house.tell(ChildName::Connection, broken()).await;
    let down = status(&house).await;
    assert_eq!(down.link.state, LinkState::Waiting);
    assert_eq!(down.link.last_error.as_deref(), Some("the connection broke: cut"));
    // Between two lives it waits: nothing is wrong with it.
    assert!(down.children.iter().all(|child| child.alive));
    sleep(Duration::from_secs(2)).await;
    house.tell(ChildName::Connection, Deed::Climb(LinkState::Established, None)).await;
    assert_eq!(status(&house).await.link.reconnects, 1);
}

#[actix::test]
async fn the_status_is_answered_while_a_child_is_stuck_with_what_it_said_last() {
    let house = House::open(None, false).await;
    assert_eq!(status(&house).await.queue.depth, 3);
    *house.known.borrow().queue_is_stuck.borrow_mut() = true;
    let answer =
        timeout(Duration::from_millis(1_100), house.supervisor.send(GetStatus)).await.unwrap().unwrap();
    assert_eq!((answer.queue.depth, answer.store.commits), (3, 5));
}

#[actix::test]
async fn what_an_earlier_life_says_is_ignored() {
    let house = House::open(None, false).await;
    house.tell(ChildName::Queue, failed()).await;
    let exit = ChildExit::Failed("late".into());
    house.supervisor.do_send(ChildDown { child: ChildName::Queue, generation: 1, exit });
    let late =
        LinkChanged { generation: 0, state: LinkState::Closing, session_id: None, heartbeat_interval: None };
    house.supervisor.do_send(late);
    house.settle().await;
    let status = status(&house).await;
    assert_eq!(house.lives(ChildName::Queue), 2);
    assert_eq!(counts(&status, ChildName::Queue), (0, 1, 0));
    assert_ne!(status.link.state, LinkState::Closing);
}

#[actix::test]
async fn connections_come_back_after_1_2_4_seconds_and_start_over_only_when_one_has_proved_itself() {
    let house = House::open(None, false).await;
    let mut waits = Vec::new();
    let mut wait_for_next = async |house: &House| {
        let (begin, lives) = (Instant::now(), house.lives(ChildName::Connection));
        while house.lives(ChildName::Connection) == lives {
            sleep(Duration::from_millis(10)).await;
        }
        waits.push(begin.elapsed().as_secs_f64().round() as u64);
    };
    for _ in 0..3 {
        house.tell(ChildName::Connection, broken()).await;
        wait_for_next(&house).await;
    }
    // Accepted and dropped after 4 s of an interval of 5 s: nothing is proved.
    let interval = Some(Duration::from_secs(5));
    house.tell(ChildName::Connection, Deed::Climb(LinkState::Established, interval)).await;
    sleep(Duration::from_secs(4)).await;
    house.tell(ChildName::Connection, broken()).await;
    wait_for_next(&house).await;
    // An interval old: proved.
    house.tell(ChildName::Connection, Deed::Climb(LinkState::Established, interval)).await;
    sleep(Duration::from_secs(5)).await;
    house.tell(ChildName::Connection, broken()).await;
    wait_for_next(&house).await;
    house.tell(ChildName::Connection, Deed::Panic).await;
    wait_for_next(&house).await;
    assert_eq!(waits, [1, 2, 4, 8, 1, 2]);
    assert_eq!(counts(&status(&house).await, ChildName::Connection), (1, 5, 0));
}

#[actix::test]
async fn a_connection_that_keeps_failing_never_ends_the_process() {
    let house = House::open(None, false).await;
    for _ in 0..20 {
        house.tell(ChildName::Connection, broken()).await;
        sleep(Duration::from_secs(61)).await;
    }
    assert_eq!((house.lives(ChildName::Connection), *house.exit.borrow()), (21, None));
}

#[actix::test]
async fn everybody_meets_the_successor_of_a_replaced_child() {
    let house = House::open(None, false).await;
    house.story.take();
    house.tell(ChildName::StateStore, Deed::Panic).await;
    let story = house.story.take();
    for child in ["state_store 2", "queue 1", "runner 1", "dispatcher 1", "heartbeat 1", "connection 1"] {
        let line = format!("{child} meets store 2, queue 1, runner 1");
        assert!(story.contains(&line), "{line} in {story:?}");
    }
    assert!(!story.contains(&"connection 1 ends".to_owned()), "a store's restart needs no new link");
    house.tell(ChildName::Runner, Deed::Panic).await;
    let line = "dispatcher 1 meets store 2, queue 1, runner 2".to_owned();
    assert!(house.story.take().contains(&line));
}

#[actix::test]
async fn a_fresh_queue_gets_a_fresh_link_and_any_other_child_is_told_of_the_link() {
    let house = House::open(None, false).await;
    for (child, meets) in [
        (ChildName::Dispatcher, "connection 1 meets store 1, queue 1, runner 1"),
        (ChildName::Heartbeat, "connection 1 meets store 1, queue 1, runner 1"),
        (ChildName::Runner, "connection 1 meets store 1, queue 1, runner 2"),
    ] {
        house.story.take();
        house.tell(child, Deed::Panic).await;
        let story = house.story.take();
        assert!(
            story.contains(&meets.to_owned()) && !story.contains(&"connection 1 ends".into()),
            "{story:?}"
        );
    }
    house.tell(ChildName::Queue, Deed::Panic).await;
    let story = house.story.take();
    assert!(story.contains(&"connection 1 ends".into()), "{story:?}");
    assert!(!story.iter().any(|line| line.starts_with("connection 1 meets")), "{story:?}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.lives(ChildName::Connection), 2);
    // It was asked to go: no fault of its own.
    assert_eq!(counts(&status(&house).await, ChildName::Connection), (0, 0, 0));
}

#[actix::test]
async fn each_connection_registers_with_the_version_that_is_applied_then() {
    let house = House::open(None, false).await;
    house.supervisor.do_send(Configured(Arc::new(Plan { version: 6, ..Plan::default() })));
    house.tell(ChildName::Connection, broken()).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.known.borrow().registered, [4, 6]);
}

#[actix::test]
async fn the_watchdog_is_fed_only_while_every_child_answers() {
    let begin = Instant::now();
    let house = House::open(Some(Duration::from_secs(9)), false).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(house.story.times(begin, "WATCHDOG"), [3.0, 6.0, 9.0]);
    house.tell(ChildName::Heartbeat, Deed::Freeze).await;
    sleep(Duration::from_secs(9)).await;
    // Asked at 12, given up at 15; the successor answers at once.
    assert_eq!(house.story.times(begin, "WATCHDOG"), [3.0, 6.0, 9.0, 15.0, 18.0]);
}

#[actix::test]
async fn waiting_for_the_next_dial_is_no_silence() {
    let begin = Instant::now();
    let house = House::open(None, false).await;
    let refused = DialError::Unauthorized { host: "plane".into(), status: 401 };
    house.tell(ChildName::Connection, Deed::End(ChildExit::Link(refused.into()))).await;
    sleep(Duration::from_secs(35)).await;
    assert_eq!(house.lives(ChildName::Connection), 1, "a refused key waits a minute");
    assert_eq!(house.story.times(begin, "WATCHDOG"), [10.0, 20.0, 30.0]);
}

#[actix::test]
async fn the_init_system_hears_ready_once_when_the_first_dial_was_tried() {
    let good = House::open(None, false).await;
    good.tell(ChildName::Connection, Deed::Climb(LinkState::Dialing, None)).await;
    assert!(!good.story.take().contains(&"READY".to_owned()));
    good.tell(ChildName::Connection, Deed::Climb(LinkState::Registering, None)).await;
    good.tell(ChildName::Connection, Deed::Climb(LinkState::Established, None)).await;
    assert_eq!(good.story.take().iter().filter(|line| *line == "READY").count(), 1);
}

#[actix::test]
async fn a_first_dial_that_fails_was_tried_too() {
    let bad = House::open(None, false).await;
    bad.tell(ChildName::Connection, broken()).await;
    let story = bad.story.take();
    assert!(story.contains(&"READY".to_owned()), "{story:?}");
    assert!(
        story
            .contains(&"STATUS no connection: the connection broke: cut; dialling again in 1.0 s".to_owned()),
        "{story:?}"
    );
}

#[actix::test]
async fn the_name_of_a_session_is_stored_once() {
    let house = House::open(None, false).await;
    house.tell(ChildName::Connection, Deed::Climb(LinkState::Established, None)).await;
    house.tell(ChildName::Connection, Deed::Climb(LinkState::Closing, None)).await;
    let commits = house.known.borrow().commits[0].lock().unwrap().clone();
    assert_eq!(format!("{commits:?}"), "[Commit([PutSession(\"s-connection 1\")])]");
}
