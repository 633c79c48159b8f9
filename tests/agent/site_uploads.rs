//! Uploads of the real agent into the real control plane: in parts and in one piece, with URLs that expire, a store
//! that goes away, an order to stop, a limit to keep.

use crate::common::eventually_async;
use crate::site::{JOB, PART_BYTES, PATIENCE, Site};
use crate::tap::{What, Where};
use awc::http::Method;
use backupy_agent::model::unix_ms;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Eight parts, the last one short.
const DATABASE_BYTES: u64 = 37_000_000;
const PARTS: u32 = 8;

/// Behaviour section 4.
const CANCELLED_WITHIN: Duration = Duration::from_secs(2);

fn spooled(command: &mut Command) {
    command.env("BACKUPY_BACKUP_SPOOL", "always");
}

fn as_it_comes(_: &mut Command) {}

fn all_parts() -> Vec<u32> {
    (1..=PARTS).collect()
}

#[actix::test]
async fn an_object_in_parts_while_it_is_dumped_opens_to_the_database() {
    let site = Site::start(DATABASE_BYTES, json!({}), None);
    let agent = site.agent(as_it_comes);
    let id = site.order().await;
    site.assert_good(&id).await;
    assert_eq!((site.tap.parts(), site.tap.count(What::Complete)), (all_parts(), 1));
    assert_eq!((site.tap.count(What::Put), site.tap.count(What::Abort)), (0, 0));
    agent.wait_for_line("uploading in parts", PATIENCE);
}

#[actix::test]
async fn a_dump_ends_though_the_store_takes_no_part_of_it() {
    let site = Site::start(2 * DATABASE_BYTES, json!({}), None);
    let agent = site.agent(as_it_comes);
    site.tap.hold(What::AnyPart, Where::Head);
    let id = site.order().await;
    site.tap.wait_until_held(PATIENCE);
    agent.wait_for_line("parts wait on the disk", PATIENCE);
    // What comes after the dump.
    eventually_async("the end of the dump", PATIENCE, || async {
        (site.run(&id).await["current_step"] == "uploading").then_some(())
    })
    .await;
    assert_eq!(site.tap.answered_parts(), 0);
    site.tap.release();
    site.assert_good(&id).await;
    assert_eq!(site.dumps(), 1);
}

#[actix::test]
async fn a_spooled_object_goes_up_in_parts_and_opens_to_the_database() {
    let site = Site::start(DATABASE_BYTES, json!({}), None);
    let _agent = site.agent(spooled);
    let id = site.order().await;
    site.assert_good(&id).await;
    assert_eq!((site.tap.parts(), site.tap.count(What::Complete)), (all_parts(), 1));
}

#[actix::test]
async fn where_no_parts_are_offered_the_object_goes_up_in_one_piece() {
    let site = Site::start(DATABASE_BYTES, json!({"multipart": false}), None);
    let _agent = site.agent(as_it_comes);
    let id = site.order().await;
    site.assert_good(&id).await;
    assert_eq!((site.tap.parts(), site.tap.count(What::Put)), (Vec::new(), 1));
}

