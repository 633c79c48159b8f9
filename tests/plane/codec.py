"""Protocol buffers by hand, from the field tables of the contract.

Nothing here is generated from this project's .proto files: a field that has the wrong number or type
there is found by a peer that speaks the contract itself. Decoding is strict: an unknown field, a
wrong wire type or broken UTF-8 is an error.
"""

import struct

AGENT_METRICS = "AgentMetrics"

# message -> {number: (name, type)}; "[]" marks repeated, "map" is string -> string.
TABLES = {
    "Register": {1: ("agent_version", "string"), 2: ("hostname", "string"), 3: ("os", "string"),
                 4: ("arch", "string"), 5: ("docker_version", "string"), 6: ("capabilities", "[]string"),
                 7: ("last_known_config_version", "uint64")},
    "Heartbeat": {1: ("config_version", "uint64"), 2: ("metrics", AGENT_METRICS),
                  3: ("active_job_ids", "[]string")},
    "AgentMetrics": {1: ("cpu_percent", "float"), 2: ("mem_used_bytes", "uint64"),
                     3: ("mem_total_bytes", "uint64"), 4: ("disk_used_bytes", "uint64"),
                     5: ("disk_total_bytes", "uint64"), 6: ("queue_depth", "uint32")},
    "DiscoveryReport": {1: ("containers", "[]DiscoveredContainer")},
    "DiscoveredContainer": {1: ("container_id", "string"), 2: ("name", "string"), 3: ("image", "string"),
                            4: ("detected_db_type", "string"), 5: ("networks", "[]string"),
                            6: ("env_hints", "map"), 7: ("ports", "[]PortBinding")},
    "PortBinding": {1: ("container_port", "uint32"), 2: ("host_port", "uint32"), 3: ("protocol", "string")},
    "JobUpdate": {1: ("job_id", "string"), 2: ("status", "enum"), 3: ("progress_percent", "uint32"),
                  4: ("current_step", "string"), 5: ("error_message", "string"), 6: ("run_id", "string")},
    "BackupCompleted": {1: ("job_id", "string"), 2: ("run_id", "string"), 3: ("s3_key", "string"),
                        4: ("size_bytes", "uint64"), 5: ("sha256", "string"), 6: ("duration_ms", "uint64"),
                        7: ("dek_kms_id", "string"), 8: ("encrypted_dek", "bytes"),
                        9: ("compression", "string"), 10: ("db_engine_version", "string")},
    "HealthCheckResult": {1: ("check_id", "string"), 2: ("ts_ms", "uint64"), 3: ("ok", "bool"),
                          4: ("latency_ms", "uint32"), 5: ("error", "string"), 6: ("status_code", "uint32")},
    "LogEvent": {1: ("ts_ms", "uint64"), 2: ("level", "enum"), 3: ("job_id", "string"),
                 4: ("message", "string"), 5: ("fields", "map")},
    "RestoreUpdate": {1: ("restore_id", "string"), 2: ("status", "enum"), 3: ("progress_percent", "uint32"),
                      4: ("current_step", "string"), 5: ("error_message", "string")},
    "UploadUrlsRequest": {1: ("job_id", "string"), 2: ("run_id", "string"), 3: ("s3_key", "string"),
                          4: ("multipart_upload_id", "string"), 5: ("first_part_number", "uint32"),
                          6: ("part_count", "uint32")},
    "Ack": {1: ("correlation_id", "string"), 2: ("accepted", "bool"), 3: ("reason", "string")},
    "RegisterAck": {1: ("session_id", "string"), 2: ("config", "AgentConfig"),
                    3: ("heartbeat_interval_sec", "uint32"), 4: ("server_time_iso", "string")},
    "AgentConfig": {1: ("version", "uint64"), 2: ("targets", "[]Target"), 3: ("jobs", "[]BackupJobSpec"),
                    4: ("health_checks", "[]HealthCheckSpec"), 5: ("maintenance", "MaintenanceWindow"),
                    6: ("advanced", "AdvancedSettings")},
    "Target": {1: ("id", "string"), 2: ("type", "enum"), 3: ("display_name", "string"),
               4: ("connection", "ConnectionConfig")},
    "ConnectionConfig": {1: ("host", "string"), 2: ("port", "uint32"), 3: ("database", "string"),
                         4: ("username", "string"), 5: ("password_secret_ref", "string"),
                         6: ("container_id", "string"), 7: ("strategy", "enum")},
    "BackupJobSpec": {1: ("id", "string"), 2: ("target_id", "string"), 3: ("cron", "string"),
                      4: ("retention_days", "uint32"), 5: ("compression", "string"),
                      6: ("encryption_enabled", "bool"), 7: ("pre_hooks", "[]string"),
                      8: ("post_hooks", "[]string"), 9: ("retry", "RetryPolicy"),
                      10: ("timeout_sec", "uint32")},
    "RetryPolicy": {1: ("max_attempts", "uint32"), 2: ("backoff_seconds", "[]uint32")},
    "HealthCheckSpec": {1: ("id", "string"), 2: ("name", "string"), 3: ("type", "enum"),
                        4: ("target", "string"), 5: ("interval_sec", "uint32"),
                        6: ("timeout_sec", "uint32"), 7: ("expected_status", "uint32")},
    "MaintenanceWindow": {1: ("start_utc", "string"), 2: ("end_utc", "string")},
    "AdvancedSettings": {1: ("max_parallel_jobs", "uint32"), 2: ("log_level", "string"),
                         3: ("auto_update_enabled", "bool")},
    "ConfigUpdate": {1: ("config", "AgentConfig")},
    "RunBackup": {1: ("job_id", "string"), 2: ("run_id", "string"), 3: ("manual_trigger", "bool"),
                  4: ("upload_creds", "S3UploadCreds"), 5: ("encrypted_dek", "bytes")},
    "S3UploadCreds": {1: ("presigned_put_url", "string"), 2: ("expires_at_ms", "uint64"),
                      3: ("final_s3_key", "string"), 10: ("part_size_bytes", "uint64"),
                      11: ("presigned_part_urls", "[]string"), 12: ("presigned_complete_url", "string"),
                      13: ("presigned_abort_url", "string"), 14: ("multipart_upload_id", "string"),
                      15: ("first_part_number", "uint32"), 16: ("presigned_head_url", "string")},
    "CancelJob": {1: ("job_id", "string")},
    "RunHealthCheck": {1: ("check_id", "string")},
    "Ping": {1: ("ts_ms", "uint64")},
    "SelfUpdate": {1: ("target_version", "string"), 2: ("binary_url", "string"), 3: ("sha256", "string"),
                   4: ("cosign_signature", "bytes"), 5: ("force", "bool")},
}

