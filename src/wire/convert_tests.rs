use super::*;
use crate::model::{Completed, Dek};

fn target(id: &str) -> v1::Target {
    v1::Target {
        id: id.into(),
        r#type: v1::DbType::Sqlite.into(),
        display_name: "orders".into(),
        connection: Some(v1::ConnectionConfig {
            database: "/srv/orders.db".into(),
            password_secret_ref: "hunter2".into(),
            ..Default::default()
        }),
    }
}

fn job(id: &str, target_id: &str) -> BackupJobSpec {
    BackupJobSpec { id: id.into(), target_id: target_id.into(), ..Default::default() }
}

fn order() -> RunOrder {
    run_order(v1::RunBackup {
        job_id: "nightly".into(),
        run_id: "r1".into(),
        manual_trigger: true,
        upload_creds: Some(v1::S3UploadCreds {
            presigned_put_url: "https://store/o?X-Amz-Signature=s".into(),
            expires_at_ms: 7,
            final_s3_key: "a/b".into(),
            ..Default::default()
        }),
        encrypted_dek: vec![9; 48],
    })
    .unwrap()
}

#[test]
fn a_plain_configuration_translates_without_a_remark() {
    let config = v1::AgentConfig {
        version: 3,
        targets: vec![target("t")],
        jobs: vec![BackupJobSpec { timeout_sec: 90, compression: "gzip".into(), ..job("j", "t") }],
        maintenance: Some(v1::MaintenanceWindow { start_utc: "23:30".into(), end_utc: "02:00".into() }),
        advanced: Some(v1::AdvancedSettings { max_parallel_jobs: 4, ..Default::default() }),
        ..Default::default()
    };
    let Translated { plan, remarks, .. } = plan(config);
    assert_eq!(remarks, Vec::<String>::new());
    assert_eq!(plan.version, 3);
    assert_eq!(plan.max_parallel_jobs, 4);
    assert_eq!(plan.maintenance, Some(MaintenanceWindow { start_min: 1410, end_min: 120 }));
    let target = plan.target(&"t".into()).unwrap();
    assert_eq!(target.engine, Some(Engine::Sqlite));
    assert_eq!(target.connection.database, "/srv/orders.db");
    assert_eq!(target.connection.password_ref.expose(), "hunter2");
    let job = plan.job(&"j".into()).unwrap();
    assert_eq!(job.compression, Some(Compression::Gzip));
    assert_eq!(job.timeout, Some(Duration::from_secs(90)));
}

#[test]
fn an_empty_configuration_runs_one_at_a_time_and_has_no_window() {
    let Translated { plan, remarks, .. } = plan(v1::AgentConfig::default());
    assert_eq!((plan.max_parallel_jobs, plan.maintenance, remarks.len()), (1, None, 0));
}