/// One request meets its URL's end before the store has seen it; every later one has URLs that were asked for.
async fn expires_half_way(adjust: impl FnOnce(&mut Command), objects: Value, what: What) -> Site {
    let site = Site::start(DATABASE_BYTES, objects, None);
    let _agent = site.agent(adjust);
    site.tap.hold(what, Where::Head);
    let id = site.order().await;
    site.tap.wait_until_held(PATIENCE);
    let first = site.tap.last(what).expires_at_ms();
    while unix_ms() <= first {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.tap.release();
    site.assert_good(&id).await;
    let seen = site.tap.seen();
    assert!(seen.iter().any(|seen| seen.status == Some(403)), "the store refused one for its age: {seen:?}");
    assert!(seen.iter().any(|seen| seen.expires_at_ms() > first), "{seen:?}");
    let uploads: std::collections::BTreeSet<_> = seen.iter().filter_map(|seen| seen.upload()).collect();
    assert!(uploads.len() <= 1, "it is still the same upload: {seen:?}");
    assert_eq!(site.dumps(), 1);
    let (_, agents) = site.call(Method::GET, "/v1/agents", json!({})).await;
    assert!(agents["items"][0]["received"]["upload_urls_request"].as_u64() >= Some(1), "{agents}");
    site
}

#[actix::test]
async fn parts_whose_urls_expire_while_the_dump_goes_on_get_fresh_ones() {
    let objects = json!({"url_lifetime": "8s"});
    let site = expires_half_way(as_it_comes, objects, What::Part(3)).await;
    let seen = site.tap.seen();
    let stored = seen.iter().filter(|seen| seen.status == Some(200) && seen.part().is_some()).count();
    assert_eq!(stored, PARTS as usize, "nothing that the store has is sent again: {seen:?}");
}

#[actix::test]
async fn parts_of_a_spool_whose_urls_expire_get_fresh_ones() {
    expires_half_way(spooled, json!({"url_lifetime": "8s"}), What::Part(2)).await;
}

#[actix::test]
async fn a_completion_whose_url_expired_gets_a_fresh_one() {
    let site = expires_half_way(spooled, json!({"url_lifetime": "8s"}), What::Complete).await;
    assert_eq!(site.tap.parts(), all_parts());
}

#[actix::test]
async fn one_put_whose_url_expired_gets_a_fresh_one() {
    let objects = json!({"url_lifetime": "8s", "multipart": false});
    let site = expires_half_way(as_it_comes, objects, What::Put).await;
    assert_eq!(site.tap.count(What::Put), 2);
}

/// Is told to stop in that step, and gives the site with what the store has then.
async fn cancelled(
    adjust: impl FnOnce(&mut Command),
    objects: Value,
    (what, place): (What, Where),
    step: &str,
) -> Site {
    let site = Site::start(DATABASE_BYTES, objects, None);
    let _agent = site.agent(adjust);
    site.tap.hold(what, place);
    let id = site.order().await;
    site.tap.wait_until_held(PATIENCE);
    eventually_async(step, PATIENCE, || async {
        (site.run(&id).await["current_step"] == step).then_some(())
    })
    .await;
    let begin = Instant::now();
    let (status, answer) = site.call(Method::POST, &format!("/v1/jobs/{JOB}/cancel"), json!({})).await;
    assert_eq!(status, 202, "{answer}");
    let run = site.ended(&id).await;
    let took = begin.elapsed();
    assert_eq!(run["status"], "CANCELLED", "{run}");
    assert!(took < CANCELLED_WITHIN, "{took:?}");
    // The agent has hung up, and the tap with it.
    site.tap.drop_held();
    site.assert_nothing_left();
    site
}

#[actix::test]
async fn an_order_to_stop_in_mid_part_leaves_nothing_in_the_store_and_nothing_in_the_spool() {
    for (adjust, place) in
        [(as_it_comes as fn(&mut Command), Where::Body), (spooled, Where::Body), (spooled, Where::Answer)]
    {
        let site = cancelled(adjust, json!({}), (What::Part(3), place), "uploading").await;
        assert_eq!((site.objects().len(), site.tap.count(What::Abort)), (0, 1), "{place:?}");
    }
}

#[actix::test]
async fn an_order_to_stop_while_the_store_puts_the_parts_together_ends_the_run_at_once() {
    for adjust in [as_it_comes, spooled] {
        // What the store had done by then stays: no run claims it, and the agent has no URL that could take it away.
        for (place, objects) in [(Where::Head, 0), (Where::Answer, 1)] {
            let site = cancelled(adjust, json!({}), (What::Complete, place), "verifying").await;
            assert_eq!((site.objects().len(), site.tap.count(What::Abort)), (objects, 1), "{place:?}");
        }
    }
}

#[actix::test]
async fn an_order_to_stop_in_mid_put_leaves_nothing_either() {
    let objects = json!({"multipart": false});
    let site = cancelled(as_it_comes, objects, (What::Put, Where::Body), "uploading").await;
    assert_eq!(site.objects().len(), 0);
}

async fn outlives_the_control_plane(adjust: impl FnOnce(&mut Command)) {
    let mut site = Site::start(DATABASE_BYTES, json!({}), None);
    let _agent = site.agent(adjust);
    site.tap.hold(What::Part(3), Where::Body);
    let id = site.order().await;
    site.tap.wait_until_held(PATIENCE);
    site.plane().kill();
    site.start_plane();
    site.tap.drop_held();
    site.assert_good(&id).await;
    let seen = site.tap.seen();
    let stored = seen.iter().filter(|seen| seen.status == Some(200) && seen.part().is_some()).count();
    assert_eq!(stored, PARTS as usize, "parts that were stored before are not sent again: {seen:?}");
    assert_eq!(site.dumps(), 1);
}

#[actix::test]
async fn an_upload_in_parts_outlives_a_kill_9_of_the_control_plane() {
    outlives_the_control_plane(as_it_comes).await;
    outlives_the_control_plane(spooled).await;
}

/// No second has more than the limit and what goes out at once.
async fn holds_the_limit(objects: Value, adjust: impl FnOnce(&mut Command)) {
    const LIMIT: u64 = 12_000_000;
    let site = Site::start(DATABASE_BYTES, objects, None);
    let _agent = site.agent(|command| {
        command.env("BACKUPY_BACKUP_MAX_UPLOAD_BYTES_PER_SEC", LIMIT.to_string());
        adjust(command);
    });
    let id = site.order().await;
    site.assert_good(&id).await;
    let passed = site.tap.passed();
    let bytes: u64 = passed.iter().map(|(_, bytes)| bytes).sum();
    let took = passed.last().unwrap().0 - passed[0].0;
    let rate = bytes as f64 / took.as_secs_f64();
    assert!(rate < LIMIT as f64 * 1.1, "{rate:.0} B/s");
    let worst = passed.iter().map(|(begin, _)| {
        let second = passed.iter().filter(|(at, _)| *at >= *begin && *at - *begin < Duration::from_secs(1));
        second.map(|(_, bytes)| bytes).sum::<u64>()
    });
    // Socket buffers on the way may hold some MB back and give them at once.
    let worst = worst.max().unwrap();
    assert!(worst < LIMIT + 2 * PART_BYTES, "{worst} B in a second");
}

#[actix::test]
async fn the_limit_of_uploads_holds_for_all_parts_together_and_for_one_put() {
    holds_the_limit(json!({}), as_it_comes).await;
    holds_the_limit(json!({"multipart": false}), as_it_comes).await;
}

/// `SITE_MB=1000 cargo test --test agent flat -- --nocapture` is the long form, with its figures.
#[actix::test]
async fn memory_of_the_control_plane_stays_flat_whatever_the_object_is() {
    const MOST_BYTES: u64 = 24 * 1024 * 1024;
    let database_bytes =
        std::env::var("SITE_MB").map_or(DATABASE_BYTES, |mb| mb.parse::<u64>().unwrap() * 1_000_000);
    let mut site = Site::start(database_bytes, json!({}), None);
    let before = site.plane().rss_bytes();
    let agent = site.agent(as_it_comes);
    let id = site.order().await;
    let run = site.ended(&id).await;
    assert_eq!(run["status"], "SUCCESS", "{run}");
    let peak = site.plane().peak_rss_bytes();
    println!(
        "{database_bytes} B: control plane {before} -> {peak} B, agent's peak {} B",
        agent.peak_rss_bytes()
    );
    assert!(peak < before + MOST_BYTES, "{before} -> {peak}");
}
