//! What each command means (protocol section 4).

use super::cancels::{self, Cancelling, RUNNER_SILENT};
use super::neighbours::{DispatcherNeighbours, Neighbours, Silent};
use crate::actors::messages::{
    CancelRun, Command, Commit, Configured, Recover, Refusal, RunCheck, ServerCommand, StartRun,
};
use crate::model::{CheckId, JobId, Plan};
use crate::store::Change;
use crate::wire::{convert, v1};
use actix::prelude::*;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Faults of one configuration that are told one by one: a server that is confused, or hostile, must not
/// fill the journal.
const LOUD_REMARKS: usize = 50;

/// Between two attempts to store a configuration on a disk that did not take it.
const UNSTORED_RETRY: Duration = Duration::from_secs(10);

/// What is asked of a neighbour that is not there is refused so: the server may try again.
const HEALTH_SILENT: &str = "the agent's health checks are restarting: send it again";
const STORE_SILENT: &str = "the agent's state store is restarting: send it again";

/// The configuration that holds.
#[derive(Default)]
struct Applied {
    /// None before the first one.
    plan: Option<Arc<Plan>>,
    /// Who has been told it already.
    told: Vec<Recipient<Configured>>,
}

impl Applied {
    /// Tells the plan to every listener that does not have it yet: after a change all of them, after
    /// a restart the fresh one.
    fn tell(&mut self, neighbours: &DispatcherNeighbours) {
        let Some(plan) = &self.plan else { return };
        for listener in &neighbours.listeners {
            if !self.told.contains(listener) {
                listener.do_send(Configured(Arc::clone(plan)));
            }
        }
        self.told.clone_from(&neighbours.listeners);
    }
}

/// Works off commands, one at a time.
pub(super) struct Worker {
    neighbours: Neighbours,
    version: watch::Sender<Option<u64>>,
    applied: Applied,
    cancels: mpsc::Sender<Cancelling>,
    /// A configuration that the disk did not take, and when it is offered again. The server has heard
    /// that it was refused, and may not send it again before the next connection.
    unstored: Option<(u64, Bytes, Instant)>,
}

impl Worker {
    pub(super) fn new(
        neighbours: Neighbours,
        version: watch::Sender<Option<u64>>,
        cancels: mpsc::Sender<Cancelling>,
    ) -> Self {
        Self { neighbours, version, applied: Applied::default(), cancels, unstored: None }
    }

    /// Takes up the configuration of the earlier life. Until then no command is looked at: an older
    /// one must not be taken for new.
    ///
    /// # Errors
    /// Why the state could not be read.
    pub(super) async fn recover(&mut self) -> Result<(), String> {
        let recovered = match self.ask(|n| &n.recover, Recover).await {
            Ok(Ok(recovered)) => recovered,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(Silent) => return Err("the state store does not answer".to_owned()),
        };
        if let Some((version, bytes)) = recovered.config {
            // The server heard of its faults when it sent it.
            let _ = self.apply_stored(version, bytes).await;
        }
        self.version.send_replace(Some(self.applied_version()));
        Ok(())
    }

    /// Works one command off and answers it, where an answer is wanted.
    pub(super) async fn take_on(&mut self, ServerCommand { correlation_id, command }: ServerCommand) {
        let answer = match command {
            Command::Configure(config) => self.configure(config).await,
            Command::RunBackup(message) => {
                let (job_id, run_id) = (message.job_id.clone(), message.run_id.clone());
                let answer = self.run_backup(message).await;
                if let Err(refusal) = &answer
                    && correlation_id.is_empty()
                    && refusal.fails_run()
                    && !run_id.is_empty()
                {
                    // Without an Ack nobody would hear that the run does not begin.
                    let failed = convert::run_refused(job_id, run_id, refusal.to_string());
                    self.neighbours.say(failed, String::new()).await;
                }
                answer
            }
            Command::CancelJob(message) => return self.cancel_job(correlation_id, message).await,
            Command::RunHealthCheck(message) => self.run_health_check(message).await,
            Command::SelfUpdate(message) => {
                tracing::warn!(target_version = message.target_version, "self-update refused: not supported");
                Err(Refusal::Other("self-update is not supported by this version".to_owned()))
            }
        };
        self.answer(correlation_id, answer).await;
    }

    async fn answer(&mut self, correlation_id: String, answer: Result<(), Refusal>) {
        if !correlation_id.is_empty() {
            self.neighbours.ack(correlation_id, answer).await;
        }
    }

    fn applied_version(&self) -> u64 {
        self.applied.plan.as_ref().map_or(0, |plan| plan.version)
    }

    /// Rule 2: a lower version is ignored, an equal one changes nothing.
    async fn configure(&mut self, config: v1::AgentConfig) -> Result<(), Refusal> {
        let version = config.version;
        self.unstored = None;
        if let Some(applied) = self.applied.plan.as_ref().map(|plan| plan.version) {
            if version < applied {
                tracing::warn!(version, applied, "configuration ignored: older than the applied one");
                return Err(Refusal::Other(format!("version {version} is older than the applied {applied}")));
            }
            if version == applied {
                tracing::debug!(version, "configuration is applied already");
                return Ok(());
            }
        }
        // While megabytes of it are on their way to the disk they are not held decoded as well.
        let encoded = Bytes::from(config.encode_to_vec());
        drop(config);
        self.store_and_apply(version, encoded).await
    }

