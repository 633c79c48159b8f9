//! Who lives: panic, error, freeze, restart storm, orderly stop, kill, state observed; and what goes
//! with them: backoff, neighbours, watchdog, READY.

use crate::house::{Deed, House, counts, status};
use backupy_agent::actors::messages::{ChildDown, ChildExit, ChildName, GetStatus, LinkChanged, Shutdown};
use backupy_agent::actors::supervisor::SUPERINTEND_INTERVAL;
use backupy_agent::model::{LinkState, SysExit};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

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
            "health 1 begins".into(),
            "dispatcher 1 begins".into(),
            "heartbeat 1 begins".into(),
            format!("state_store 1 meets {all}"),
            format!("queue 1 meets {all}"),
            format!("runner 1 meets {all}"),
            format!("health 1 meets {all}"),
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
        sleep(SUPERINTEND_INTERVAL * 2).await;
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
    sleep(SUPERINTEND_INTERVAL * 2).await;
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
        "health 1 ends",
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
            "health 1 ends",
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
    assert_eq!(asked.iter().filter(|line| line.ends_with("ends")).count(), 7, "{asked:?}");
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
        sleep(SUPERINTEND_INTERVAL).await;
        assert_eq!(house.lives(child), 2, "{child:?}");
        assert_eq!(counts(&status(&house).await, child), (1, 0, 0), "{child:?}");
    }
    house.tell(ChildName::Connection, Deed::Vanish).await;
    sleep(SUPERINTEND_INTERVAL + Duration::from_secs(2)).await;
    let lives = house.lives(ChildName::Connection);
    assert!(lives >= 2);
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