PAYLOADS = {10: "Register", 11: "Heartbeat", 12: "DiscoveryReport", 13: "JobUpdate", 14: "BackupCompleted",
            15: "HealthCheckResult", 16: "LogEvent", 17: "RestoreUpdate", 18: "Ack", 30: "UploadUrlsRequest",
            50: "RegisterAck", 51: "ConfigUpdate", 52: "RunBackup", 53: "CancelJob", 54: "RunHealthCheck",
            56: "SelfUpdate", 57: "Ping"}
NUMBERS = {name: number for number, name in PAYLOADS.items()}
FROM_AGENT = range(10, 31)

QUEUED, RUNNING, SUCCESS, FAILED, CANCELLED = 1, 2, 3, 4, 5
POSTGRESQL, MONGODB, SQLITE = 1, 4, 6

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SCALARS = {"string": "", "bytes": b"", "uint64": 0, "uint32": 0, "enum": 0, "bool": False, "float": 0.0}


class Malformed(Exception):
    """The bytes are not what the contract says."""


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data, at):
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a varint does not end")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at


def delimited(number, data):
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def encode_value(number, kind, value):
    if kind in ("uint64", "uint32", "enum", "bool"):
        return varint(number << 3 | VARINT) + varint(int(value))
    if kind == "float":
        return varint(number << 3 | FIXED32) + struct.pack("<f", value)
    if kind == "string":
        return delimited(number, value.encode())
    if kind == "bytes":
        return delimited(number, value)
    return delimited(number, encode(kind, value))


