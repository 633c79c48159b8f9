//! Uploads that the store lost, objects that it may have, and a store that takes nothing.

use super::*;
use crate::spool::Spool;

/// Asks for one part to be put together; the second time the store knows no such upload.
async fn completion(first: &'static str, head_url: bool, more: &[(&str, &'static str)]) -> (Shop, String) {
    let shop = Shop::new(&[&[("complete", first), ("complete", "gone")], more].concat()).await;
    let mut order = shop.order(20);
    if !head_url {
        order.multipart.as_mut().unwrap().head_url = Default::default();
    }
    let parts = Parts::new(&order, &options(), &Progress::new()).unwrap().unwrap();
    parts.signed.took_part(1);
    let stored = [Stored { number: 1, etag: "\"e\"".into(), md5: None }];
    let completed = timeout(Duration::from_secs(20), parts.complete(&stored, 5)).await.expect("it ends");
    let text = completed.unwrap_err().to_string();
    assert!(!text.contains(SECRET), "{text}");
    (shop, text)
}

#[actix::test]
async fn an_upload_that_is_gone_is_a_stored_object_only_where_the_object_shows_it() {
    let heads = |shop: &Shop| shop.held().requests.iter().filter(|(method, ..)| method == "HEAD").count();
    // Lost by the store: the object is not there, whatever became of the first answer.
    for (first, asked) in [("503", 1), ("504", 3), ("lost request", 3), ("error in 200", 1)] {
        let (shop, text) = completion(first, true, &[]).await;
        assert!(text.contains("NoSuchUpload (the multipart upload is over"), "{first}: {text}");
        assert_eq!(heads(&shop), asked, "{first}: only a lost answer makes it worth asking again");
    }
    // Nobody can tell, and nobody says that all is well.
    for first in ["500", "504", "lost request"] {
        let (shop, text) = completion(first, false, &[]).await;
        assert!(text.contains("may be stored") && text.contains("gave no URL to ask for it"), "{text}");
        assert_eq!(heads(&shop), 0);
    }
    let (_, text) = completion("503", false, &[]).await;
    assert!(text.contains("NoSuchUpload") && !text.contains("may be stored"), "{text}");
    let (_, text) = completion("lost request", true, &[("head", "403")]).await;
    assert!(text.contains("may be stored") && text.contains("was answered 403"), "{text}");
    let (_, text) = completion("lost request", true, &[("head", "another")]).await;
    assert!(text.contains("has 7 bytes, and 5 were sent"), "{text}");
}

#[actix::test]
async fn an_object_in_parts_is_proved_by_its_size_and_its_etag() {
    let shop = Shop::new(&[("complete", "gone")]).await;
    shop.held().object = Some(vec![0; 5]);
    let parts = Parts::new(&shop.order(20), &options(), &Progress::new()).unwrap().unwrap();
    let stored = [Stored { number: 1, etag: "\"e\"".into(), md5: None }];
    // An earlier life had it put together.
    parts.complete(&stored, 5).await.unwrap();
}

