//! How a run ended, known before its post-hooks, which may take half an hour: whoever keeps the run's record makes it
//! durable first. An agent that dies meanwhile then neither dumps again nor tells something else.

use crate::model::RunOutcome;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A disk that takes longer must not keep the post-hooks from undoing what the pre-hooks did.
const KEEP_LIMIT: Duration = Duration::from_secs(5);

/// The end of one run, between its thread and whoever keeps its record.
#[derive(Debug, Default)]
pub struct Verdict(watch::Sender<Reached>);

#[derive(Clone, Debug, Default)]
struct Reached {
    outcome: Option<RunOutcome>,
    kept: bool,
}

impl Verdict {
    /// An earlier life of the agent reached it: only the post-hooks are left.
    pub fn resume(&self, outcome: RunOutcome) {
        self.0.send_replace(Reached { outcome: Some(outcome), kept: true });
    }

    /// The end, where it is known.
    pub fn known(&self) -> Option<RunOutcome> {
        self.0.borrow().outcome.clone()
    }

    /// Tells the end, and waits until it is kept, where anybody listens; 5 s at the most.
    pub async fn reach(&self, outcome: RunOutcome) {
        let mut reached = self.0.subscribe();
        // One of them is ours.
        if self.0.receiver_count() < 2 {
            return;
        }
        self.0.send_modify(|reached| reached.outcome = Some(outcome));
        if timeout(KEEP_LIMIT, reached.wait_for(|reached| reached.kept)).await.is_err() {
            tracing::warn!("the end of a run is not on the disk yet: its post-hooks begin all the same");
        }
    }

    /// The end, once it is told; None where the run ends without telling, since nothing comes after that. Listens from
    /// the call on.
    pub fn reached(&self) -> impl Future<Output = Option<RunOutcome>> + use<> {
        let mut reached = self.0.subscribe();
        async move {
            let reached = reached.wait_for(|reached| reached.outcome.is_some()).await.ok()?;
            reached.outcome.clone()
        }
    }

    /// It is durable, or cannot be: the post-hooks may begin.
    pub fn keep(&self) {
        self.0.send_modify(|reached| reached.kept = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn failed() -> RunOutcome {
        RunOutcome::Failed { error: "no such file".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_to_be_kept_where_somebody_listens_and_not_for_ever() {
        let verdict = Verdict::default();
        verdict.reach(failed()).await;
        assert_eq!(verdict.known(), None, "nobody listens: nobody is to be waited for");

        let begin = Instant::now();
        let listening = verdict.reached();
        let ((), heard) = tokio::join!(verdict.reach(failed()), async {
            let heard = listening.await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            verdict.keep();
            heard
        });
        assert_eq!((heard, begin.elapsed()), (Some(failed()), Duration::from_secs(2)));

        let verdict = Verdict::default();
        let (_deaf, begin) = (verdict.reached(), Instant::now());
        verdict.reach(failed()).await;
        assert_eq!(begin.elapsed(), KEEP_LIMIT);
    }

    #[tokio::test]
    async fn a_run_that_ends_without_telling_is_listened_to_no_longer() {
        let verdict = Verdict::default();
        let listening = verdict.reached();
        drop(verdict);
        assert_eq!(listening.await, None);
    }
}
