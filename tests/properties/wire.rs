//! The wire, byte for byte: deployed agents and control planes speak exactly this.

use crate::wire_values as values;
use backupy_agent::wire::{Envelope, Payload, decode, encode, v1};
use prost::Message;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn envelope(payload: Option<Payload>) -> Envelope {
    Envelope {
        seq: values::U64 + 1,
        ts_ms: values::U64 + 2,
        correlation_id: "Envelope.correlation_id".into(),
        payload,
    }
}

/// By the door that the agent uses.
fn encode_whole(envelope: &Envelope) -> Vec<u8> {
    let payload = envelope.payload.clone().expect("a message");
    encode(envelope.seq, envelope.ts_ms, &envelope.correlation_id, payload).unwrap().to_vec()
}

/// Every payload, and its bytes as tests/data/wire/make.py makes them from the contract's text.
fn goldens() -> Vec<(&'static str, Payload, &'static str)> {
    vec![
        ("register", Payload::Register(values::register()), include_str!("../data/wire/register.hex")),
        ("heartbeat", Payload::Heartbeat(values::heartbeat()), include_str!("../data/wire/heartbeat.hex")),
        (
            "discovery",
            Payload::Discovery(values::discovery_report()),
            include_str!("../data/wire/discovery.hex"),
        ),
        ("job_update", Payload::JobUpdate(values::job_update()), include_str!("../data/wire/job_update.hex")),
        (
            "backup_completed",
            Payload::BackupCompleted(values::backup_completed()),
            include_str!("../data/wire/backup_completed.hex"),
        ),
        (
            "health_result",
            Payload::HealthResult(values::health_check_result()),
            include_str!("../data/wire/health_result.hex"),
        ),
        ("log", Payload::Log(values::log_event()), include_str!("../data/wire/log.hex")),
        (
            "restore_update",
            Payload::RestoreUpdate(values::restore_update()),
            include_str!("../data/wire/restore_update.hex"),
        ),
        ("ack", Payload::Ack(values::ack()), include_str!("../data/wire/ack.hex")),
        (
            "register_ack",
            Payload::RegisterAck(values::register_ack()),
            include_str!("../data/wire/register_ack.hex"),
        ),
        (
            "config_update",
            Payload::ConfigUpdate(values::config_update()),
            include_str!("../data/wire/config_update.hex"),
        ),
        ("run_backup", Payload::RunBackup(values::run_backup()), include_str!("../data/wire/run_backup.hex")),
        // Not rewritten with the others: what was deployed stays as it is.
        (
            "run_backup_deployed",
            Payload::RunBackup(values::deployed_run_backup()),
            include_str!("../data/wire/run_backup_deployed.hex"),
        ),
        (
            "upload_urls_request",
            Payload::UploadUrlsRequest(values::upload_urls_request()),
            include_str!("../data/wire/upload_urls_request.hex"),
        ),
        ("cancel_job", Payload::CancelJob(values::cancel_job()), include_str!("../data/wire/cancel_job.hex")),
        (
            "run_health_check",
            Payload::RunHealthCheck(values::run_health_check()),
            include_str!("../data/wire/run_health_check.hex"),
        ),
        (
            "self_update",
            Payload::SelfUpdate(values::self_update()),
            include_str!("../data/wire/self_update.hex"),
        ),
        ("ping", Payload::Ping(values::ping()), include_str!("../data/wire/ping.hex")),
    ]
}

#[test]
fn every_message_has_the_bytes_of_an_independent_encoder() {
    for (name, payload, golden) in goldens() {
        let golden = bytes(golden);
        let value = envelope(Some(payload));
        assert_eq!(encode_whole(&value), golden, "{name}");
        assert_eq!(decode(&golden).unwrap(), value, "{name}");
    }
    let golden = bytes(include_str!("../data/wire/s3_download_creds.hex"));
    assert_eq!(values::s3_download_creds().encode_to_vec(), golden);
    assert_eq!(v1::S3DownloadCreds::decode(&golden[..]).unwrap(), values::s3_download_creds());
}

#[test]
fn every_payload_of_the_contract_has_a_golden_file() {
    let on_disk = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire")).unwrap();
    let files =
        on_disk.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "hex"));
    assert_eq!(files.count(), goldens().len() + 1, "the payloads and S3DownloadCreds");
}

