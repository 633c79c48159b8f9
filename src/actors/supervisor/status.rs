//! Everything that can be observed, put together from what the children answer in time.

use super::factory::Neighbourhood;
use crate::actors::messages::{GetConfigVersion, GetHealth, GetQueueStatus, GetRuns, GetStoreStatus};
use crate::model::{AgentStatus, HealthStatus, QueueStatus, RunStatus, StoreStatus};
use actix::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// A child that answers later than this is shown as it was: `status` must answer above all when
/// something is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What the children said last.
#[derive(Debug, Clone, Default)]
pub(super) struct LastAnswers {
    queue: QueueStatus,
    store: StoreStatus,
    runs: Vec<RunStatus>,
    health: HealthStatus,
    config_version: u64,
}

/// Fills in what only the children know.
pub(super) async fn fill_in(
    mut status: AgentStatus,
    doors: Option<Neighbourhood>,
    last: Rc<RefCell<LastAnswers>>,
) -> AgentStatus {
    if let Some(doors) = doors {
        let (queue, store, runs, health, version) = futures_util::future::join5(
            ask(&doors.queue.status, GetQueueStatus),
            ask(&doors.store.status, GetStoreStatus),
            ask(&doors.runner.runs, GetRuns),
            ask(&doors.health.status, GetHealth),
            ask(&doors.dispatcher.version, GetConfigVersion),
        )
        .await;
        let mut last = last.borrow_mut();
        last.queue = queue.unwrap_or_else(|| last.queue.clone());
        last.store = store.unwrap_or_else(|| last.store.clone());
        last.runs = runs.unwrap_or_else(|| last.runs.clone());
        last.health = health.unwrap_or_else(|| last.health.clone());
        last.config_version = version.unwrap_or(last.config_version);
    }
    let LastAnswers { queue, store, runs, health, config_version } = last.borrow().clone();
    status.queue = queue;
    status.store = store;
    status.runs = runs;
    status.health = health;
    status.config_version = config_version;
    status
}

async fn ask<M>(child: &Recipient<M>, question: M) -> Option<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    timeout(ANSWER_LIMIT, child.send(question)).await.ok()?.ok()
}
