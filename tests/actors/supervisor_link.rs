//! What the Supervisor makes of the link: delays, status, READY, the session's name.

use crate::house::{Deed, House, broken, counts, status};
use backupy_agent::actors::messages::{ChildExit, ChildName, Configured, RoundTrip};
use backupy_agent::channel::{DialError, LinkDown};
use backupy_agent::model::{LinkState, Plan};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

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
async fn a_session_that_another_agent_took_is_shown_and_fought_for_ever_more_slowly() {
    let house = House::open(None, false).await;
    assert_eq!(status(&house).await.link.superseded_ms, None);
    let mut waits = Vec::new();
    for _ in 0..3 {
        house.tell(ChildName::Connection, Deed::Climb(LinkState::Established, None)).await;
        // Long enough to be proved: the delays grow all the same.
        sleep(Duration::from_secs(60)).await;
        let (begin, lives) = (Instant::now(), house.lives(ChildName::Connection));
        let reason = Some("superseded by another connection".to_owned());
        let down = LinkDown::ClosedByPeer { code: Some(1008), reason };
        house.tell(ChildName::Connection, Deed::End(ChildExit::Link(down))).await;
        assert!(status(&house).await.link.superseded_ms.is_some());
        while house.lives(ChildName::Connection) == lives {
            sleep(Duration::from_millis(100)).await;
        }
        waits.push(begin.elapsed().as_secs_f64().round() as u64);
    }
    assert_eq!(waits, [60, 120, 240]);
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
async fn each_connection_registers_with_the_version_that_is_applied_then() {
    let house = House::open(None, false).await;
    house.supervisor.do_send(Configured(Arc::new(Plan { version: 6, ..Plan::default() })));
    house.tell(ChildName::Connection, broken()).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(house.known.borrow().registered, [4, 6]);
}

#[actix::test]
async fn waiting_for_the_next_dial_is_no_silence() {
    let begin = Instant::now();
    let house = House::open(None, false).await;
    let refused = DialError::Unauthorized { host: "plane".into(), status: 401 };
    house.tell(ChildName::Connection, Deed::End(ChildExit::Link(refused.into()))).await;
    sleep(Duration::from_secs(45)).await;
    assert_eq!(house.lives(ChildName::Connection), 1, "a refused key waits a minute");
    assert_eq!(house.story.times(begin, "WATCHDOG"), [20.0, 40.0]);
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
