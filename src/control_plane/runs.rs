//! Runs: ordered, sent, followed, and held against what is really in the store.
//!
//! A run is sent until the agent says that it has it (an Ack, or any sign of work on it): after each
//! reconnect again, with a fresh upload URL and the same run_id, by which the agent recognises it
//! (protocol section 4, rule 5).

use super::error::{ApiError, Code};
use super::keys;
use super::offer::Window;
use super::plane::Plane;
use super::presign;
use super::records::{Run, RunStatus};
use super::state::{Event, State};
use crate::model::unix_ms;
use crate::wire::{Payload, v1};
use std::io;
use std::sync::Arc;

/// The `current_step` while the stored object is held against the report.
const VERIFYING: &str = "verifying";

/// What a caller wants to be run.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    /// The job.
    pub job_id: String,
    /// Only needed where several agents have a job of that name.
    pub agent_id: Option<String>,
    /// A person asks: the maintenance window does not hold it.
    pub manual: bool,
    /// The same key for the same job starts nothing new.
    pub idempotency_key: Option<String>,
}

impl Plane {
    /// Starts a run, or answers the one that the same request started before. Durable when it returns.
    pub async fn start_run(&self, request: RunRequest) -> Result<Run, ApiError> {
        let id = uuid()?;
        let sealed_dek = self.keys.new_dek(&id)?;
        let (run, new) = self
            .store
            .change(|change| {
                let agent_id = agent_of_job(change.state(), &request)?;
                let same = |run: &&Run| {
                    request.idempotency_key.is_some()
                        && run.idempotency_key == request.idempotency_key
                        && run.job_id == request.job_id
                        && run.agent_id == agent_id
                };
                if let Some(run) = change.state().runs.values().find(same) {
                    return Ok((run.clone(), false));
                }
                let run = Run {
                    s3_key: presign::object_name(&agent_id, &request.job_id, &id),
                    no: change.state().next_no,
                    job_id: request.job_id.clone(),
                    manual: request.manual,
                    created_at_ms: unix_ms(),
                    idempotency_key: request.idempotency_key.clone(),
                    agent_id,
                    id,
                    sealed_dek,
                    ..Run::default()
                };
                change.apply(Event::RunChanged { run: Box::new(run.clone()) });
                Ok::<_, ApiError>((run, true))
            })
            .await??;
        if new {
            tracing::info!(run_id = run.id, job_id = run.job_id, agent_id = run.agent_id, "run ordered");
            self.dispatch(&run.id, Window::START).await?;
        }
        self.run(&run.id)
    }

    /// The run of that id.
    pub fn run(&self, id: &str) -> Result<Run, ApiError> {
        self.store.read(|state| state.runs.get(id).cloned()).ok_or_else(|| ApiError::not_found("run", id))
    }

    /// Sends everything that a newly connected agent has not confirmed.
    pub async fn dispatch_open(&self, agent_id: &str) -> io::Result<()> {
        let open: Vec<_> = self.store.read(|state| {
            state.open_runs(agent_id).into_iter().filter(|run| !run.acked).map(|run| run.id.clone()).collect()
        });
        for run_id in open {
            self.dispatch(&run_id, Window::START).await?;
        }
        Ok(())
    }

    /// Sends a run again with fresh URLs, because its agent asked for them. A question about a run that is not the
    /// agent's, or is over, is not answered.
    pub async fn renew_urls(&self, agent_id: &str, request: &v1::UploadUrlsRequest) -> io::Result<()> {
        let run_id = &request.run_id;
        let uploads = self.store.read(|state| {
            state.runs.get(run_id).is_some_and(|run| {
                run.agent_id == agent_id
                    && run.job_id == request.job_id
                    && run.s3_key == request.s3_key
                    && run.result.is_none()
                    && !run.status.is_terminal()
            })
        });
        if !uploads {
            tracing::info!(agent_id, run_id, "upload URLs were asked for a run that is unknown or over");
            return Ok(());
        }
        self.dispatch(run_id, Window::of(request)).await
    }

