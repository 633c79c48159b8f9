//! Uploads in parts, against a store that misbehaves when told.

use super::test_shop::{PART, SECRET, Shop};
use super::*;
use crate::backup::dumped::Packed;
use crate::backup::outlet::Outlet;
use crate::backup::pack;
use crate::backup::pipe::pipe;
use crate::backup::test_store::options;
use crate::backup::urls::FreshUrls;
use crate::model::{Compression, Dek, Multipart};
use crate::process::Cancel;
use crate::spool::Room;
use std::io::Write;
use std::time::Duration;
use tokio::time::timeout;

mod lost;
mod urls;

fn sink_options(parts: &Parts, dir: &std::path::Path) -> SinkOptions {
    let (offered_bytes, numbers) = parts.offer();
    SinkOptions {
        offered_bytes,
        numbers,
        memory_bytes: 5 * PART,
        key: vec![9; 32].into(),
        dir: dir.into(),
        room: Room::default(),
        patience: None,
    }
}

/// Seals so many bytes into parts, and tells when all of them were taken.
fn pack_in(
    sink: PartSink,
    bytes: usize,
    taken: impl FnOnce() + Send + 'static,
) -> std::thread::JoinHandle<Result<Option<Packed>, RunError>> {
    let (mut writer, reader) = pipe(Cancel::new());
    std::thread::spawn(move || {
        let data: Vec<u8> = (0..bytes).map(|n| (n % 253) as u8).collect();
        if writer.write_all(&data).is_ok() {
            let _ = writer.finish();
            taken();
        }
    });
    let packing = pack::Packing {
        compression: Compression::None,
        zstd_level: 3,
        gzip_level: 6,
        threads: 1,
        key: Dek::from(vec![9; 32]),
        room: Room::default(),
    };
    std::thread::spawn(move || pack::pack(reader, &Outlet::Parts(Arc::new(sink)), &packing))
}

/// Seals so many bytes and sends them as parts while they are made.
async fn stream(parts: &Parts, dir: &std::path::Path, bytes: usize) -> Result<Packed, String> {
    let (sink, items) = PartSink::new(sink_options(parts, dir));
    let packed = pack_in(sink, bytes, || {});
    let sent = async {
        let stored = parts.send_all(items).await?.expect("the dump ended well");
        let packed = packed.join().unwrap().unwrap().unwrap();
        parts.complete(&stored, packed.size_bytes).await?;
        Ok::<_, RunError>(packed)
    };
    let sent = timeout(Duration::from_secs(20), sent).await.expect("it ends");
    sent.map_err(|error| error.to_string())
}