def encode(message, values):
    """A dictionary by field names becomes the bytes of that message."""
    table = {name: (number, kind) for number, (name, kind) in TABLES[message].items()}
    out = []
    for name, value in values.items():
        number, kind = table[name]
        if kind == "[]uint32":
            out.append(delimited(number, b"".join(varint(item) for item in value)))
        elif kind.startswith("[]"):
            out.extend(encode_value(number, kind[2:], item) for item in value)
        elif kind in SCALARS and value == SCALARS[kind]:
            continue
        else:
            out.append(encode_value(number, kind, value))
    return b"".join(out)


def fields(data):
    """Number, wire type and raw value of each field."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = read_varint(data, at)
        elif wire in (FIXED32, FIXED64, BYTES):
            if wire == BYTES:
                size, at = read_varint(data, at)
            else:
                size = 4 if wire == FIXED32 else 8
            if at + size > len(data):
                raise Malformed("a field goes past the end")
            value, at = data[at:at + size], at + size
        else:
            raise Malformed(f"wire type {wire}")
        yield number, wire, value


def decode_value(kind, wire, raw, where):
    expected = FIXED32 if kind == "float" else VARINT if kind in ("uint64", "uint32", "enum", "bool") else BYTES
    if wire != expected:
        raise Malformed(f"{where}: wire type {wire}, not {expected}")
    if kind == "float":
        return struct.unpack("<f", raw)[0]
    if kind == "bool":
        return bool(raw)
    if kind in ("uint32", "enum") and raw >= 1 << 32:
        raise Malformed(f"{where}: over 32 bits")
    if wire == VARINT:
        return raw
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"{where}: {error}") from error
    return bytes(raw) if kind == "bytes" else decode(kind, raw)


def decode(message, data):
    """The bytes of a message become a dictionary; absent scalars have their default, absent messages None."""
    values = {}
    for name, kind in TABLES[message].values():
        values[name] = {} if kind == "map" else [] if kind.startswith("[]") else SCALARS.get(kind)
    for number, wire, raw in fields(data):
        if number not in TABLES[message]:
            raise Malformed(f"{message} has no field {number}")
        name, kind = TABLES[message][number]
        where = f"{message}.{name}"
        if kind == "map":
            entry = {key: decode_value("string", inner, text, where) for key, inner, text in fields(raw)}
            values[name][entry.get(1, "")] = entry.get(2, "")
        elif kind.startswith("[]"):
            values[name].append(decode_value(kind[2:], wire, raw, where))
        else:
            values[name] = decode_value(kind, wire, raw, where)
    return values


class Envelope:
    """One message with its place and time."""

    def __init__(self, kind, body, seq=0, ts_ms=0, correlation_id=""):
        self.kind, self.body = kind, body
        self.seq, self.ts_ms, self.correlation_id = seq, ts_ms, correlation_id
        self.raw, self.at = b"", 0.0

    def __getitem__(self, name):
        return self.body[name]

    def __repr__(self):
        return f"{self.kind}(seq={self.seq}, correlation_id={self.correlation_id!r}, {self.body})"

    def encode(self):
        head = b"".join([encode_value(1, "uint64", self.seq), encode_value(2, "uint64", self.ts_ms),
                         encode_value(3, "string", self.correlation_id) if self.correlation_id else b""])
        return head + delimited(NUMBERS[self.kind], encode(self.kind, self.body))


def decode_envelope(data):
    """An envelope of the agent's; anything that only a server says is an error."""
    envelope = Envelope(None, None)
    envelope.raw = bytes(data)
    for number, wire, raw in fields(data):
        if number == 1:
            envelope.seq = decode_value("uint64", wire, raw, "Envelope.seq")
        elif number == 2:
            envelope.ts_ms = decode_value("uint64", wire, raw, "Envelope.ts_ms")
        elif number == 3:
            envelope.correlation_id = decode_value("string", wire, raw, "Envelope.correlation_id")
        elif number in FROM_AGENT and number in PAYLOADS and envelope.kind is None:
            envelope.kind = PAYLOADS[number]
            envelope.body = decode_value(PAYLOADS[number], wire, raw, "Envelope.payload")
        else:
            raise Malformed(f"an agent's Envelope has no field {number}, or has two payloads")
    if envelope.kind is None:
        raise Malformed("an Envelope without a payload")
    return envelope
