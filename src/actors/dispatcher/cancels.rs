//! CancelJobs whose ends are waited for: side by side, so that none holds up another one, or a command behind it.

use super::neighbours::{ATTEMPTS, Neighbours, Silent};
use crate::actors::messages::{CancelRun, Refusal};
use crate::model::JobId;
use futures_util::stream::{self, StreamExt};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A Runner that is not there: the server may try again.
pub(super) const RUNNER_SILENT: &str = "the agent's runner is restarting: send it again";

/// So many are waited for at once; with more the commands behind them wait too.
const MAX_AT_ONCE: usize = 64;

/// A run is stopped within 2 s. Longer takes only an end that the disk does not take; by then the server must hear
/// something.
const END_LIMIT: Duration = Duration::from_secs(45);

/// A CancelJob that the Runner has.
pub(super) struct Cancelling {
    pub(super) neighbours: Neighbours,
    /// Empty where the server wants no Ack.
    pub(super) correlation_id: String,
    pub(super) job_id: JobId,
    /// The Runner's word; None where it is gone without one.
    pub(super) ended: Option<oneshot::Receiver<Result<(), Refusal>>>,
}

/// Answers each as soon as its runs have ended. Never through while there may be more.
pub(super) async fn answer_all(cancels: mpsc::Receiver<Cancelling>) {
    let cancels = stream::unfold(cancels, async |mut cancels| Some((cancels.recv().await?, cancels)));
    cancels.for_each_concurrent(MAX_AT_ONCE, Cancelling::answer).await;
}

/// For the agent's own log.
pub(super) fn note(job_id: &JobId, answer: &Result<(), Refusal>) {
    match answer {
        Ok(()) => tracing::info!(%job_id, "job cancelled"),
        Err(refusal) => tracing::warn!(%job_id, %refusal, "cancel refused"),
    }
}

impl Cancelling {
    async fn answer(mut self) {
        let answer = match timeout(END_LIMIT, self.end()).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Other(format!(
                "the end of the runs of job \"{}\" is not on the agent's disk yet: look whether that is full; CANCELLED follows",
                self.job_id
            ))),
        };
        let Self { mut neighbours, correlation_id, job_id, .. } = self;
        note(&job_id, &answer);
        if !correlation_id.is_empty() {
            neighbours.ack(correlation_id, answer).await;
        }
    }

    /// What the Runner says of the end, or its successor, which takes the runs up.
    async fn end(&mut self) -> Result<(), Refusal> {
        for _ in 0..ATTEMPTS {
            if let Some(ended) = self.ended.take()
                && let Ok(answer) = ended.await
            {
                return answer;
            }
            self.neighbours.replaced().await;
            match self.neighbours.ask(|_| (), |n| &n.cancel_run, CancelRun(self.job_id.clone())).await {
                Ok(ended) => self.ended = Some(ended),
                Err(Silent) => break,
            }
        }
        Err(Refusal::NobodyThere(RUNNER_SILENT))
    }
}
