//! Every message of the contract with every field set, by the rule that tests/data/wire/make.py gives.

use backupy_agent::wire::v1;
use std::collections::HashMap;

/// Needs six bytes as a varint.
pub const U64: u64 = 1 << 40;
/// Needs two bytes as a varint.
const U32: u32 = 300;

fn t(text: &str) -> String {
    text.to_owned()
}

fn two(text: &str) -> Vec<String> {
    vec![format!("{text}[0]"), format!("{text}[1]")]
}

fn entry() -> HashMap<String, String> {
    HashMap::from([(t("key"), t("value"))])
}

pub fn register() -> v1::Register {
    v1::Register {
        agent_version: t("Register.agent_version"),
        hostname: t("Register.hostname"),
        os: t("Register.os"),
        arch: t("Register.arch"),
        docker_version: t("Register.docker_version"),
        capabilities: two("Register.capabilities"),
        last_known_config_version: U64 + 7,
    }
}

pub fn heartbeat() -> v1::Heartbeat {
    v1::Heartbeat {
        config_version: U64 + 1,
        metrics: Some(agent_metrics()),
        active_job_ids: two("Heartbeat.active_job_ids"),
    }
}

pub fn agent_metrics() -> v1::AgentMetrics {
    v1::AgentMetrics {
        cpu_percent: 1.5,
        mem_used_bytes: U64 + 2,
        mem_total_bytes: U64 + 3,
        disk_used_bytes: U64 + 4,
        disk_total_bytes: U64 + 5,
        queue_depth: U32 + 6,
    }
}

pub fn discovery_report() -> v1::DiscoveryReport {
    v1::DiscoveryReport { containers: vec![discovered_container(), v1::DiscoveredContainer::default()] }
}

pub fn discovered_container() -> v1::DiscoveredContainer {
    v1::DiscoveredContainer {
        container_id: t("DiscoveredContainer.container_id"),
        name: t("DiscoveredContainer.name"),
        image: t("DiscoveredContainer.image"),
        detected_db_type: t("DiscoveredContainer.detected_db_type"),
        networks: two("DiscoveredContainer.networks"),
        env_hints: entry(),
        ports: vec![port_binding(), v1::PortBinding::default()],
    }
}

pub fn port_binding() -> v1::PortBinding {
    v1::PortBinding { container_port: U32 + 1, host_port: U32 + 2, protocol: t("PortBinding.protocol") }
}

pub fn job_update() -> v1::JobUpdate {
    v1::JobUpdate {
        job_id: t("JobUpdate.job_id"),
        status: v1::JobStatus::Cancelled.into(),
        progress_percent: U32 + 3,
        current_step: t("JobUpdate.current_step"),
        error_message: t("JobUpdate.error_message"),
        run_id: t("JobUpdate.run_id"),
    }
}

pub fn backup_completed() -> v1::BackupCompleted {
    v1::BackupCompleted {
        job_id: t("BackupCompleted.job_id"),
        run_id: t("BackupCompleted.run_id"),
        s3_key: t("BackupCompleted.s3_key"),
        size_bytes: U64 + 4,
        sha256: t("BackupCompleted.sha256"),
        duration_ms: U64 + 6,
        dek_kms_id: t("BackupCompleted.dek_kms_id"),
        encrypted_dek: vec![8, 0xff, 0x00],
        compression: t("BackupCompleted.compression"),
        db_engine_version: t("BackupCompleted.db_engine_version"),
    }
}

pub fn health_check_result() -> v1::HealthCheckResult {
    v1::HealthCheckResult {
        check_id: t("HealthCheckResult.check_id"),
        ts_ms: U64 + 2,
        ok: true,
        latency_ms: U32 + 4,
        error: t("HealthCheckResult.error"),
        status_code: U32 + 6,
    }
}

pub fn log_event() -> v1::LogEvent {
    v1::LogEvent {
        ts_ms: U64 + 1,
        level: v1::LogLevel::Error.into(),
        job_id: t("LogEvent.job_id"),
        message: t("LogEvent.message"),
        fields: entry(),
    }
}

pub fn restore_update() -> v1::RestoreUpdate {
    v1::RestoreUpdate {
        restore_id: t("RestoreUpdate.restore_id"),
        status: v1::JobStatus::Cancelled.into(),
        progress_percent: U32 + 3,
        current_step: t("RestoreUpdate.current_step"),
        error_message: t("RestoreUpdate.error_message"),
    }
}

pub fn ack() -> v1::Ack {
    v1::Ack { correlation_id: t("Ack.correlation_id"), accepted: true, reason: t("Ack.reason") }
}

pub fn register_ack() -> v1::RegisterAck {
    v1::RegisterAck {
        session_id: t("RegisterAck.session_id"),
        config: Some(agent_config()),
        heartbeat_interval_sec: U32 + 3,
        server_time_iso: t("RegisterAck.server_time_iso"),
    }
}

pub fn agent_config() -> v1::AgentConfig {
    v1::AgentConfig {
        version: U64 + 1,
        targets: vec![target(), v1::Target::default()],
        jobs: vec![backup_job_spec(), v1::BackupJobSpec::default()],
        health_checks: vec![health_check_spec(), v1::HealthCheckSpec::default()],
        maintenance: Some(maintenance_window()),
        advanced: Some(advanced_settings()),
    }
}

pub fn target() -> v1::Target {
    v1::Target {
        id: t("Target.id"),
        r#type: v1::DbType::Sqlite.into(),
        display_name: t("Target.display_name"),
        connection: Some(connection_config()),
    }
}

