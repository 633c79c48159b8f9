//! kill -9 of the agent in mid-upload, at the moments that matter: dumps and parts are counted.

use crate::common::eventually;
use crate::site::{PATIENCE, Site};
use crate::tap::{What, Where};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Eight parts, the last one short.
const DATABASE_BYTES: u64 = 37_000_000;
const PARTS: u32 = 8;

fn spooled(command: &mut Command) {
    command.env("BACKUPY_BACKUP_SPOOL", "always");
}

/// Kills the agent while that request is held, and starts it again. Answers the site after the run's end, its tap
/// with what the new life did alone, and the run's id.
async fn killed(adjust: fn(&mut Command), what: What, place: Where, known_parts: usize) -> (Site, String) {
    let site = Site::start(DATABASE_BYTES, json!({}), None);
    let mut agent = site.agent(adjust);
    site.tap.hold(what, place);
    let id = site.order().await;
    site.tap.wait_until_held(PATIENCE);
    // Everything that goes on beside what is held comes to rest.
    eventually("the other parts", PATIENCE, || (site.tap.answered_parts() == known_parts).then_some(()));
    if site.has_spool() {
        let noted = || (site.ledger_records() == known_parts + 2).then_some(());
        eventually("a ledger with every part that is known to be stored", PATIENCE, noted);
    }
    agent.kill();
    site.tap.forget();
    site.tap.drop_held();
    let _agent = site.agent(adjust);
    site.ended(&id).await;
    (site, id)
}

#[actix::test]
async fn with_a_spool_there_is_no_second_dump_and_no_known_part_is_sent_again() {
    let cases = [
        // Where it was killed, parts that were known to be stored, parts of the new life.
        (What::Part(5), Where::Head, 7, vec![5]),
        (What::Part(5), Where::Body, 7, vec![5]),
        // The store has it, and nobody told the agent.
        (What::Part(5), Where::Answer, 7, vec![5]),
        (What::Complete, Where::Head, 8, vec![]),
        // The object is in the store, and nobody told the agent.
        (What::Complete, Where::Answer, 8, vec![]),
    ];
    for (what, place, known, sent_again) in cases {
        let (site, id) = killed(spooled, what, place, known).await;
        site.assert_good(&id).await;
        assert_eq!(site.tap.parts(), sent_again, "{what:?} {place:?}");
        assert_eq!(site.tap.count(What::Complete), 1, "{what:?} {place:?}");
        assert_eq!(site.dumps(), 1, "{what:?} {place:?}");
    }
}

#[actix::test]
async fn a_spool_that_is_gone_or_changed_costs_a_dump_and_every_part_is_of_the_new_one() {
    for length in [None, Some(1_000_000)] {
        let site = Site::start(DATABASE_BYTES, json!({}), None);
        let mut agent = site.agent(spooled);
        site.tap.hold(What::Part(5), Where::Head);
        let id = site.order().await;
        site.tap.wait_until_held(PATIENCE);
        eventually("a ledger with the other parts", PATIENCE, || (site.ledger_records() == 9).then_some(()));
        agent.kill();
        let spool = site.spool_file().unwrap();
        match length {
            None => fs::remove_file(spool).unwrap(),
            Some(length) => fs::OpenOptions::new().write(true).open(spool).unwrap().set_len(length).unwrap(),
        }
        site.tap.forget();
        site.tap.drop_held();
        let _agent = site.agent(spooled);
        site.assert_good(&id).await;
        assert_eq!((site.tap.parts(), site.dumps()), ((1..=PARTS).collect(), 2), "{length:?}");
    }
}

