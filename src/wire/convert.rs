//! The wire's messages as the domain's types, and back. Nothing here fails as a whole: what the
//! control plane got wrong in one target must not take the backups of the others away.

use super::convert_health::health_checks;
use super::names::{distinct, shown};
use super::v1::{self, JobStatus};
use super::{Payload, v1::BackupJobSpec};
use crate::model::{
    Compression, Connection, Engine, EventLevel, JobId, JobSpec, MaintenanceWindow, Multipart, Plan,
    RunEvent, RunId, RunOrder, RunOutcome, Secret, Step, Strategy, TargetId, TargetSpec, unix_ms,
};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub use super::convert_health::health_result;

/// A configuration as the domain sees it, and what of it could not be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translated {
    /// Everything that could be used.
    pub plan: Plan,
    /// What was left out or not understood, one line each, for people. Free of secrets.
    pub remarks: Vec<String>,
    /// The one of them about the maintenance window: no run fails by it, so nothing else would tell the server.
    pub window_fault: Option<String>,
}

/// What `AgentConfig` asks, part by part (protocol section 3). It can be megabytes: its text is taken over, not copied.
pub fn plan(config: v1::AgentConfig) -> Translated {
    let mut remarks = Vec::new();
    let targets = distinct("target", config.targets, |target| &target.id, &mut remarks)
        .into_iter()
        .filter_map(|spec| target(spec, &mut remarks))
        .collect::<Vec<_>>();
    let known: HashSet<&TargetId> = targets.iter().map(|target| &target.id).collect();
    let jobs = distinct("job", config.jobs, |job| &job.id, &mut remarks)
        .into_iter()
        .map(|spec| job(spec, &known, &mut remarks))
        .collect();
    let health_checks = health_checks(config.health_checks, &mut remarks);
    let max_parallel_jobs = config.advanced.as_ref().map_or(0, |advanced| advanced.max_parallel_jobs);
    let (maintenance, window_fault) = match config.maintenance.as_ref().map(maintenance) {
        None => (None, None),
        Some(Ok(window)) => (window, None),
        Some(Err(fault)) => (None, Some(fault)),
    };
    remarks.extend(window_fault.clone());
    let plan = Plan {
        version: config.version,
        targets,
        jobs,
        health_checks,
        maintenance,
        max_parallel_jobs: usize::try_from(max_parallel_jobs).unwrap_or(usize::MAX).max(1),
    };
    Translated { plan, remarks, window_fault }
}