    async fn store_and_apply(&mut self, version: u64, encoded: Bytes) -> Result<(), Refusal> {
        let change = Change::PutConfig { version, config: encoded.clone() };
        match self.ask(|n| &n.commit, Commit(vec![change])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(version, %error, "configuration not applied: it could not be stored");
                self.unstored = Some((version, encoded, Instant::now() + UNSTORED_RETRY));
                return Err(Refusal::NotStored(error.to_string()));
            }
            Err(Silent) => {
                tracing::warn!(version, "configuration not applied: the state store does not answer");
                return Err(Refusal::NotStored(STORE_SILENT.to_owned()));
            }
        }
        let window_fault = self.apply_stored(version, encoded).await;
        self.version.send_replace(Some(version));
        if let Some(fault) = window_fault {
            self.neighbours.say(convert::config_warning(version, fault), String::new()).await;
        }
        Ok(())
    }

    /// When a configuration that was not stored is to be offered again.
    pub(super) fn time_to_store(&self) -> Option<Instant> {
        self.unstored.as_ref().map(|(_, _, at)| *at)
    }

    /// Offers it again, unless the server has sent another one since.
    pub(super) async fn store_again(&mut self) {
        if let Some((version, encoded, _)) = self.unstored.take() {
            // Why it failed again has been logged, and so has that it did not.
            let _ = self.store_and_apply(version, encoded).await;
        }
    }

    /// Answers with what the server must hear of it.
    async fn apply_stored(&mut self, version: u64, encoded: Bytes) -> Option<String> {
        match v1::AgentConfig::decode(encoded) {
            Ok(config) => self.apply(config).await,
            Err(error) => {
                tracing::error!(
                    version, %error,
                    "the stored configuration does not decode: runs are refused until the control plane sends it again"
                );
                None
            }
        }
    }

    async fn apply(&mut self, config: v1::AgentConfig) -> Option<String> {
        let convert::Translated { plan, remarks, window_fault } = convert::plan(config);
        for remark in remarks.iter().take(LOUD_REMARKS) {
            tracing::warn!(version = plan.version, "configuration: {remark}");
        }
        if remarks.len() > LOUD_REMARKS {
            let more = remarks.len() - LOUD_REMARKS;
            tracing::warn!(
                version = plan.version,
                more,
                "configuration: further faults of this kind are not told"
            );
        }
        tracing::info!(
            version = plan.version,
            targets = plan.targets.len(),
            jobs = plan.jobs.len(),
            health_checks = plan.health_checks.len(),
            max_parallel_jobs = plan.max_parallel_jobs,
            "configuration applied"
        );
        self.applied = Applied { plan: Some(Arc::new(plan)), told: Vec::new() };
        self.meet().await;
        window_fault
    }

    /// Waits until neighbours were replaced, and tells the fresh ones.
    pub(super) async fn greet(&mut self) {
        self.neighbours.changed().await;
        self.meet().await;
    }

    /// The neighbours as they are now, every one of them told: a Runner that has just been replaced
    /// must know the jobs before it gets an order.
    async fn meet(&mut self) {
        if let Some(neighbours) = self.neighbours.now().await {
            self.applied.tell(&neighbours);
        }
    }

    async fn ask<M>(
        &mut self,
        pick: impl Fn(&DispatcherNeighbours) -> &Recipient<M>,
        message: M,
    ) -> Result<M::Result, Silent>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        let applied = &mut self.applied;
        self.neighbours.ask(|neighbours| applied.tell(neighbours), pick, message).await
    }

    async fn run_backup(&mut self, message: v1::RunBackup) -> Result<(), Refusal> {
        let order = convert::run_order(message).map_err(|error| Refusal::Other(error.to_string()))?;
        let (run_id, job_id) = (order.run_id.clone(), order.job_id.clone());
        let answer = match self.ask(|n| &n.start_run, StartRun(order)).await {
            Ok(answer) => answer,
            Err(Silent) => Err(Refusal::NobodyThere(RUNNER_SILENT)),
        };
        match &answer {
            Ok(()) => tracing::debug!(%run_id, %job_id, "run taken on"),
            Err(refusal) => tracing::warn!(%run_id, %job_id, %refusal, "run refused"),
        }
        answer
    }

    /// The Runner has it before anything that follows; its end is waited for beside.
    async fn cancel_job(&mut self, correlation_id: String, message: v1::CancelJob) {
        let job_id = JobId::from(message.job_id);
        let mut ended = match self.ask(|n| &n.cancel_run, CancelRun(job_id.clone())).await {
            Ok(ended) => ended,
            Err(Silent) => {
                return self.answer(correlation_id, Err(Refusal::NobodyThere(RUNNER_SILENT))).await;
            }
        };
        let ended = match ended.try_recv() {
            // A refusal is there at once, and keeps its place among the answers.
            Ok(answer) => {
                cancels::note(&job_id, &answer);
                return self.answer(correlation_id, answer).await;
            }
            Err(TryRecvError::Empty) => Some(ended),
            // That Runner is gone: its successor is asked.
            Err(TryRecvError::Closed) => None,
        };
        let neighbours = self.neighbours.clone();
        // Whoever takes them lives as long as this worker.
        let _ = self.cancels.send(Cancelling { neighbours, correlation_id, job_id, ended }).await;
    }

    async fn run_health_check(&mut self, message: v1::RunHealthCheck) -> Result<(), Refusal> {
        let check_id = CheckId::from(message.check_id);
        let answer = match self.ask(|n| &n.run_check, RunCheck(check_id.clone())).await {
            Ok(answer) => answer,
            Err(Silent) => Err(Refusal::Other(HEALTH_SILENT.to_owned())),
        };
        match &answer {
            Ok(()) => tracing::debug!(%check_id, "health check runs now"),
            Err(refusal) => tracing::warn!(%check_id, %refusal, "health check refused"),
        }
        answer
    }
}
