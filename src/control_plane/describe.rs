//! An agent's messages as JSON for people and tests. Keys stay out: a 32-byte `encrypted_dek` is the key
//! itself (protocol section 4, rule 8).

use crate::wire::Payload;
use crate::wire::v1::{self, JobStatus, LogLevel};
use serde_json::{Value, json};

/// A message that would be longer as JSON is kept as its length only.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Its kind and its fields; None for what only a server says.
pub fn describe(payload: &Payload) -> Option<(&'static str, Value)> {
    let (kind, body) = match payload {
        Payload::Register(register) => ("register", register_fields(register)),
        Payload::Heartbeat(heartbeat) => (
            "heartbeat",
            json!({
                "config_version": heartbeat.config_version,
                "active_job_ids": heartbeat.active_job_ids,
                "metrics": heartbeat.metrics.as_ref().map(metrics),
            }),
        ),
        Payload::Discovery(report) => ("discovery", discovered(report)),
        Payload::JobUpdate(update) => (
            "job_update",
            json!({
                "job_id": update.job_id, "run_id": update.run_id, "status": status_name(update.status()),
                "progress_percent": update.progress_percent, "current_step": update.current_step,
                "error_message": update.error_message,
            }),
        ),
        Payload::BackupCompleted(completed) => ("backup_completed", completed_fields(completed)),
        Payload::HealthResult(result) => (
            "health_result",
            json!({
                "check_id": result.check_id, "ts_ms": result.ts_ms, "ok": result.ok,
                "latency_ms": result.latency_ms, "error": result.error, "status_code": result.status_code,
            }),
        ),
        Payload::Log(log) => (
            "log",
            json!({
                "ts_ms": log.ts_ms, "level": level_name(log.level()), "job_id": log.job_id,
                "message": log.message, "fields": log.fields,
            }),
        ),
        Payload::RestoreUpdate(update) => (
            "restore_update",
            json!({
                "restore_id": update.restore_id, "status": status_name(update.status()),
                "progress_percent": update.progress_percent, "current_step": update.current_step,
                "error_message": update.error_message,
            }),
        ),
        Payload::UploadUrlsRequest(request) => (
            "upload_urls_request",
            json!({
                "job_id": request.job_id, "run_id": request.run_id, "s3_key": request.s3_key,
                "multipart_upload_id": request.multipart_upload_id,
                "first_part_number": request.first_part_number, "part_count": request.part_count,
            }),
        ),
        Payload::Ack(ack) => (
            "ack",
            json!({
                "correlation_id": ack.correlation_id, "accepted": ack.accepted, "reason": ack.reason,
            }),
        ),
        Payload::RegisterAck(_)
        | Payload::ConfigUpdate(_)
        | Payload::RunBackup(_)
        | Payload::CancelJob(_)
        | Payload::RunHealthCheck(_)
        | Payload::SelfUpdate(_)
        | Payload::Ping(_) => return None,
    };
    Some((kind, bounded(body)))
}

fn bounded(body: Value) -> Value {
    let bytes = body.to_string().len();
    if bytes > MAX_BODY_BYTES { json!({"truncated": true, "bytes": bytes}) } else { body }
}

fn register_fields(register: &v1::Register) -> Value {
    json!({
        "agent_version": register.agent_version, "hostname": register.hostname, "os": register.os,
        "arch": register.arch, "docker_version": register.docker_version,
        "capabilities": register.capabilities,
        "last_known_config_version": register.last_known_config_version,
    })
}

fn completed_fields(completed: &v1::BackupCompleted) -> Value {
    json!({
        "job_id": completed.job_id, "run_id": completed.run_id, "s3_key": completed.s3_key,
        "size_bytes": completed.size_bytes, "sha256": completed.sha256,
        "duration_ms": completed.duration_ms, "dek_kms_id": completed.dek_kms_id,
        "encrypted_dek_bytes": completed.encrypted_dek.len(), "compression": completed.compression,
        "db_engine_version": completed.db_engine_version,
    })
}

/// The host's figures of a heartbeat.
pub fn metrics(metrics: &v1::AgentMetrics) -> Value {
    json!({
        "cpu_percent": metrics.cpu_percent,
        "mem_used_bytes": metrics.mem_used_bytes, "mem_total_bytes": metrics.mem_total_bytes,
        "disk_used_bytes": metrics.disk_used_bytes, "disk_total_bytes": metrics.disk_total_bytes,
        "queue_depth": metrics.queue_depth,
    })
}

/// The containers of a discovery report.
pub fn discovered(report: &v1::DiscoveryReport) -> Value {
    let port = |port: &v1::PortBinding| {
        json!({
            "container_port": port.container_port, "host_port": port.host_port, "protocol": port.protocol,
        })
    };
    let containers = report.containers.iter().map(|container| {
        json!({
            "container_id": container.container_id, "name": container.name, "image": container.image,
            "detected_db_type": container.detected_db_type, "networks": container.networks,
            "env_hints": container.env_hints, "ports": container.ports.iter().map(port).collect::<Vec<_>>(),
        })
    });
    json!({"containers": containers.collect::<Vec<_>>()})
}

fn status_name(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Unspecified => "UNSPECIFIED",
        JobStatus::Queued => "QUEUED",
        JobStatus::Running => "RUNNING",
        JobStatus::Success => "SUCCESS",
        JobStatus::Failed => "FAILED",
        JobStatus::Cancelled => "CANCELLED",
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_key_is_never_shown() {
        let completed = v1::BackupCompleted { encrypted_dek: vec![0xab; 32], ..Default::default() };
        let (kind, body) = describe(&Payload::BackupCompleted(completed)).unwrap();
        assert_eq!((kind, &body["encrypted_dek_bytes"]), ("backup_completed", &json!(32)));
        assert!(!body.to_string().contains("171"));
    }

    #[test]
    fn an_endless_message_is_kept_as_its_length() {
        let log = v1::LogEvent { message: "x".repeat(MAX_BODY_BYTES), ..Default::default() };
        let (_, body) = describe(&Payload::Log(log)).unwrap();
        assert_eq!(body["truncated"], true);
    }

    #[test]
    fn a_servers_message_is_not_described() {
        assert_eq!(describe(&Payload::Ping(v1::Ping::default())), None);
    }
}
