//! One turn: a look, and its result on the disk. A task of its own, so that a look that panics or
//! hangs hurts nobody else.

use super::{Health, HealthNeighbours};
use crate::actors::messages::{QueueError, Submit};
use crate::actors::runner::Clock;
use crate::model::CheckOutcome;
use crate::probe::health::Prober;
use crate::probe::health::schedule::{Key, Turn};
use crate::wire::convert;
use actix::prelude::*;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A look ends by itself at the check's timeout; one that does not is given up after this.
const GRACE: Duration = Duration::from_secs(2);

/// The Queue answers after its commit; one that takes longer is frozen and about to be replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// A result is offered for so long: through a restart of the Queue or the store, which takes seconds.
const OFFER_LIMIT: Duration = Duration::from_secs(60);

/// Before it is offered again.
const OFFER_PAUSE: Duration = Duration::from_secs(1);

/// A turn is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) turn: Turn,
    pub(super) ts_ms: u64,
    pub(super) outcome: CheckOutcome,
    /// Why the result is not on the disk.
    pub(super) lost: Option<String>,
}

/// The look is over, and its result is on its way to the disk: from now on the turn is not given up.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Looked(pub(super) Key);

/// What a turn needs.
pub(super) struct Tools {
    pub(super) prober: Rc<dyn Prober>,
    pub(super) clock: Clock,
    pub(super) neighbours: watch::Receiver<Option<HealthNeighbours>>,
    pub(super) health: Addr<Health>,
}

impl Tools {
    pub(super) async fn take(mut self, turn: Turn) {
        let ts_ms = (self.clock)();
        let outcome = look(self.prober.as_ref(), &turn).await;
        self.health.do_send(Looked(turn.key));
        let result = Submit::new(convert::health_result(&turn.check.id, ts_ms, &outcome));
        let lost = self.offer(result).await.err();
        self.health.do_send(Ended { turn, ts_ms, outcome, lost });
    }

    /// Gives the result to the Queue. The next turn of the check begins only after this, so that its
    /// results keep their order, and a slow disk slows the checks down instead of filling the memory.
    async fn offer(&mut self, result: Submit) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let known = self.neighbours.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
            let Some(HealthNeighbours { submit }) = known else {
                return Err("the agent is ending".to_owned());
            };
            let trouble = match timeout(ANSWER_LIMIT, submit.send(result.clone())).await {
                Ok(Ok(Ok(_))) => return Ok(()),
                Ok(Ok(Err(error))) if !passing(&error) => return Err(error.to_string()),
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) => "the queue is restarting".to_owned(),
                Err(_) => "the queue does not answer".to_owned(),
            };
            if begin.elapsed() >= OFFER_LIMIT {
                return Err(trouble);
            }
            sleep(OFFER_PAUSE).await;
        }
    }
}

/// Whether the Queue may take it a moment later.
fn passing(error: &QueueError) -> bool {
    match error {
        QueueError::StoreGone | QueueError::Busy(_) => true,
        QueueError::NotConnected
        | QueueError::Full { .. }
        | QueueError::TooLarge { .. }
        | QueueError::NotDurable
        | QueueError::NotOurs
        | QueueError::Store(_) => false,
    }
}

/// The look itself, whatever it does.
async fn look(prober: &dyn Prober, turn: &Turn) -> CheckOutcome {
    let begin = Instant::now();
    let limit = turn.check.timeout + GRACE;
    let check = Arc::clone(&turn.check);
    // Made inside, so that a panic of the making is caught as well.
    let looking = AssertUnwindSafe(async { prober.probe(check).await }).catch_unwind();
    let (error, timed_out) = match timeout(limit, looking).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(_)) => {
            tracing::error!(check_id = %turn.check.id, "a health check panicked: report this");
            ("the agent failed at this check, which is a fault of the agent: see its log".to_owned(), false)
        }
        Err(_) => (format!("timed out after {} s", limit.as_secs_f64()), true),
    };
    CheckOutcome { error: Some(error), latency: begin.elapsed(), status_code: None, timed_out }
}
