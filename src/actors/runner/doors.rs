//! The store and the queue, through restarts of theirs.

use super::RunnerNeighbours;
use crate::actors::messages::{Commit, QueueError, Recover, Submit};
use crate::store::{Change, Recovered, StoreError};
use actix::dev::RecipientRequest;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A neighbour that answers later is frozen; by then the Supervisor is about to replace it.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Waits between two tries: the first is about what a restart takes, the last keeps a full disk from
/// being asked all the time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Of what a server waits for: the Dispatcher gives up after 15 s.
const SHORT_TRIES: u32 = 5;

/// How long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Somebody waits for the answer: a restart is bridged, a refusal is an answer.
    Short,
    /// What is lost now is lost for good.
    Endless,
}

/// Whom the Runner asks, as they are now.
#[derive(Clone, Debug)]
pub struct Doors {
    known: watch::Receiver<Option<RunnerNeighbours>>,
}

/// Why one try failed.
struct Trouble {
    text: String,
    /// The neighbour is being replaced, or is about to be, or only has its hands full.
    away: bool,
}

impl Trouble {
    fn away(who: &str) -> Self {
        Self { text: format!("the {who} is restarting"), away: true }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self { text: error.to_string(), away: false }
    }
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Self {
        Self { away: matches!(error, QueueError::StoreGone | QueueError::Busy(_)), text: error.to_string() }
    }
}

impl Doors {
    /// Empty until the first neighbours come.
    pub fn new(known: watch::Receiver<Option<RunnerNeighbours>>) -> Self {
        Self { known }
    }

    /// Makes the changes durable.
    pub async fn commit(&self, changes: Vec<Change>, patience: Patience) -> Result<(), String> {
        self.ask("state store", patience, |n| {
            let answer = timeout(ANSWER_LIMIT, n.commit.send(Commit(changes.clone())));
            async move { Some(answer.await.ok()?.ok()?.map_err(Trouble::from)) }
        })
        .await
    }

    /// Hands a message to the queue, until its promise holds.
    pub async fn submit(&self, message: Submit, patience: Patience) -> Result<(), String> {
        self.ask("queue", patience, |n| {
            let answer = timeout(ANSWER_LIMIT, n.submit.send(message.clone()));
            async move { Some(answer.await.ok()?.ok()?.map(drop).map_err(Trouble::from)) }
        })
        .await
    }

    /// Progress: the newest counts, so an older one that finds nobody is simply gone.
    pub fn tell(&self, message: Submit) {
        if let Some(neighbours) = self.known.borrow().as_ref() {
            neighbours.submit.do_send(message);
        }
    }

    /// Hands a message over at once, in the order of the calls; the answer may be waited for. None where nobody is
    /// there.
    pub fn hand_over(&self, message: Submit) -> Option<RecipientRequest<Submit>> {
        self.known.borrow().as_ref().map(|neighbours| neighbours.submit.send(message))
    }

    /// Makes a change durable, or not: one try, in order with everything that follows. For what must not come
    /// late, after a change that it would undo.
    pub async fn commit_now(&self, change: Change) -> Result<(), String> {
        let sending = self.known.borrow().as_ref().map(|n| n.commit.send(Commit(vec![change])));
        match sending {
            Some(sending) => match sending.await {
                Ok(stored) => stored.map_err(|error| error.to_string()),
                Err(_) => Err("the state store is restarting".into()),
            },
            None => Err("the state store is not there".into()),
        }
    }

    /// What an earlier life left.
    pub async fn recover(&self) -> Result<Recovered, String> {
        self.ask("state store", Patience::Endless, |n| {
            let answer = timeout(ANSWER_LIMIT, n.recover.send(Recover));
            async move { Some(answer.await.ok()?.ok()?.map_err(Trouble::from)) }
        })
        .await
    }

    /// Asks until there is an answer. `once` gives None where nobody answered.
    async fn ask<T, F>(
        &self,
        who: &str,
        patience: Patience,
        once: impl Fn(RunnerNeighbours) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Option<Result<T, Trouble>>>,
    {
        let mut known = self.known.clone();
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            let neighbours = known.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            let Some(neighbours) = neighbours else { return Err("the agent is ending".into()) };
            known.mark_unchanged();
            let trouble = match once(neighbours).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(trouble)) => trouble,
                None => Trouble::away(who),
            };
            tries += 1;
            if patience == Patience::Short && (!trouble.away || tries >= SHORT_TRIES) {
                return Err(trouble.text);
            }
            tracing::warn!(error = %trouble.text, tries, "a run's record could not be written, trying again");
            if trouble.away {
                // A fresh neighbour is worth a try at once.
                let _ = timeout(wait, known.changed()).await;
            } else {
                sleep(wait).await;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