async fn run(faults: &[(&str, &'static str)], bytes: usize, urls: u32) -> (Shop, Result<Packed, String>) {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(faults).await;
    let parts = Parts::new(&shop.order(urls), &options(), &Progress::new()).unwrap().unwrap();
    let sent = stream(&parts, dir.path(), bytes).await;
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is on the disk");
    if let Err(text) = &sent {
        assert!(!text.contains(SECRET), "{text}");
        parts.abort(Duration::from_secs(5)).await;
        assert!(shop.held().aborted);
        assert!(shop.held().object.is_none(), "no object appears");
    }
    (shop, sent)
}

#[actix::test]
async fn parts_make_the_object_and_every_fault_costs_one_part_only() {
    let faults = [
        ("part 1", "500"),
        ("part 2", "cut"),
        ("part 3", "503"),
        ("part 4", "mute"),
        ("part 5", "wrong etag"),
        ("complete", "500"),
        ("complete", "error in 200"),
        ("complete", "cut"),
        // Done, and then the line breaks: the next try hears that there is no such upload, and the object is there.
        ("complete", "lost answer"),
    ];
    let (shop, sent) = run(&faults, 500_000, 100).await;
    let packed = sent.unwrap();
    let held = shop.held();
    let object = held.object.as_ref().unwrap();
    assert_eq!(object.len() as u64, packed.size_bytes);
    assert_eq!(ring::digest::digest(&ring::digest::SHA256, object).as_ref(), packed.sha256);
    let count = packed.size_bytes.div_ceil(PART) as usize;
    let puts = held.requests.iter().filter(|(method, _, _)| method == "PUT").count();
    assert_eq!((held.parts.len(), puts), (count, count + 5));
    assert!(held.parts.values().take(count - 1).all(|part| part.len() as u64 == PART));
}

#[actix::test]
async fn what_the_store_refuses_is_told_and_given_up() {
    for (fault, expected) in [
        (("part 3", "403"), "403 AccessDenied"),
        (("part 3", "307"), "redirected"),
        (("complete", "bad parts"), "it answered 200, and in it InvalidPart"),
        (("complete", "404"), "404 AccessDenied"),
        (("complete", "gone"), "404 NoSuchUpload"),
    ] {
        let (_, sent) = run(&[fault], 500_000, 100).await;
        let text = sent.unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    let (_, sent) = run(&[("part 2", "wrong etag"); 3], 500_000, 100).await;
    assert!(sent.unwrap_err().contains("keeps something else"));
}

#[actix::test]
async fn an_object_that_outgrows_its_urls_is_told_where_nobody_gives_more() {
    let (_, sent) = run(&[], 500_000, 3).await;
    let text = sent.unwrap_err();
    assert!(text.contains("more than the 3 parts that the server signed"), "{text}");
}

#[actix::test]
async fn parts_grow_where_nobody_gives_more_urls_so_that_the_numbers_last() {
    // Thirteen parts of the size that was offered.
    let (shop, sent) = run(&[], 800_000, 10).await;
    let packed = sent.unwrap();
    let held = shop.held();
    let sizes = held.parts.values().map(|part| part.len() as u64 / PART).collect::<Vec<_>>();
    assert_eq!(sizes[..9], [1, 1, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(held.object.as_ref().unwrap().len() as u64, packed.size_bytes);
}

#[actix::test]
async fn a_store_that_is_away_holds_no_dump_up_and_then_gets_a_few_parts_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(&[]).await;
    shop.held().away = true;
    let parts = Parts::new(&shop.order(100), &options(), &Progress::new()).unwrap().unwrap();
    let patience = Some(Duration::from_millis(20));
    let options = SinkOptions { memory_bytes: 3 * PART, patience, ..sink_options(&parts, dir.path()) };
    let (sink, items) = PartSink::new(options);
    let (told, dumped) = tokio::sync::oneshot::channel();
    let packed = pack_in(sink, 3_000_000, || {
        let _ = told.send(());
    });
    let sending = async {
        let stored = parts.send_all(items).await?.expect("the dump ended well");
        let packed = packed.join().unwrap().unwrap().unwrap();
        parts.complete(&stored, packed.size_bytes).await?;
        Ok::<_, RunError>(packed)
    };
    let back = async {
        // All of it was taken while the store was away.
        dumped.await.unwrap();
        shop.held().away = false;
    };
    let both = timeout(Duration::from_secs(60), async { tokio::join!(sending, back) });
    let packed = both.await.expect("it ends").0.unwrap();
    let held = shop.held();
    let object = held.object.as_ref().unwrap();
    assert_eq!(ring::digest::digest(&ring::digest::SHA256, object).as_ref(), packed.sha256);
    assert!(held.bodies.1 <= 2, "{} at once", held.bodies.1);
}

#[actix::test]
async fn urls_that_expire_or_run_out_are_asked_for_and_the_upload_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(&[]).await;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    options.timing.offline = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(3), &options, &progress).unwrap().unwrap();
    // From part 2 on, the first URLs are refused for their age.
    shop.held().generation = 1;
    let server = async {
        loop {
            if let Some(wanted) = progress.urls().question() {
                let generation = shop.held().generation;
                progress.urls().sent();
                let multipart = Some(shop.multipart(wanted.first_part.max(1), 4, generation));
                let expires_at_ms = unix_ms() + 600_000;
                progress.urls().give(FreshUrls { put_url: Default::default(), expires_at_ms, multipart });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let sent = tokio::select! {
        sent = stream(&parts, dir.path(), 500_000) => sent,
        () = server => unreachable!(),
    };
    let packed = sent.unwrap();
    assert_eq!(shop.held().object.as_ref().unwrap().len() as u64, packed.size_bytes);
}

/// Uploads where URLs below a generation are of an upload that is over, and the server gives another one when asked.
async fn upload_is_gone(over: u32, faults: &[(&str, &'static str)]) -> (Shop, Result<Packed, String>) {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(faults).await;
    shop.held().over = over;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(20), &options, &progress).unwrap().unwrap();
    let sent = tokio::select! {
        sent = stream(&parts, dir.path(), 500_000) => sent,
        () = gives_another(&shop, &progress) => unreachable!(),
    };
    (shop, sent)
}

#[actix::test]
async fn an_upload_that_is_over_before_a_part_is_stored_is_replaced_and_later_it_is_not() {
    let (shop, sent) = upload_is_gone(1, &[]).await;
    let packed = sent.unwrap();
    let (object_len, requests) = {
        let held = shop.held();
        (held.object.as_ref().unwrap().len() as u64, held.requests.clone())
    };
    assert_eq!(object_len, packed.size_bytes);
    let of_the_first = requests.iter().filter(|(_, _, generation)| *generation == 0).count();
    assert!((1..=5).contains(&of_the_first), "nothing more went to the first one: {requests:?}");

    let (_, sent) = upload_is_gone(0, &[("part 6", "gone")]).await;
    let text = sent.unwrap_err();
    assert!(text.contains("404 NoSuchUpload"), "{text}");
}

/// A server that gives another upload when it is asked.
async fn gives_another(shop: &Shop, progress: &Progress) {
    loop {
        if progress.urls().question().is_some() {
            let multipart = Some(Multipart { upload_id: "u2".into(), ..shop.multipart(1, 20, 1) });
            let (put_url, expires_at_ms) = (Default::default(), unix_ms() + 600_000);
            progress.urls().give(FreshUrls { put_url, expires_at_ms, multipart });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
