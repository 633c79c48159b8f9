//! What the store keeps, as JSON for people: the configuration decoded, secrets masked unless they
//! are asked for.

use crate::model::{Dek, MessageKind, RunPhase, RunRecord};
use crate::store::Recovered;
use crate::wire::v1;
use data_encoding::BASE64;
use prost::Message;
use serde_json::{Value, json};

/// Shown in place of a secret.
const MASK: &str = "***";

/// References to secrets are no secrets themselves (behaviour section 1).
const REFERENCES: [&str; 3] = ["env:", "file:", "credential:"];

/// Everything that was recovered.
pub fn dump(recovered: &Recovered, allow_secrets: bool) -> Value {
    let Recovered { next_seq, config, session_id, runs, outbox, dropped } = recovered;
    let by_kind = outbox.by_kind.iter().map(
        |(kind, messages, bytes)| json!({ "kind": kind_name(*kind), "messages": messages, "bytes": bytes }),
    );
    json!({
        "next_seq": next_seq,
        "session_id": session_id,
        "config": config.as_ref().map(|(version, encoded)| {
            match v1::AgentConfig::decode(encoded.as_ref()) {
                Ok(config) => agent_config(*version, &config, allow_secrets),
                Err(error) => json!({ "version": version, "error": format!("does not decode: {error}") }),
            }
        }),
        "runs": runs.iter().map(|record| run(record, allow_secrets)).collect::<Vec<_>>(),
        "outbox": {
            "messages": outbox.depth(),
            "bytes": outbox.bytes(),
            "first_seq": outbox.first_seq,
            "last_seq": outbox.last_seq,
            "by_kind": by_kind.collect::<Vec<_>>(),
            "dropped_untold": { "log": dropped.logs, "health_result": dropped.health_results },
        },
    })
}

fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Run => "run",
        MessageKind::HealthResult => "health_result",
        MessageKind::Log => "log",
    }
}

fn run(record: &RunRecord, allow_secrets: bool) -> Value {
    let RunRecord { order, accepted_at_ms, phase } = record;
    json!({
        "run_id": order.run_id,
        "job_id": order.job_id,
        "manual": order.manual,
        "put_url": url(order.put_url.expose(), allow_secrets),
        "expires_at_ms": order.expires_at_ms,
        "s3_key": order.s3_key,
        "encrypted_dek": dek(&order.dek, allow_secrets),
        "accepted_at_ms": accepted_at_ms,
        "phase": phase_of(phase),
    })
}

fn phase_of(phase: &RunPhase) -> Value {
    // A phase holds no secret: its errors are scrubbed where they are made.
    serde_json::to_value(phase).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// A presigned URL carries its authorisation in the query.
fn url(url: &str, allow_secrets: bool) -> String {
    if allow_secrets {
        return url.to_owned();
    }
    let (place, query) = url.split_once('?').map_or((url, ""), |(place, _)| (place, "?***"));
    match place.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://{MASK}@{host}{query}"),
        None => format!("{place}{query}"),
    }
}

fn dek(dek: &Dek, allow_secrets: bool) -> String {
    if allow_secrets {
        BASE64.encode(dek.as_received())
    } else {
        format!("{MASK} ({} bytes)", dek.as_received().len())
    }
}

fn agent_config(version: u64, config: &v1::AgentConfig, allow_secrets: bool) -> Value {
    json!({
        "version": version,
        "targets": config.targets.iter().map(|t| target(t, allow_secrets)).collect::<Vec<_>>(),
        "jobs": config.jobs.iter().map(job).collect::<Vec<_>>(),
        "health_checks": config.health_checks.iter().map(|check| health_check(check, allow_secrets)).collect::<Vec<_>>(),
        "maintenance": config.maintenance.as_ref().map(|window| json!({
            "start_utc": window.start_utc,
            "end_utc": window.end_utc,
        })),
        "advanced": config.advanced.as_ref().map(|advanced| json!({
            "max_parallel_jobs": advanced.max_parallel_jobs,
            "log_level": advanced.log_level,
            "auto_update_enabled": advanced.auto_update_enabled,
        })),
    })
}

fn target(target: &v1::Target, allow_secrets: bool) -> Value {
    json!({
        "id": target.id,
        "type": target.r#type().as_str_name(),
        "display_name": target.display_name,
        "connection": target.connection.as_ref().map(|connection| json!({
            "host": host(&connection.host, allow_secrets),
            "port": connection.port,
            "database": connection.database,
            "username": connection.username,
            "password_secret_ref": password(&connection.password_secret_ref, allow_secrets),
            "container_id": connection.container_id,
            "strategy": connection.strategy().as_str_name(),
        })),
    })
}

/// A connection string may hold secrets, also one that no run takes.
fn host(host: &str, allow_secrets: bool) -> String {
    let Some((scheme, rest)) = host.split_once("://").filter(|_| !allow_secrets) else {
        return host.to_owned();
    };
    let place = rest.split('?').next().unwrap_or_default();
    format!("{scheme}://{}", place.rsplit('@').next().unwrap_or_default())
}