#[actix::test]
async fn the_object_itself_is_asked_for_however_a_completion_in_doubt_ends() {
    let after = |faults: &'static [&'static str], is_there: bool, stale: bool| async move {
        let faults = faults.iter().map(|fault| ("complete", *fault)).collect::<Vec<_>>();
        let shop = Shop::new(&faults).await;
        shop.held().object = is_there.then(|| vec![0; 5]);
        let mut options = options();
        // No link to the server: nobody gives fresh URLs.
        options.timing.fresh_urls = Duration::from_millis(50);
        let parts = Parts::new(&shop.order(20), &options, &Progress::new()).unwrap().unwrap();
        let stored = [Stored { number: 1, etag: "\"e\"".into(), md5: None }];
        // Of the completing URL only: the question for the object is signed for longer.
        shop.held().completes_stale = stale;
        let completed = timeout(Duration::from_secs(20), parts.complete(&stored, 5)).await;
        let text = completed.expect("it ends").err().map(|error| error.to_string()).unwrap_or_default();
        let asked = shop.held().requests.iter().any(|(method, ..)| method == "HEAD");
        (text, asked)
    };
    for (faults, stale, expected) in [
        (&["lost request", "gone in 200"][..], false, "200 NoSuchUpload"),
        (&["gone in 200"], false, "200 NoSuchUpload"),
        (&["lost request", "bad parts"], false, "in it InvalidPart"),
        (&["nothing", "nothing", "nothing"], false, "neither that it did nor why not"),
        (&["lost request"], true, "no link to it"),
    ] {
        let (text, asked) = after(faults, true, stale).await;
        assert!(text.is_empty() && asked, "{faults:?}: it is there: {text}");
        let (text, asked) = after(faults, false, stale).await;
        assert!(text.contains(expected) && asked, "{faults:?}: {text}");
    }
    // What the store says at once is so, whatever an earlier run may have left there.
    let (text, asked) = after(&["bad parts"], true, false).await;
    assert!(text.contains("in it InvalidPart") && !asked, "{text}");
}

#[actix::test]
async fn a_spool_whose_upload_is_lost_goes_up_again_in_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(&[("complete", "lost request"), ("complete", "gone")]).await;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(20), &options, &progress).unwrap().unwrap();
    let spool = Spool::create(dir.path(), &"r1".into()).unwrap();
    std::io::copy(&mut &vec![7; 200_000][..], &mut spool.writer(&Room::default()).unwrap()).unwrap();
    let mut ledger = Ledger::new(spool.path(), &"r1".into(), &vec![9; 32].into(), &Room::default()).unwrap();
    let sending = async {
        let stored = parts.send_spool(&spool, 200_000, &mut ledger).await.unwrap();
        let Err(RunError::Upload(lost)) = parts.complete(&stored, 200_000).await else { panic!("completed") };
        assert!(lost.is_lost_upload(), "{lost}");
        parts.begin_another(&lost).await.unwrap();
        let again = parts.send_spool(&spool, 200_000, &mut ledger).await.unwrap();
        assert_eq!((parts.upload_id().as_str(), again.len()), ("u2", stored.len()));
        parts.complete(&again, 200_000).await.unwrap();
    };
    tokio::select! {
        () = sending => {},
        () = gives_another(&shop, &progress) => unreachable!(),
    }
    assert_eq!(shop.held().object.as_ref().unwrap().len(), 200_000);
}

#[actix::test]
async fn a_store_that_takes_nothing_for_the_life_of_fresh_urls_ends_the_run() {
    let shop = Shop::new(&[("part 1", "503"); 10_000]).await;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    options.timing.longest_wait = Duration::from_millis(200);
    let mut order = shop.order(3);
    let life_ms = 3_000;
    order.expires_at_ms = unix_ms() + life_ms;
    let parts = Parts::new(&order, &options, &progress).unwrap().unwrap();
    let part = || Arc::new(Part::of_spool(1, Source::Memory(vec![1; 10].into()), 1));
    let renewed = Cell::new(0);
    let server = async {
        loop {
            if progress.urls().question().is_some() {
                renewed.set(renewed.get() + 1);
                let (put_url, expires_at_ms) = (Default::default(), unix_ms() + life_ms);
                let multipart = Some(shop.multipart(1, 3, renewed.get()));
                progress.urls().give(FreshUrls { put_url, expires_at_ms, multipart });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let sent = tokio::select! {
        sent = timeout(Duration::from_secs(15), parts.send_part(part())) => sent.expect("it ends"),
        () = server => unreachable!(),
    };
    let text = sent.unwrap_err().to_string();
    assert!(text.contains("503") && text.contains("until its URL expired at"), "{text}");
    assert_eq!(renewed.get(), 1, "one whole life of fresh URLs is enough");
}