    /// Sends a run with fresh upload URLs, if its agent is connected.
    async fn dispatch(&self, run_id: &str, window: Window) -> io::Result<()> {
        let Some(mut run) = self.store.read(|state| state.runs.get(run_id).cloned()) else { return Ok(()) };
        let Some(base) = self.hub.look(&run.agent_id, |link| link.base_url.clone()) else { return Ok(()) };
        let dek = self.keys.open_dek(&run.id, &run.sealed_dek)?;
        let expires_at_ms = unix_ms() + self.limits.url_lifetime_ms;
        run.upload = self.upload_for(&run, expires_at_ms, window)?;
        let upload = run.upload.clone();
        // Counted first: an agent's answer may be quicker than our own note. And claimed before it is made: what
        // nobody claims is removed.
        let noted = self.change_run(run_id, |run| {
            run.sent += 1;
            run.upload = upload;
        });
        noted.await?;
        if let Err(error) = self.begin_upload(&run).await {
            tracing::warn!(run_id, %error, "no upload in parts could be begun: the run is offered one PUT");
            run.upload = None;
        }
        let order = Payload::RunBackup(v1::RunBackup {
            job_id: run.job_id.clone(),
            run_id: run.id.clone(),
            manual_trigger: run.manual,
            upload_creds: Some(self.creds(&run, &base, expires_at_ms, window)),
            encrypted_dek: dek.as_received().to_vec(),
        });
        match self.hub.send(&run.agent_id, &run.id, order) {
            Ok(()) => tracing::info!(run_id, agent_id = run.agent_id, "run sent"),
            Err(super::hub::NotReached) => tracing::info!(run_id, "the run waits for its agent"),
        }
        Ok(())
    }

    async fn change_run(&self, run_id: &str, edit: impl FnOnce(&mut Run)) -> io::Result<()> {
        self.store
            .change(|change| {
                if let Some(mut run) = change.state().runs.get(run_id).cloned() {
                    edit(&mut run);
                    change.apply(Event::RunChanged { run: Box::new(run) });
                }
            })
            .await
    }

    /// Asks the agent to cancel what runs of a job; what was never sent is cancelled here. Answers the
    /// runs that this is about.
    pub async fn cancel(&self, request: &RunRequest) -> Result<Vec<Run>, ApiError> {
        let agent_id = self.store.read(|state| agent_of_job(state, request))?;
        let open: Vec<Run> = self.store.read(|state| {
            let of_job = |run: &&Run| run.job_id == request.job_id;
            state.open_runs(&agent_id).into_iter().filter(of_job).cloned().collect()
        });
        if open.is_empty() {
            let message = format!("no run of job {:?} is open", request.job_id);
            return Err(ApiError::new(Code::Conflict, message));
        }
        for run in open.iter().filter(|run| run.sent == 0) {
            self.change_run(&run.id, |run| finish(run, RunStatus::Cancelled, "")).await?;
        }
        if open.iter().any(|run| run.sent > 0) {
            let order = Payload::CancelJob(v1::CancelJob { job_id: request.job_id.clone() });
            let correlation_id = format!("cancel:{}", keys::random_hex::<8>()?);
            self.hub.send(&agent_id, &correlation_id, order).map_err(|_| {
                ApiError::new(Code::Conflict, "the agent is not connected: try again when it is")
            })?;
        }
        open.iter().map(|run| self.run(&run.id)).collect()
    }

    /// Holds a reported object against the store, and ends the run. Nothing happens to a run that has
    /// reported nothing or is over.
    pub async fn verify(self: Arc<Self>, run_id: String) {
        let Some(run) = self.store.read(|state| state.runs.get(&run_id).cloned()) else { return };
        let Some(result) = run.result.clone().filter(|_| !run.status.is_terminal()) else { return };
        let (objects, key) = (self.objects.clone(), run.s3_key.clone());
        let measured = actix_web::web::block(move || objects.measure(&key)).await;
        let verdict = match measured {
            Ok(Ok(stored)) if stored.bytes != result.size_bytes => Err(format!(
                "the stored object has {} bytes, the agent reported {}",
                stored.bytes, result.size_bytes
            )),
            Ok(Ok(stored)) if stored.sha256 != result.sha256.to_lowercase() => Err(format!(
                "the stored object's sha256 is {}, the agent reported {}",
                stored.sha256, result.sha256
            )),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err("the agent reported an object that is not in the store".to_owned())
            }
            Ok(Err(error)) => {
                tracing::error!(run_id, %error, "a stored object cannot be read: look at the disk, then restart");
                return;
            }
            // The worker is shutting down: the next start verifies.
            Err(_) => return,
        };
        let ended = self
            .change_run(&run_id, |run| match &verdict {
                Ok(()) => finish(run, RunStatus::Success, ""),
                Err(error) => finish(run, RunStatus::Failed, error),
            })
            .await;
        match (ended, verdict) {
            (Err(error), _) => tracing::error!(run_id, %error, "a verified run could not be noted"),
            (Ok(()), Ok(())) => {
                tracing::info!(run_id, bytes = result.size_bytes, "run succeeded, object verified")
            }
            (Ok(()), Err(error)) => tracing::error!(run_id, error, "run failed its verification"),
        }
        self.sweep_uploads().await;
    }

    /// Runs whose verification a restart interrupted.
    pub fn unverified(&self) -> Vec<String> {
        self.store.read(|state| {
            let reported = |run: &&Run| run.result.is_some() && !run.status.is_terminal();
            state.runs.values().filter(reported).map(|run| run.id.clone()).collect()
        })
    }
}