/// A target; None where using it could mean backing up something else than was meant.
fn target(spec: v1::Target, remarks: &mut Vec<String>) -> Option<TargetSpec> {
    let id = shown(&spec.id);
    let given = spec.connection.unwrap_or_default();
    let Ok(port) = u16::try_from(given.port) else {
        remarks.push(format!("target \"{id}\" has the impossible port {} and was left out", given.port));
        return None;
    };
    let Ok(strategy) = v1::ConnectionStrategy::try_from(given.strategy) else {
        remarks.push(format!(
            "target \"{id}\" asks for connection strategy {}, which this version does not know, and was left out",
            given.strategy
        ));
        return None;
    };
    let engine = v1::DbType::try_from(spec.r#type).ok().and_then(engine);
    if engine.is_none() {
        remarks.push(format!(
            "target \"{id}\" has database type {}, which this version does not know: its runs will fail",
            spec.r#type
        ));
    }
    Some(TargetSpec {
        id: TargetId::from(spec.id),
        engine,
        display_name: spec.display_name,
        connection: Connection {
            host: given.host,
            port,
            database: given.database,
            username: given.username,
            password_ref: given.password_secret_ref.into(),
            container_id: given.container_id,
            strategy: match strategy {
                v1::ConnectionStrategy::Tcp => Strategy::Tcp,
                v1::ConnectionStrategy::DockerExec => Strategy::DockerExec,
                v1::ConnectionStrategy::UnixSocket => Strategy::UnixSocket,
            },
        },
    })
}

fn engine(kind: v1::DbType) -> Option<Engine> {
    match kind {
        v1::DbType::DbUnspecified => None,
        v1::DbType::Postgresql => Some(Engine::Postgresql),
        v1::DbType::Mysql => Some(Engine::Mysql),
        v1::DbType::Mariadb => Some(Engine::Mariadb),
        v1::DbType::Mongodb => Some(Engine::Mongodb),
        v1::DbType::Redis => Some(Engine::Redis),
        v1::DbType::Sqlite => Some(Engine::Sqlite),
    }
}

/// A job. It stays even where its runs must fail: the failure then says why, and "unknown job" would not.
fn job(spec: BackupJobSpec, targets: &HashSet<&TargetId>, remarks: &mut Vec<String>) -> JobSpec {
    let id = shown(&spec.id);
    let target_id = TargetId::from(spec.target_id);
    if !targets.contains(&target_id) {
        remarks.push(format!(
            "job \"{id}\" backs up target \"{}\", which this configuration does not have: its runs will fail",
            shown(target_id.as_str())
        ));
    }
    let compression = compression(&spec.compression);
    if compression.is_none() {
        remarks.push(format!(
            "job \"{id}\" asks for compression \"{}\", which this version does not know (zstd, gzip, none): its runs will fail",
            shown(&spec.compression)
        ));
    }
    JobSpec {
        id: JobId::from(spec.id),
        target_id,
        compression,
        pre_hooks: spec.pre_hooks,
        post_hooks: spec.post_hooks,
        timeout: (spec.timeout_sec > 0).then(|| Duration::from_secs(spec.timeout_sec.into())),
    }
}

/// The algorithm of that name; empty means zstd.
pub fn compression(name: &str) -> Option<Compression> {
    match name {
        "" | "zstd" => Some(Compression::Zstd),
        "gzip" => Some(Compression::Gzip),
        "none" => Some(Compression::None),
        _ => None,
    }
}

/// A window; an absent one and one without times are the same. One that cannot be read holds nothing: a backup at a
/// wrong time is better than none.
fn maintenance(window: &v1::MaintenanceWindow) -> Result<Option<MaintenanceWindow>, String> {
    if window.start_utc.is_empty() && window.end_utc.is_empty() {
        return Ok(None);
    }
    match (minute_of_day(&window.start_utc), minute_of_day(&window.end_utc)) {
        (Some(start_min), Some(end_min)) => Ok(Some(MaintenanceWindow { start_min, end_min })),
        (None, Some(_)) | (Some(_), None) | (None, None) => Err(format!(
            "the maintenance window \"{}\" to \"{}\" is not two times like 02:00 and holds nothing",
            shown(&window.start_utc),
            shown(&window.end_utc)
        )),
    }
}

/// `HH:MM` as minutes since midnight.
fn minute_of_day(text: &str) -> Option<u16> {
    let number = |part: &str| -> Option<u16> {
        let plain = matches!(part.len(), 1 | 2) && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|_| minutes.len() == 2)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// Why a `RunBackup` cannot be taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOrder {
    /// A run is known by its run_id.
    #[error("RunBackup has no run_id")]
    NoRunId,
    /// A run belongs to a job.
    #[error("RunBackup has no job_id")]
    NoJobId,
}

/// What `RunBackup` asks. Whether it has a URL is for the Runner to look at: an order of a run that is known needs none.
///
/// # Errors
/// [`BadOrder`]
pub fn run_order(message: v1::RunBackup) -> Result<RunOrder, BadOrder> {
    if message.run_id.is_empty() {
        return Err(BadOrder::NoRunId);
    }
    if message.job_id.is_empty() {
        return Err(BadOrder::NoJobId);
    }
    let mut creds = message.upload_creds.unwrap_or_default();
    Ok(RunOrder {
        run_id: RunId::from(message.run_id),
        job_id: JobId::from(message.job_id),
        manual: message.manual_trigger,
        multipart: multipart(&mut creds),
        put_url: creds.presigned_put_url.into(),
        expires_at_ms: creds.expires_at_ms,
        s3_key: creds.final_s3_key,
        dek: message.encrypted_dek.into(),
    })
}

/// Without a URL to complete it there is none: the single PUT is used.
fn multipart(creds: &mut v1::S3UploadCreds) -> Option<Multipart> {
    if creds.presigned_complete_url.is_empty() {
        return None;
    }
    Some(Multipart {
        part_size_bytes: creds.part_size_bytes,
        part_urls: std::mem::take(&mut creds.presigned_part_urls).into_iter().map(Secret::from).collect(),
        first_part: creds.first_part_number.max(1),
        complete_url: std::mem::take(&mut creds.presigned_complete_url).into(),
        abort_url: std::mem::take(&mut creds.presigned_abort_url).into(),
        upload_id: std::mem::take(&mut creds.multipart_upload_id),
        head_url: std::mem::take(&mut creds.presigned_head_url).into(),
    })
}

/// A run needs URLs, from that part on (0 for a single PUT).
pub fn upload_urls_request(order: &RunOrder, first_part: u32, part_count: u32) -> Payload {
    Payload::UploadUrlsRequest(v1::UploadUrlsRequest {
        job_id: order.job_id.as_str().to_owned(),
        run_id: order.run_id.as_str().to_owned(),
        s3_key: order.s3_key.clone(),
        multipart_upload_id: order.multipart.as_ref().map(|m| m.upload_id.clone()).unwrap_or_default(),
        first_part_number: first_part,
        part_count,
    })
}

/// How a run is told to the server once it is over (protocol section 4, rule 7).
pub fn run_result(order: &RunOrder, outcome: &RunOutcome) -> Payload {
    match outcome {
        RunOutcome::Completed(completed) => Payload::BackupCompleted(v1::BackupCompleted {
            job_id: order.job_id.as_str().to_owned(),
            run_id: order.run_id.as_str().to_owned(),
            s3_key: order.s3_key.clone(),
            size_bytes: completed.size_bytes,
            sha256: completed.sha256.clone(),
            duration_ms: completed.duration_ms,
            // No key provider of the agent's own: the server's key is what was used.
            dek_kms_id: String::new(),
            encrypted_dek: order.dek.as_received().to_vec(),
            compression: completed.compression.name().to_owned(),
            db_engine_version: completed.engine_version.clone(),
        }),
        RunOutcome::Failed { error } => Payload::JobUpdate(v1::JobUpdate {
            error_message: error.clone(),
            ..job_update(order, JobStatus::Failed)
        }),
        RunOutcome::Cancelled => Payload::JobUpdate(job_update(order, JobStatus::Cancelled)),
    }
}

/// How far a run is.
pub fn run_progress(order: &RunOrder, step: Step, progress_percent: u8) -> Payload {
    Payload::JobUpdate(v1::JobUpdate {
        progress_percent: progress_percent.min(100).into(),
        current_step: step.name().to_owned(),
        ..job_update(order, JobStatus::Running)
    })
}

/// What happened during a run: a LogEvent of its job, with the run among the fields.
pub fn run_log(order: &RunOrder, event: RunEvent) -> Payload {
    let level = match event.level {
        EventLevel::Info => v1::LogLevel::Info,
        EventLevel::Warn => v1::LogLevel::Warn,
    };
    let mut fields: HashMap<String, String> =
        event.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    fields.insert("run_id".to_owned(), order.run_id.as_str().to_owned());
    Payload::Log(v1::LogEvent {
        ts_ms: event.ts_ms,
        level: level.into(),
        job_id: order.job_id.as_str().to_owned(),
        message: event.message,
        fields,
    })
}

/// A configuration is not used as it was meant: a LogEvent of no job.
pub fn config_warning(version: u64, message: String) -> Payload {
    Payload::Log(v1::LogEvent {
        ts_ms: unix_ms(),
        level: v1::LogLevel::Warn.into(),
        message,
        fields: HashMap::from([("config_version".to_owned(), version.to_string())]),
        ..v1::LogEvent::default()
    })
}

/// A run that was not taken on, where no Ack may say so.
pub fn run_refused(job_id: String, run_id: String, reason: String) -> Payload {
    Payload::JobUpdate(v1::JobUpdate {
        job_id,
        run_id,
        status: JobStatus::Failed.into(),
        error_message: reason,
        ..v1::JobUpdate::default()
    })
}

/// A run waits for its turn.
pub fn run_queued(order: &RunOrder) -> Payload {
    Payload::JobUpdate(job_update(order, JobStatus::Queued))
}

fn job_update(order: &RunOrder, status: JobStatus) -> v1::JobUpdate {
    v1::JobUpdate {
        job_id: order.job_id.as_str().to_owned(),
        run_id: order.run_id.as_str().to_owned(),
        status: status.into(),
        ..v1::JobUpdate::default()
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