#[actix::test]
async fn without_a_spool_the_run_begins_again_in_the_same_upload() {
    for place in [Where::Head, Where::Body, Where::Answer] {
        // The parts before and beside the held one, as many as there are buffers.
        let site = Site::start(DATABASE_BYTES, json!({}), None);
        let mut agent = site.agent(|_| {});
        site.tap.hold(What::Part(3), place);
        let id = site.order().await;
        site.tap.wait_until_held(PATIENCE);
        eventually("a part that is stored", PATIENCE, || (site.tap.answered_parts() > 0).then_some(()));
        agent.kill();
        let upload = site.tap.seen()[0].upload().unwrap().to_owned();
        site.tap.forget();
        site.tap.drop_held();
        let _agent = site.agent(|_| {});
        site.assert_good(&id).await;
        assert_eq!(site.tap.parts(), (1..=PARTS).collect::<Vec<_>>(), "{place:?}");
        assert!(site.tap.seen().iter().all(|seen| seen.upload() == Some(&upload)), "{place:?}");
        assert_eq!(site.dumps(), 2, "{place:?}");
    }
}

#[actix::test]
async fn without_a_spool_a_kill_before_the_completion_is_known_costs_one_question() {
    for place in [Where::Head, Where::Answer] {
        let (site, id) = killed(|_| {}, What::Complete, place, PARTS as usize).await;
        site.assert_good(&id).await;
        assert_eq!((site.tap.parts(), site.tap.count(What::Complete)), (Vec::new(), 1), "{place:?}");
        assert_eq!(site.dumps(), 1, "{place:?}");
    }
}

#[actix::test]
async fn without_a_spool_a_store_that_forgot_the_upload_meanwhile_costs_a_dump_where_the_object_is_not_there()
{
    for (place, dumps) in [(Where::Head, 2), (Where::Answer, 1)] {
        let site = Site::start(DATABASE_BYTES, json!({}), None);
        let mut agent = site.agent(|_| {});
        site.tap.hold(What::Complete, place);
        let id = site.order().await;
        site.tap.wait_until_held(PATIENCE);
        agent.kill();
        site.forget_uploads();
        site.tap.forget();
        site.tap.drop_held();
        let _agent = site.agent(|_| {});
        site.assert_good(&id).await;
        let seen = site.tap.seen();
        let tried: BTreeSet<_> = seen.iter().filter_map(|seen| seen.upload()).collect();
        assert_eq!((tried.len(), site.dumps()), (dumps, dumps), "the old upload, and another one: {place:?}");
        let stored = seen.iter().filter(|seen| seen.part().is_some() && seen.status == Some(200)).count();
        assert_eq!(stored, PARTS as usize * (dumps - 1), "{place:?}");
    }
}

#[actix::test]
async fn a_spool_whose_upload_the_store_forgot_goes_up_again_only_where_the_object_is_not_there() {
    for (place, uploads) in [(Where::Head, 2), (Where::Answer, 1)] {
        let site = Site::start(DATABASE_BYTES, json!({}), None);
        let _agent = site.agent(spooled);
        site.tap.hold(What::Complete, place);
        let id = site.order().await;
        site.tap.wait_until_held(PATIENCE);
        site.forget_uploads();
        site.tap.drop_held();
        site.assert_good(&id).await;
        assert_eq!(site.tap.parts().len(), uploads * PARTS as usize, "{place:?}");
        assert_eq!(site.dumps(), 1, "{place:?}");
    }
}

#[actix::test]
async fn a_kill_while_the_spool_is_written_costs_a_dump_and_nothing_of_it_stays() {
    let site = Site::start(DATABASE_BYTES, json!({}), None);
    let mut agent = site.agent(|command| {
        spooled(command);
        command.env("BACKUPY_BACKUP_MAX_READ_BYTES_PER_SEC", "8000000");
    });
    let id = site.order().await;
    let half = || (site.spooled_bytes() > DATABASE_BYTES / 4).then_some(());
    eventually("a quarter of the spool", PATIENCE, half);
    agent.kill();
    assert_eq!((site.tap.seen().len(), site.ledger_records()), (0, 0));
    let _agent = site.agent(spooled);
    site.assert_good(&id).await;
    assert_eq!(site.tap.parts(), (1..=PARTS).collect::<Vec<_>>());
    assert_eq!(site.dumps(), 2);
}
