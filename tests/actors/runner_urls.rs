//! Fresh upload URLs: what a later life of the agent begins with.

use crate::runner_bench::*;
use backupy_agent::model::{Multipart, RunOrder, Secret};

const DAY_MS: u64 = 86_400_000;

/// An order in parts whose URLs say when they end.
fn parted(until_ms: u64, first_part: u32) -> RunOrder {
    let url = |what: &str| Secret::from(format!("https://store.test/o?{what}={until_ms}"));
    let multipart = Multipart {
        part_size_bytes: 0,
        part_urls: vec![url("part")],
        first_part,
        complete_url: url("complete"),
        abort_url: url("abort"),
        upload_id: "u1".into(),
        head_url: url("head"),
    };
    RunOrder { put_url: url("put"), expires_at_ms: until_ms, multipart: Some(multipart), ..order("r1", "a") }
}

#[actix::test]
async fn fresh_urls_are_stored_from_whichever_part_on_they_are() {
    let bench = Bench::new(plan(1)).await;
    let (first, later) = (parted(MIDNIGHT_MS + DAY_MS, 1), parted(MIDNIGHT_MS + 2 * DAY_MS, 3));
    bench.start(first.clone()).await.unwrap();
    bench.start(later.clone()).await.unwrap();
    tokio::time::sleep(A_MOMENT).await;
    let stored = bench.seen.lock().unwrap().orders.last().cloned().unwrap();
    assert_eq!(stored, later, "its end, and what completes and gives up");
    let given = bench.going.borrow()[0].progress.urls().take().unwrap();
    assert_eq!((given.expires_at_ms, given.multipart), (later.expires_at_ms, later.multipart.clone()));

    // What ends sooner replaces nothing; another upload does.
    bench.start(first).await.unwrap();
    let mut another = later.clone();
    another.multipart.as_mut().unwrap().upload_id = "u2".into();
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(bench.seen.lock().unwrap().orders.last(), Some(&later));
    bench.start(another.clone()).await.unwrap();
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(bench.seen.lock().unwrap().orders.last(), Some(&another));
}
