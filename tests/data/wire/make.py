#!/usr/bin/env python3
"""Writes the golden messages of this directory, from protocol.md sections 2 and 3 and the rules of the
protobuf encoding alone: neither proto/ nor any generated code is used. Needs nothing but Python:

    python3 tests/data/wire/make.py

`--check DIR` compares them with Google's implementation over proto/ as well; DIR has the modules that
`python -m grpc_tools.protoc -Iproto --python_out=DIR proto/backupv1/*.proto` makes.

Every field of every message is set, by rule:
string "Message.field", uint64 2^40 + number, uint32 300 + number, float number + 0.5, bool true, bytes
number ff 00, enum its last value; repeated scalars two ("...[0]", "...[1]"; 300 + n, 301 + n), repeated
messages a full and an empty one, maps one entry {"key": "value"}.
"""
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent

# field:type=number, `*` for repeated.
MESSAGES = {
    "Register": (
        "agent_version:string=1 hostname:string=2 os:string=3 arch:string=4 docker_version:string=5 "
        "capabilities:*string=6 last_known_config_version:uint64=7"
    ),
    "Heartbeat": "config_version:uint64=1 metrics:AgentMetrics=2 active_job_ids:*string=3",
    "AgentMetrics": (
        "cpu_percent:float=1 mem_used_bytes:uint64=2 mem_total_bytes:uint64=3 "
        "disk_used_bytes:uint64=4 disk_total_bytes:uint64=5 queue_depth:uint32=6"
    ),
    "DiscoveryReport": "containers:*DiscoveredContainer=1",
    "DiscoveredContainer": (
        "container_id:string=1 name:string=2 image:string=3 detected_db_type:string=4 "
        "networks:*string=5 env_hints:map=6 ports:*PortBinding=7"
    ),
    "PortBinding": "container_port:uint32=1 host_port:uint32=2 protocol:string=3",
    "JobUpdate": (
        "job_id:string=1 status:JobStatus=2 progress_percent:uint32=3 current_step:string=4 "
        "error_message:string=5 run_id:string=6"
    ),
    "BackupCompleted": (
        "job_id:string=1 run_id:string=2 s3_key:string=3 size_bytes:uint64=4 sha256:string=5 "
        "duration_ms:uint64=6 dek_kms_id:string=7 encrypted_dek:bytes=8 compression:string=9 "
        "db_engine_version:string=10"
    ),
    "HealthCheckResult": (
        "check_id:string=1 ts_ms:uint64=2 ok:bool=3 latency_ms:uint32=4 error:string=5 "
        "status_code:uint32=6"
    ),
    "LogEvent": "ts_ms:uint64=1 level:LogLevel=2 job_id:string=3 message:string=4 fields:map=5",
    "RestoreUpdate": (
        "restore_id:string=1 status:JobStatus=2 progress_percent:uint32=3 current_step:string=4 "
        "error_message:string=5"
    ),
    "Ack": "correlation_id:string=1 accepted:bool=2 reason:string=3",
    "RegisterAck": (
        "session_id:string=1 config:AgentConfig=2 heartbeat_interval_sec:uint32=3 "
        "server_time_iso:string=4"
    ),
    "AgentConfig": (
        "version:uint64=1 targets:*Target=2 jobs:*BackupJobSpec=3 health_checks:*HealthCheckSpec=4 "
        "maintenance:MaintenanceWindow=5 advanced:AdvancedSettings=6"
    ),
    "Target": "id:string=1 type:DbType=2 display_name:string=3 connection:ConnectionConfig=4",
    "ConnectionConfig": (
        "host:string=1 port:uint32=2 database:string=3 username:string=4 password_secret_ref:string=5 "
        "container_id:string=6 strategy:ConnectionStrategy=7"
    ),
    "BackupJobSpec": (
        "id:string=1 target_id:string=2 cron:string=3 retention_days:uint32=4 compression:string=5 "
        "encryption_enabled:bool=6 pre_hooks:*string=7 post_hooks:*string=8 retry:RetryPolicy=9 "
        "timeout_sec:uint32=10"
    ),
    "RetryPolicy": "max_attempts:uint32=1 backoff_seconds:*uint32=2",
    "HealthCheckSpec": (
        "id:string=1 name:string=2 type:CheckType=3 target:string=4 interval_sec:uint32=5 "
        "timeout_sec:uint32=6 expected_status:uint32=7"
    ),
    "MaintenanceWindow": "start_utc:string=1 end_utc:string=2",
    "AdvancedSettings": "max_parallel_jobs:uint32=1 log_level:string=2 auto_update_enabled:bool=3",
    "ConfigUpdate": "config:AgentConfig=1",
    "RunBackup": (
        "job_id:string=1 run_id:string=2 manual_trigger:bool=3 upload_creds:S3UploadCreds=4 "
        "encrypted_dek:bytes=5"
    ),
    "S3UploadCreds": (
        "presigned_put_url:string=1 expires_at_ms:uint64=2 final_s3_key:string=3 part_size_bytes:uint64=10 "
        "presigned_part_urls:*string=11 presigned_complete_url:string=12 presigned_abort_url:string=13 "
        "multipart_upload_id:string=14 first_part_number:uint32=15 presigned_head_url:string=16"
    ),
    "UploadUrlsRequest": (
        "job_id:string=1 run_id:string=2 s3_key:string=3 multipart_upload_id:string=4 "
        "first_part_number:uint32=5 part_count:uint32=6"
    ),
    "S3DownloadCreds": "presigned_get_url:string=1 expires_at_ms:uint64=2 s3_key:string=3",
    "CancelJob": "job_id:string=1",
    "RunHealthCheck": "check_id:string=1",
    "Ping": "ts_ms:uint64=1",
    "SelfUpdate": (
        "target_version:string=1 binary_url:string=2 sha256:string=3 cosign_signature:bytes=4 "
        "force:bool=5"
    ),
}