#[test]
fn bytes_written_by_hand_after_the_encoding_rules_are_the_same() {
    // Key (number << 3 | wire type), then a varint or a length and bytes.
    let ping = Envelope {
        seq: 1,
        ts_ms: 300,
        correlation_id: "p1".into(),
        payload: Some(Payload::Ping(v1::Ping { ts_ms: 150 })),
    };
    let by_hand = [
        0x08, 0x01, // 1, varint: 1
        0x10, 0xac, 0x02, // 2, varint: 300
        0x1a, 0x02, b'p', b'1', // 3, 2 bytes
        0xca, 0x03, 0x03, // 57, 3 bytes
        0x08, 0x96, 0x01, // in it 1, varint: 150
    ];
    assert_eq!(encode_whole(&ping)[..], by_hand[..]);

    let ack = Envelope {
        payload: Some(Payload::Ack(v1::Ack {
            correlation_id: "p1".into(),
            accepted: true,
            reason: String::new(),
        })),
        ..Envelope::default()
    };
    // 18, 6 bytes: 1 with 2 bytes, 2 is true; what is empty or 0 is not written.
    let by_hand = [0x92, 0x01, 0x06, 0x0a, 0x02, b'p', b'1', 0x10, 0x01];
    assert_eq!(encode_whole(&ack)[..], by_hand[..]);
}

#[test]
fn nothing_set_is_no_byte() {
    assert!(Envelope::default().encode_to_vec().is_empty());
    assert_eq!(decode(&[]).unwrap(), Envelope::default());
}

#[test]
fn what_a_newer_peer_adds_does_no_harm() {
    let (_, run_backup, _) =
        goldens().into_iter().find(|(name, ..)| *name == "run_backup").expect("part of the contract");
    let value = envelope(Some(run_backup));
    // Field 99 of the envelope, a text.
    let mut newer = encode_whole(&value);
    newer.extend([0x9a, 0x06, 0x03, b'n', b'e', b'w']);
    assert_eq!(decode(&newer).unwrap(), value);
    // Field 20 of S3UploadCreds, a number.
    let mut creds = values::s3_upload_creds().encode_to_vec();
    creds.extend([0xa0, 0x01, 0x80, 0x80, 0x40]);
    assert_eq!(v1::S3UploadCreds::decode(&creds[..]).unwrap(), values::s3_upload_creds());
    // The reserved payload, and one that nobody has thought of.
    for unknown in [[0xba, 0x03, 0x00], [0xa2, 0x06, 0x00]] {
        let mut bytes = envelope(None).encode_to_vec();
        bytes.extend(unknown);
        assert_eq!(decode(&bytes).unwrap(), envelope(None));
    }
}

#[test]
fn the_enums_have_the_numbers_of_the_contract() {
    let numbers = |values: &[(i32, &str)], name: fn(i32) -> Option<&'static str>| {
        for (number, expected) in values {
            assert_eq!(name(*number), Some(*expected));
        }
        assert_eq!(name(i32::try_from(values.len()).unwrap()), None, "one more than the contract has");
    };
    numbers(
        &[
            (0, "JOB_STATUS_UNSPECIFIED"),
            (1, "QUEUED"),
            (2, "RUNNING"),
            (3, "SUCCESS"),
            (4, "FAILED"),
            (5, "CANCELLED"),
        ],
        |number| v1::JobStatus::try_from(number).ok().map(|value| value.as_str_name()),
    );
    numbers(
        &[
            (0, "DB_UNSPECIFIED"),
            (1, "POSTGRESQL"),
            (2, "MYSQL"),
            (3, "MARIADB"),
            (4, "MONGODB"),
            (5, "REDIS"),
            (6, "SQLITE"),
        ],
        |number| v1::DbType::try_from(number).ok().map(|value| value.as_str_name()),
    );
    numbers(&[(0, "TCP"), (1, "DOCKER_EXEC"), (2, "UNIX_SOCKET")], |number| {
        v1::ConnectionStrategy::try_from(number).ok().map(|value| value.as_str_name())
    });
    numbers(&[(0, "HTTP"), (1, "HTTPS"), (2, "TCP_CHECK")], |number| {
        v1::CheckType::try_from(number).ok().map(|value| value.as_str_name())
    });
    numbers(&[(0, "TRACE"), (1, "DEBUG"), (2, "INFO"), (3, "WARN"), (4, "ERROR")], |number| {
        v1::LogLevel::try_from(number).ok().map(|value| value.as_str_name())
    });
}
