//! URLs that are renewed a window at a time.

use super::*;
use crate::backup::urls::UrlsWanted;

async fn ten_urls(faults: &[(&str, &'static str)]) -> (Shop, Parts, Progress) {
    with_urls(10, faults).await
}

/// An upload with so many URLs, and whoever talks to the server for it.
async fn with_urls(count: u32, faults: &[(&str, &'static str)]) -> (Shop, Parts, Progress) {
    let shop = Shop::new(faults).await;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(count), &options, &progress).unwrap().unwrap();
    (shop, parts, progress)
}

/// What comes of it while the server answers each question with so many URLs; and the questions.
async fn answered<T>(
    work: impl Future<Output = T>,
    (shop, progress, count): (&Shop, &Progress, u32),
) -> (T, Vec<UrlsWanted>) {
    let mut questions = Vec::new();
    let server = async {
        loop {
            if let Some(wanted) = progress.urls().question() {
                questions.push(wanted);
                let generation = u32::try_from(questions.len()).unwrap();
                let multipart = Some(shop.multipart(wanted.first_part.max(1), count, generation));
                let (put_url, expires_at_ms) = (Default::default(), unix_ms() + 900_000);
                progress.urls().give(FreshUrls { put_url, expires_at_ms, multipart });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let done = tokio::select! {
        done = timeout(Duration::from_secs(20), work) => done.expect("it ends"),
        () = server => unreachable!(),
    };
    (done, questions)
}

fn part(number: u32) -> Arc<Part> {
    Arc::new(Part::of_spool(number, Source::Memory(vec![1; 10].into()), 1))
}

/// Generations of the URLs that a part was put to.
fn generations(shop: &Shop, number: u32) -> Vec<u32> {
    let held = shop.held();
    held.requests
        .iter()
        .filter(|(_, part, _)| *part == number)
        .map(|(_, _, generation)| *generation)
        .collect()
}

#[actix::test]
async fn urls_of_a_later_window_take_none_away_that_still_lives() {
    let (shop, parts, progress) = ten_urls(&[("part 5", "503")]).await;
    let (came, _) = answered(parts.signed.ask_ahead(11), (&shop, &progress, 4)).await;
    assert!(came);
    // The link to the server is gone: nobody answers.
    parts.send_part(part(5)).await.unwrap();
    parts.send_part(part(12)).await.unwrap();
    assert_eq!((generations(&shop, 5), generations(&shop, 12)), (vec![0, 0], vec![1]));
    assert!(progress.urls().question().is_none(), "nothing is asked");
}

#[actix::test]
async fn parts_that_wait_and_parts_that_are_made_do_not_take_each_others_urls() {
    let (shop, parts, progress) = ten_urls(&[]).await;
    // All that the order brought are too old.
    shop.held().generation = 1;
    let all = async {
        for number in 1..=4 {
            parts.send_part(part(number)).await.unwrap();
            parts.send_part(part(number + 100)).await.unwrap();
        }
    };
    let ((), questions) = answered(all, (&shop, &progress, 4)).await;
    let asked = questions.iter().map(|wanted| wanted.first_part).collect::<Vec<_>>();
    assert_eq!(asked, [1, 101], "one question for each window");
}

#[actix::test]
async fn a_url_that_was_refused_is_not_used_again_because_others_came() {
    let (shop, parts, progress) = ten_urls(&[]).await;
    shop.held().generation = 1;
    let both = async {
        assert!(parts.signed.ask_ahead(11).await);
        parts.send_part(part(5)).await.unwrap();
    };
    let ((), questions) = answered(both, (&shop, &progress, 4)).await;
    assert_eq!(questions[1].first_part, 5);
    assert_eq!(generations(&shop, 5), [0, 2]);
    let another = async { parts.begin_another(&UploadError::OtherUpload).await.unwrap() };
    tokio::select! {
        () = another => {},
        () = gives_another(&shop, &progress) => unreachable!(),
    }
    // Another upload's 20 URLs, from the first on: nothing is left of what there was.
    let found = parts.signed.find(Which::Part(12), None).await.unwrap();
    assert!(found.place.target.expose().contains("partNumber=12&gen=1"));
}

#[actix::test]
async fn a_store_that_takes_nothing_ends_the_run_also_where_windows_are_renewed_in_turn() {
    let (shop, parts, progress) = ten_urls(&[]).await;
    let all = async {
        assert!(parts.signed.ask_ahead(1).await);
        let early = parts.signed.find(Which::Part(1), None).await.unwrap();
        assert!(parts.signed.ask_ahead(101).await);
        let refusal = early.used_up(UploadError::OtherUpload);
        assert!(parts.signed.find(Which::Part(1), Some(&refusal)).await.is_err());
        parts.signed.took_part(2);
        assert!(parts.signed.find(Which::Part(1), Some(&refusal)).await.is_ok());
    };
    let ((), questions) = answered(all, (&shop, &progress, 4)).await;
    assert_eq!(questions.len(), 3);
}

#[actix::test]
async fn more_urls_are_asked_for_from_where_there_are_none_and_parts_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, parts, progress) = with_urls(100, &[]).await;
    let stream = stream(&parts, dir.path(), 85 * usize::try_from(PART).unwrap());
    // A server that gives no more than two at once.
    let (packed, questions) = answered(stream, (&shop, &progress, 2)).await;
    let packed = packed.unwrap();
    let first = questions.iter().map(|wanted| wanted.first_part).collect::<Vec<_>>();
    assert_eq!(first, [101]);
    let held = shop.held();
    let count = packed.size_bytes.div_ceil(PART) as usize;
    assert_eq!(held.parts.len(), count);
    assert!(held.parts.values().take(count - 1).all(|part| part.len() as u64 == PART));
}

#[actix::test]
async fn more_urls_are_asked_for_also_while_the_store_takes_nothing() {
    let (shop, parts, progress) = ten_urls(&[]).await;
    shop.held().away = true;
    let (to_send, items) = mpsc::channel(1);
    let made = async {
        let asked = async {
            for number in 1..=7 {
                to_send.send(Item::Part(part(number))).await.unwrap();
            }
            while parts.numbers.is_nearly_used_up(7) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = asked => {}
            _ = parts.send_all(items) => unreachable!(),
        }
    };
    let ((), questions) = answered(made, (&shop, &progress, 4)).await;
    assert_eq!(questions[0].first_part, 11);
}