pub fn connection_config() -> v1::ConnectionConfig {
    v1::ConnectionConfig {
        host: t("ConnectionConfig.host"),
        port: U32 + 2,
        database: t("ConnectionConfig.database"),
        username: t("ConnectionConfig.username"),
        password_secret_ref: t("ConnectionConfig.password_secret_ref"),
        container_id: t("ConnectionConfig.container_id"),
        strategy: v1::ConnectionStrategy::UnixSocket.into(),
    }
}

pub fn backup_job_spec() -> v1::BackupJobSpec {
    v1::BackupJobSpec {
        id: t("BackupJobSpec.id"),
        target_id: t("BackupJobSpec.target_id"),
        cron: t("BackupJobSpec.cron"),
        retention_days: U32 + 4,
        compression: t("BackupJobSpec.compression"),
        encryption_enabled: true,
        pre_hooks: two("BackupJobSpec.pre_hooks"),
        post_hooks: two("BackupJobSpec.post_hooks"),
        retry: Some(retry_policy()),
        timeout_sec: U32 + 10,
    }
}

pub fn retry_policy() -> v1::RetryPolicy {
    v1::RetryPolicy { max_attempts: U32 + 1, backoff_seconds: vec![U32 + 2, U32 + 3] }
}

pub fn health_check_spec() -> v1::HealthCheckSpec {
    v1::HealthCheckSpec {
        id: t("HealthCheckSpec.id"),
        name: t("HealthCheckSpec.name"),
        r#type: v1::CheckType::TcpCheck.into(),
        target: t("HealthCheckSpec.target"),
        interval_sec: U32 + 5,
        timeout_sec: U32 + 6,
        expected_status: U32 + 7,
    }
}

pub fn maintenance_window() -> v1::MaintenanceWindow {
    v1::MaintenanceWindow {
        start_utc: t("MaintenanceWindow.start_utc"),
        end_utc: t("MaintenanceWindow.end_utc"),
    }
}

pub fn advanced_settings() -> v1::AdvancedSettings {
    v1::AdvancedSettings {
        max_parallel_jobs: U32 + 1,
        log_level: t("AdvancedSettings.log_level"),
        auto_update_enabled: true,
    }
}

pub fn config_update() -> v1::ConfigUpdate {
    v1::ConfigUpdate { config: Some(agent_config()) }
}

pub fn run_backup() -> v1::RunBackup {
    v1::RunBackup {
        job_id: t("RunBackup.job_id"),
        run_id: t("RunBackup.run_id"),
        manual_trigger: true,
        upload_creds: Some(s3_upload_creds()),
        encrypted_dek: vec![5, 0xff, 0x00],
    }
}

pub fn s3_upload_creds() -> v1::S3UploadCreds {
    v1::S3UploadCreds {
        part_size_bytes: U64 + 10,
        presigned_part_urls: vec![
            t("S3UploadCreds.presigned_part_urls[0]"),
            t("S3UploadCreds.presigned_part_urls[1]"),
        ],
        presigned_complete_url: t("S3UploadCreds.presigned_complete_url"),
        presigned_abort_url: t("S3UploadCreds.presigned_abort_url"),
        multipart_upload_id: t("S3UploadCreds.multipart_upload_id"),
        presigned_head_url: t("S3UploadCreds.presigned_head_url"),
        first_part_number: 315,
        ..deployed_upload_creds()
    }
}

/// As control planes without multipart uploads send it.
fn deployed_upload_creds() -> v1::S3UploadCreds {
    v1::S3UploadCreds {
        presigned_put_url: t("S3UploadCreds.presigned_put_url"),
        expires_at_ms: U64 + 2,
        final_s3_key: t("S3UploadCreds.final_s3_key"),
        ..v1::S3UploadCreds::default()
    }
}

/// As control planes without multipart uploads send it.
pub fn deployed_run_backup() -> v1::RunBackup {
    v1::RunBackup { upload_creds: Some(deployed_upload_creds()), ..run_backup() }
}

pub fn upload_urls_request() -> v1::UploadUrlsRequest {
    v1::UploadUrlsRequest {
        job_id: t("UploadUrlsRequest.job_id"),
        run_id: t("UploadUrlsRequest.run_id"),
        s3_key: t("UploadUrlsRequest.s3_key"),
        multipart_upload_id: t("UploadUrlsRequest.multipart_upload_id"),
        first_part_number: 305,
        part_count: 306,
    }
}

pub fn s3_download_creds() -> v1::S3DownloadCreds {
    v1::S3DownloadCreds {
        presigned_get_url: t("S3DownloadCreds.presigned_get_url"),
        expires_at_ms: U64 + 2,
        s3_key: t("S3DownloadCreds.s3_key"),
    }
}

pub fn cancel_job() -> v1::CancelJob {
    v1::CancelJob { job_id: t("CancelJob.job_id") }
}

pub fn run_health_check() -> v1::RunHealthCheck {
    v1::RunHealthCheck { check_id: t("RunHealthCheck.check_id") }
}

pub fn ping() -> v1::Ping {
    v1::Ping { ts_ms: U64 + 1 }
}

pub fn self_update() -> v1::SelfUpdate {
    v1::SelfUpdate {
        target_version: t("SelfUpdate.target_version"),
        binary_url: t("SelfUpdate.binary_url"),
        sha256: t("SelfUpdate.sha256"),
        cosign_signature: vec![4, 0xff, 0x00],
        force: true,
    }
}