fn password(reference: &str, allow_secrets: bool) -> &str {
    let shown = allow_secrets
        || reference.is_empty()
        || REFERENCES.iter().any(|scheme| reference.starts_with(scheme));
    if shown { reference } else { MASK }
}

fn job(job: &v1::BackupJobSpec) -> Value {
    json!({
        "id": job.id,
        "target_id": job.target_id,
        "cron": job.cron,
        "retention_days": job.retention_days,
        "compression": job.compression,
        "encryption_enabled": job.encryption_enabled,
        "pre_hooks": job.pre_hooks,
        "post_hooks": job.post_hooks,
        "retry": job.retry.as_ref().map(|retry| json!({
            "max_attempts": retry.max_attempts,
            "backoff_seconds": retry.backoff_seconds,
        })),
        "timeout_sec": job.timeout_sec,
    })
}

fn health_check(check: &v1::HealthCheckSpec, allow_secrets: bool) -> Value {
    json!({
        "id": check.id,
        "name": check.name,
        "type": check.r#type().as_str_name(),
        "target": url(&check.target, allow_secrets),
        "interval_sec": check.interval_sec,
        "timeout_sec": check.timeout_sec,
        "expected_status": check.expected_status,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{RunOrder, RunOutcome};
    use crate::store::OutboxTotals;

    /// A state with a secret in every place that can hold one.
    pub(crate) fn full_of_secrets() -> Recovered {
        let target = |id: &str, password: &str| v1::Target {
            id: id.into(),
            r#type: v1::DbType::Postgresql.into(),
            connection: Some(v1::ConnectionConfig {
                host: "db".into(),
                password_secret_ref: password.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = v1::AgentConfig {
            version: 7,
            targets: vec![
                target("t-1", "hunter2-literal"),
                target("t-2", "env:PG_PASSWORD"),
                target("t-3", "literal:hunter2"),
            ],
            jobs: vec![v1::BackupJobSpec { id: "j-1".into(), target_id: "t-1".into(), ..Default::default() }],
            health_checks: vec![v1::HealthCheckSpec {
                target: "https://me:hunter2@host/x?token=hunter2".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        Recovered {
            next_seq: 100,
            config: Some((7, config.encode_to_vec().into())),
            session_id: Some("s-1".into()),
            runs: vec![RunRecord {
                order: RunOrder {
                    run_id: "r-1".into(),
                    job_id: "j-1".into(),
                    manual: false,
                    put_url: "https://s3/bucket/key?X-Amz-Signature=hunter2".into(),
                    expires_at_ms: 5,
                    multipart: None,
                    s3_key: "key".into(),
                    dek: b"hunter2-hunter2-hunter2-hunter2!".to_vec().into(),
                },
                accepted_at_ms: 3,
                phase: RunPhase::Finished { at_ms: 4, outcome: RunOutcome::Cancelled },
            }],
            outbox: OutboxTotals {
                by_kind: vec![(MessageKind::Run, 2, 300)],
                first_seq: Some(98),
                last_seq: Some(99),
            },
            ..Recovered::default()
        }
    }

    #[test]
    fn secrets_are_masked_and_the_rest_is_shown() {
        let shown = dump(&full_of_secrets(), false);
        let text = shown.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains(&BASE64.encode(b"hunter2-hunter2")[..12]),
            "{text}"
        );
        assert_eq!(shown["config"]["version"], 7);
        assert_eq!(shown["config"]["targets"][0]["type"], "POSTGRESQL");
        assert_eq!(shown["config"]["targets"][0]["connection"]["password_secret_ref"], MASK);
        assert_eq!(shown["config"]["targets"][1]["connection"]["password_secret_ref"], "env:PG_PASSWORD");
        assert_eq!(shown["config"]["health_checks"][0]["target"], "https://***@host/x?***");
        assert_eq!(shown["runs"][0]["put_url"], "https://s3/bucket/key?***");
        assert_eq!(shown["runs"][0]["encrypted_dek"], "*** (32 bytes)");
        assert_eq!(shown["runs"][0]["phase"]["finished"]["outcome"], "cancelled");
        assert_eq!(shown["outbox"]["messages"], 2);
        assert_eq!(shown["outbox"]["by_kind"][0]["kind"], "run");
    }

    #[test]
    fn whoever_asks_for_the_secrets_gets_them() {
        let shown = dump(&full_of_secrets(), true);
        assert_eq!(shown["config"]["targets"][0]["connection"]["password_secret_ref"], "hunter2-literal");
        assert_eq!(shown["runs"][0]["put_url"], "https://s3/bucket/key?X-Amz-Signature=hunter2");
        assert_eq!(shown["runs"][0]["encrypted_dek"], BASE64.encode(b"hunter2-hunter2-hunter2-hunter2!"));
    }

    #[test]
    fn an_empty_state_and_a_damaged_configuration_are_shown_as_such() {
        assert_eq!(dump(&Recovered::default(), false)["config"], Value::Null);
        let damaged = Recovered { config: Some((3, vec![0xff].into())), ..Default::default() };
        let shown = dump(&damaged, false);
        assert!(shown["config"]["error"].as_str().unwrap().contains("does not decode"));
    }
}