#[test]
fn a_wrong_part_takes_nothing_else_away() {
    let mut wrong_port = target("port");
    wrong_port.connection.as_mut().unwrap().port = 70_000;
    let mut wrong_strategy = target("strategy");
    wrong_strategy.connection.as_mut().unwrap().strategy = 9;
    let config = v1::AgentConfig {
        targets: vec![
            target("good"),
            v1::Target { r#type: 99, ..target("newer") },
            wrong_port,
            wrong_strategy,
            target(""),
            v1::Target { display_name: "second".into(), ..target("good") },
        ],
        jobs: vec![
            job("good", "good"),
            job("lost", "nowhere"),
            BackupJobSpec { compression: "brotli".into(), ..job("brotli", "good") },
        ],
        maintenance: Some(v1::MaintenanceWindow { start_utc: "2 am".into(), end_utc: "04:00".into() }),
        ..Default::default()
    };
    let Translated { plan, remarks, .. } = plan(config);
    let targets: Vec<_> = plan.targets.iter().map(|t| (t.id.as_str(), t.engine)).collect();
    assert_eq!(targets, [("good", Some(Engine::Sqlite)), ("newer", None)]);
    assert_eq!(plan.targets[0].display_name, "orders");
    assert_eq!(plan.jobs.len(), 3);
    assert_eq!(plan.jobs[0].compression, Some(Compression::Zstd));
    assert_eq!(plan.jobs[2].compression, None);
    assert_eq!(plan.maintenance, None);
    let told = remarks.join("\n");
    for part in [
        "port 70000",
        "strategy 9",
        "type 99",
        "number 5 has no id",
        "twice",
        "\"nowhere\"",
        "\"brotli\"",
        "\"2 am\"",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(!told.contains("hunter2"));
}

#[test]
fn times_of_the_day_are_read_strictly() {
    for (text, minute) in [("00:00", Some(0)), ("2:05", Some(125)), ("23:59", Some(1439))] {
        assert_eq!(minute_of_day(text), minute, "{text}");
    }
    for text in ["", ":", "24:00", "12:60", "12:5", "+1:00", "12:00:00", "1200", "é:00", "-1:00"] {
        assert_eq!(minute_of_day(text), None, "{text}");
    }
}

#[test]
fn an_order_needs_a_run_and_a_job() {
    let whole = v1::RunBackup {
        job_id: "j".into(),
        run_id: "r".into(),
        upload_creds: Some(v1::S3UploadCreds { presigned_put_url: "u".into(), ..Default::default() }),
        ..Default::default()
    };
    assert!(run_order(whole.clone()).unwrap().has_upload_url());
    assert_eq!(run_order(v1::RunBackup { run_id: String::new(), ..whole.clone() }), Err(BadOrder::NoRunId));
    assert_eq!(run_order(v1::RunBackup { job_id: String::new(), ..whole.clone() }), Err(BadOrder::NoJobId));
    let empty_url = v1::RunBackup { upload_creds: Some(Default::default()), ..whole.clone() };
    assert!(!run_order(empty_url).unwrap().has_upload_url());
    assert!(!run_order(v1::RunBackup { upload_creds: None, ..whole }).unwrap().has_upload_url());
}

#[test]
fn a_good_run_is_reported_with_the_key_as_it_was_received() {
    let outcome = RunOutcome::Completed(Completed {
        size_bytes: 10,
        sha256: "ab".into(),
        duration_ms: 20,
        compression: Compression::None,
        engine_version: "SQLite 3.54.0".into(),
        manifest: None,
    });
    let Payload::BackupCompleted(message) = run_result(&order(), &outcome) else {
        panic!("not BackupCompleted")
    };
    assert_eq!(
        (message.job_id.as_str(), message.run_id.as_str(), message.s3_key.as_str()),
        ("nightly", "r1", "a/b")
    );
    assert_eq!(message.encrypted_dek, vec![9; 48]);
    assert_eq!((message.size_bytes, message.sha256.as_str(), message.duration_ms), (10, "ab", 20));
    assert_eq!((message.compression.as_str(), message.db_engine_version.as_str()), ("none", "SQLite 3.54.0"));
    assert_eq!(order().dek, Dek::from(vec![9; 48]));
}

#[test]
fn every_other_state_of_a_run_is_a_job_update() {
    let update = |payload| {
        let Payload::JobUpdate(update) = payload else { panic!("not a JobUpdate: {payload:?}") };
        (update.status(), update)
    };
    let (status, failed) = update(run_result(&order(), &RunOutcome::Failed { error: "no space".into() }));
    assert_eq!((status, failed.error_message.as_str()), (JobStatus::Failed, "no space"));
    assert_eq!((failed.job_id.as_str(), failed.run_id.as_str()), ("nightly", "r1"));
    assert_eq!(update(run_result(&order(), &RunOutcome::Cancelled)).0, JobStatus::Cancelled);
    assert_eq!(update(run_queued(&order())).0, JobStatus::Queued);
    let (status, running) = update(run_progress(&order(), Step::Uploading, 255));
    assert_eq!(
        (status, running.progress_percent, running.current_step.as_str()),
        (JobStatus::Running, 100, "uploading")
    );
}