# The last value of each.
ENUMS = {"JobStatus": 5, "DbType": 6, "ConnectionStrategy": 2, "CheckType": 2, "LogLevel": 4}

# The oneof of Envelope: field, message, number.
PAYLOADS = {
    "register": ("Register", 10),
    "heartbeat": ("Heartbeat", 11),
    "discovery": ("DiscoveryReport", 12),
    "job_update": ("JobUpdate", 13),
    "backup_completed": ("BackupCompleted", 14),
    "health_result": ("HealthCheckResult", 15),
    "log": ("LogEvent", 16),
    "restore_update": ("RestoreUpdate", 17),
    "ack": ("Ack", 18),
    "upload_urls_request": ("UploadUrlsRequest", 30),
    "register_ack": ("RegisterAck", 50),
    "config_update": ("ConfigUpdate", 51),
    "run_backup": ("RunBackup", 52),
    "cancel_job": ("CancelJob", 53),
    "run_health_check": ("RunHealthCheck", 54),
    "self_update": ("SelfUpdate", 56),
    "ping": ("Ping", 57),
}


def fields(message):
    for field in MESSAGES[message].split():
        name, rest = field.split(":")
        kind, number = rest.split("=")
        yield name, kind.lstrip("*"), kind.startswith("*"), int(number)


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def delimited(number, data):
    return tag(number, 2) + varint(len(data)) + data


def one(message, name, kind, number, suffix=""):
    if kind == "string":
        return delimited(number, f"{message}.{name}{suffix}".encode())
    if kind == "bytes":
        return delimited(number, bytes([number, 0xFF, 0x00]))
    if kind == "map":
        return delimited(number, delimited(1, b"key") + delimited(2, b"value"))
    if kind == "float":
        return tag(number, 5) + struct.pack("<f", number + 0.5)
    if kind in MESSAGES:
        return delimited(number, encode(kind))
    values = {"uint64": 2**40 + number, "uint32": 300 + number, "bool": 1}
    return tag(number, 0) + varint(values.get(kind) or ENUMS[kind])


def encode(message):
    out = b""
    for name, kind, repeated, number in fields(message):
        if not repeated:
            out += one(message, name, kind, number)
        elif kind == "uint32":  # proto3 packs repeated numbers
            out += delimited(number, varint(300 + number) + varint(301 + number))
        elif kind == "string":
            out += one(message, name, kind, number, "[0]") + one(message, name, kind, number, "[1]")
        else:
            out += one(message, name, kind, number) + delimited(number, b"")
    return out


def envelope(message, number):
    head = tag(1, 0) + varint(2**40 + 1) + tag(2, 0) + varint(2**40 + 2)
    return head + delimited(3, b"Envelope.correlation_id") + delimited(number, encode(message))


def golden():
    for field, (message, number) in PAYLOADS.items():
        yield field, "Envelope", envelope(message, number)
    # Reserved for later: no payload carries it yet.
    yield "s3_download_creds", "S3DownloadCreds", encode("S3DownloadCreds")


def check(directory):
    sys.path.insert(0, directory)
    from backupv1 import agent_to_server_pb2, common_pb2, envelope_pb2, server_to_agent_pb2

    modules = [envelope_pb2, agent_to_server_pb2, server_to_agent_pb2, common_pb2]
    for name, message, data in golden():
        kind = next(getattr(module, message) for module in modules if hasattr(module, message))
        value = kind.FromString(data)
        assert value.SerializeToString(deterministic=True) == data, name
        assert not unset(value), (name, unset(value))
    print("the same bytes as google.protobuf")


def unset(value):
    """Fields that are not set, or not known to proto/; the empty second of repeated messages aside."""
    found = [field.name for field in value.DESCRIPTOR.fields if not field.containing_oneof]
    seen = {field.name for field, _ in value.ListFields()}
    found = [name for name in found if name not in seen]
    for field, inner in value.ListFields():
        if field.type == field.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            inner = inner[0] if hasattr(inner, "add") else inner
            found += unset(inner)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        for name, _, data in golden():
            text = data.hex()
            lines = [text[at : at + 96] for at in range(0, len(text), 96)]
            (HERE / f"{name}.hex").write_text("\n".join(lines) + "\n")
