//! Whom the Dispatcher asks, through restarts of theirs.

use crate::actors::messages::{CancelRun, Commit, Configured, Recover, RunCheck, StartRun, Submit};
use actix::prelude::*;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A neighbour that answers later is frozen; by then the Supervisor is about to replace it.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How often a question is asked: a neighbour that is replaced while it is asked loses the question.
pub(super) const ATTEMPTS: u32 = 3;

/// A fresh neighbour is handed out at once after a restart; longer means that the agent is ending.
const REPLACEMENT_LIMIT: Duration = Duration::from_secs(2);

/// Whom the Dispatcher asks and tells; given at start and after one of them was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct DispatcherNeighbours {
    /// The StateStore, at start.
    pub recover: Recipient<Recover>,
    /// The StateStore.
    pub commit: Recipient<Commit>,
    /// The Queue.
    pub submit: Recipient<Submit>,
    /// The Runner.
    pub start_run: Recipient<StartRun>,
    /// The Runner.
    pub cancel_run: Recipient<CancelRun>,
    /// Health.
    pub run_check: Recipient<RunCheck>,
    /// Who must know the applied configuration.
    pub listeners: Vec<Recipient<Configured>>,
}

/// The neighbour is not there, or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silent;

/// The neighbours as they are now.
#[derive(Clone)]
pub(super) struct Neighbours {
    known: watch::Receiver<Option<DispatcherNeighbours>>,
}

impl Neighbours {
    pub(super) fn new(known: watch::Receiver<Option<DispatcherNeighbours>>) -> Self {
        Self { known }
    }

    /// The neighbours, once there are any; they count as seen.
    pub(super) async fn now(&mut self) -> Option<DispatcherNeighbours> {
        self.known.wait_for(Option::is_some).await.ok()?;
        self.known.borrow_and_update().clone()
    }

    /// Asks a neighbour; where it is replaced meanwhile, its successor. Only for what may be asked twice. Before each
    /// question `meet` sees the neighbours as they are.
    pub(super) async fn ask<M>(
        &mut self,
        mut meet: impl FnMut(&DispatcherNeighbours),
        pick: impl Fn(&DispatcherNeighbours) -> &Recipient<M>,
        message: M,
    ) -> Result<M::Result, Silent>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        for _ in 0..ATTEMPTS {
            let neighbours = self.now().await.ok_or(Silent)?;
            meet(&neighbours);
            match timeout(ANSWER_LIMIT, pick(&neighbours).send(message.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                // Gone: its successor is handed out at once.
                Ok(Err(_)) => self.replaced().await,
                Err(_) => {}
            }
        }
        Err(Silent)
    }

    /// Waits until others than the ones last seen are known.
    pub(super) async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // The actor is gone, and this task with it.
            std::future::pending::<()>().await;
        }
    }

    /// The same, for as long as a replacement takes.
    pub(super) async fn replaced(&mut self) {
        let _ = timeout(REPLACEMENT_LIMIT, self.changed()).await;
    }

    /// Lets a neighbour that is there, but without its own neighbour, get a new one.
    pub(super) async fn pause(&self) {
        sleep(REPLACEMENT_LIMIT).await;
    }
}
