//! Asking the server for fresh URLs, through whoever looks after the run.

use super::{Timing, UploadError};
use crate::backup::progress::Progress;
use crate::backup::urls::{FreshUrls, UrlsWanted};
use crate::model::unix_ms;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The desk is also looked at without a sign.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Questions to a server that never answered one and may not know them. With the default interval that is two minutes
/// of a link: longer than a dead link needs to be noticed, and than most restarts.
const MAX_UNANSWERED: u32 = 12;

/// Answers that do not have what is wanted: a server that says so again means it.
const MAX_USELESS: u32 = 3;

/// URLs that end so soon are of no use, in milliseconds: the request must have begun by then.
pub const NEARLY_OVER_MS: u64 = 2_000;

/// Why there are no fresh URLs: what was waited for.
#[derive(Debug)]
pub struct NoneCame {
    asked: u32,
    useless: u32,
    waited: Duration,
}

impl NoneCame {
    /// The end of an upload that this is the end of.
    pub fn after(&self, why: UploadError) -> UploadError {
        UploadError::NotRenewed { why: Box::new(why), waited: self.to_string() }
    }
}

impl fmt::Display for NoneCame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, useless, waited } = self;
        let seconds = waited.as_secs();
        match (asked, useless) {
            (0, _) => {
                write!(f, "the server could not be asked for fresh URLs: no link to it for {seconds} s")
            }
            (_, 0) => {
                write!(
                    f,
                    "the server was asked {asked} times for fresh URLs within {seconds} s and gave none"
                )
            }
            _ => write!(
                f,
                "the server was asked {asked} times for fresh URLs within {seconds} s, and what it gave was expired or without what was needed"
            ),
        }
    }
}

/// The fresh URLs that `covers` finds useful; it is told whether they came after the question. The question is asked again and again while they do not come: a link can
/// break between a question and its answer. A server that is known to answer is waited for as long as one without a
/// link; any other one for [`MAX_UNANSWERED`] questions.
///
/// # Errors
/// None came.
pub async fn fresh_urls(
    progress: &Progress,
    wanted: UrlsWanted,
    covers: impl Fn(&FreshUrls, bool) -> bool,
    answers: bool,
    timing: &Timing,
) -> Result<FreshUrls, NoneCame> {
    let desk = progress.urls();
    let useful =
        |urls: &FreshUrls, asked| urls.expires_at_ms > unix_ms() + NEARLY_OVER_MS && covers(urls, asked);
    // What came by itself, with a repeated order, may do; it may also have come hours ago.
    if let Some(urls) = desk.take().filter(|urls| useful(urls, false)) {
        return Ok(urls);
    }
    let begun = Instant::now();
    let (mut asked, mut useless) = (0, 0);
    desk.ask(wanted);
    // Until when the question that went out may be answered; None while it has not.
    let mut answer_until: Option<Instant> = None;
    loop {
        match desk.take() {
            Some(urls) if useful(&urls, true) => return Ok(urls),
            Some(_) => useless += 1,
            None => {}
        }
        let now = Instant::now();
        if answer_until.is_none() && desk.is_sent() {
            asked += 1;
            answer_until = Some(now + timing.fresh_urls);
        }
        if answer_until.is_none_or(|until| now >= until) {
            let hopeless = useless >= MAX_USELESS || !answers && asked >= MAX_UNANSWERED;
            let waited = now - begun;
            if hopeless || waited >= timing.offline {
                return Err(NoneCame { asked, useless, waited });
            }
            if answer_until.take().is_some() {
                desk.ask(wanted);
            }
        }
        // Whether it changed or not: the next look tells.
        let until = answer_until.unwrap_or(begun + timing.offline);
        let _ = timeout_at(until.min(now + LOOK_AGAIN), desk.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use std::cell::Cell;

    const WANTED: UrlsWanted = UrlsWanted { first_part: 0, part_count: 0 };

    fn urls(name: &str, expires_at_ms: u64) -> FreshUrls {
        FreshUrls { put_url: Secret::from(name.to_owned()), expires_at_ms, multipart: None }
    }

    fn alive() -> u64 {
        unix_ms() + 600_000
    }

    /// The name of what came, or what was waited for; and for how long, in virtual seconds. `server` is told the number
    /// of each question that reaches it.
    async fn asked(
        progress: &Progress,
        answers: bool,
        server: impl Fn(u32) -> Option<FreshUrls>,
    ) -> (Result<String, String>, u64) {
        let begun = Instant::now();
        let covers = |urls: &FreshUrls, _| urls.put_url.expose() != "useless";
        let timing = Timing::default();
        let asking = fresh_urls(progress, WANTED, covers, answers, &timing);
        let serving = async {
            let mut count = 0;
            loop {
                if progress.urls().question().is_some() {
                    count += 1;
                    progress.urls().sent();
                    if let Some(urls) = server(count) {
                        progress.urls().give(urls);
                    }
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let came = tokio::select! {
            came = asking => came,
            () = serving => unreachable!(),
        };
        let came = came.map(|urls| urls.put_url.expose().to_owned()).map_err(|none| none.to_string());
        (came, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_got_lost_is_asked_again() {
        let third = |count| (count == 3).then(|| urls("fresh", alive()));
        let (came, seconds) = asked(&Progress::new(), false, third).await;
        assert_eq!(came.unwrap(), "fresh");
        assert!((20..30).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_waited_for_by_what_is_known_of_it_and_the_words_say_so() {
        for (answers, questions, longest) in [(false, MAX_UNANSWERED, 140), (true, 70, 15 * 60 + 15)] {
            let count = Cell::new(0);
            let silent = |asked| {
                count.set(asked);
                None
            };
            let (came, seconds) = asked(&Progress::new(), answers, silent).await;
            let text = came.unwrap_err();
            assert!(
                text.contains(&format!("asked {} times", count.get())) && text.contains("gave none"),
                "{text}"
            );
            assert!(count.get() >= questions && seconds <= longest, "{} {seconds}", count.get());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_link_it_waits_for_one() {
        let progress = Progress::new();
        let begun = Instant::now();
        let none = fresh_urls(&progress, WANTED, |_, _| true, false, &Timing::default()).await.unwrap_err();
        assert!(none.to_string().contains("no link to it for 900 s"), "{none}");
        assert_eq!(begun.elapsed().as_secs(), 15 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_by_itself_is_used_only_while_it_lives_and_has_what_is_wanted() {
        let fresh = |_| Some(urls("fresh", alive()));
        for (unasked, used) in [
            (urls("unasked", alive()), "unasked"),
            (urls("unasked", unix_ms() + 1_000), "fresh"),
            (urls("useless", alive()), "fresh"),
        ] {
            let progress = Progress::new();
            progress.urls().give(unasked);
            assert_eq!(asked(&progress, false, fresh).await.0.unwrap(), used);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_gives_nothing_useful_is_not_asked_for_ever() {
        let (came, seconds) = asked(&Progress::new(), true, |_| Some(urls("useless", alive()))).await;
        assert!(came.unwrap_err().contains("without what was needed"));
        assert!(seconds <= 40, "{seconds}");
    }
}