/// Which agent has the job.
fn agent_of_job(state: &State, request: &RunRequest) -> Result<String, ApiError> {
    let mut having = state.agents.values().filter(|agent| {
        request.agent_id.as_ref().is_none_or(|id| *id == agent.id)
            && agent.config.jobs.iter().any(|job| job.id == request.job_id)
    });
    let first = having.next().ok_or_else(|| ApiError::not_found("job", &request.job_id))?;
    if having.next().is_some() {
        let message = format!("several agents have a job {:?}: say which by agent_id", request.job_id);
        return Err(ApiError::new(Code::Conflict, message));
    }
    Ok(first.id.clone())
}

/// What an agent's Ack of its order does to a run. One that it has taken on is not ended by the refusal of an order
/// that came again, with fresh URLs.
pub fn acked(run: &mut Run, ack: &v1::Ack) {
    let taken_on = std::mem::replace(&mut run.acked, true);
    if !ack.accepted && !taken_on && !run.status.is_terminal() {
        finish(run, RunStatus::Failed, &format!("the agent refused the run: {}", ack.reason));
    }
}

/// What an agent's JobUpdate does to a run; a run that is over stays as it is.
pub fn updated(run: &mut Run, update: &v1::JobUpdate) {
    if run.status.is_terminal() {
        return;
    }
    run.acked = true;
    match update.status() {
        v1::JobStatus::Unspecified | v1::JobStatus::Queued => {}
        v1::JobStatus::Running | v1::JobStatus::Success => {
            run.status = RunStatus::Running;
            run.started_at_ms.get_or_insert_with(unix_ms);
            run.progress_percent = update.progress_percent.min(100);
            run.current_step.clone_from(&update.current_step);
        }
        v1::JobStatus::Failed => finish(run, RunStatus::Failed, &update.error_message),
        v1::JobStatus::Cancelled => finish(run, RunStatus::Cancelled, &update.error_message),
    }
}

/// What BackupCompleted does to a run: it is to be verified. False where the result was there already.
pub fn completed(run: &mut Run, report: &v1::BackupCompleted) -> bool {
    if run.status.is_terminal() || run.result.is_some() {
        return false;
    }
    run.acked = true;
    if report.s3_key != run.s3_key {
        let error = format!("the agent reported the object {:?} instead of {:?}", report.s3_key, run.s3_key);
        finish(run, RunStatus::Failed, &error);
        return true;
    }
    run.status = RunStatus::Running;
    run.started_at_ms.get_or_insert_with(unix_ms);
    run.progress_percent = 100;
    run.current_step = VERIFYING.into();
    run.result = Some(super::records::RunResult {
        size_bytes: report.size_bytes,
        sha256: report.sha256.clone(),
        duration_ms: report.duration_ms,
        compression: report.compression.clone(),
        db_engine_version: report.db_engine_version.clone(),
    });
    true
}

fn finish(run: &mut Run, status: RunStatus, error: &str) {
    run.status = status;
    run.error_message = error.to_owned();
    run.current_step.clear();
    run.finished_at_ms = Some(unix_ms());
}

/// A random UUID (RFC 9562, version 4).
pub fn uuid() -> io::Result<String> {
    let mut bytes = keys::random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}
