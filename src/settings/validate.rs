//! Raw -> valid. Every part is looked at, whatever is wrong with the others.

use super::check::{Check, absolute};
use super::raw::{Field, Raw, RawBackup, RawHooks, RawLog, RawServer, RawState, RawUpdate, Size};
use super::shown::shown;
use super::types::{
    Backup, Docker, Hooks, Log, LogFormat, LogLevel, Metrics, RunSettings, Server, Settings, State, Stores,
    Update,
};
use super::{agent_key, network, size};
use crate::model::SpoolUse;
use humantime_serde::re::humantime::parse_duration;
use secrecy::SecretString;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// Below this the queue could not hold one result of a run beside some log events.
const MIN_QUEUE_BYTES: u64 = 1024 * 1024;

/// What zstd knows.
const ZSTD_LEVELS: std::ops::RangeInclusive<i64> = 1..=22;

/// What gzip knows.
const GZIP_LEVELS: std::ops::RangeInclusive<i64> = 1..=9;

/// More workers than this only cost memory: each keeps a job of its own in flight.
const THREADS: std::ops::RangeInclusive<i64> = 1..=64;

/// Nobody asked for more, and each takes about 3 MiB of the 64 that the agent stays under.
const DEFAULT_MAX_THREADS: i64 = 4;

/// One hook's time: below a second nothing could start, and behaviour section 4 has the cap.
const HOOK_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(15 * 60);

/// What `nice` takes from everybody.
const NICE: std::ops::RangeInclusive<i64> = 0..=19;

/// A slower run would outlive its upload URL: an hour of it is 225 MiB.
const MIN_RATE_BYTES_PER_SEC: u64 = 64 * 1024;

/// The valid value; None where there are faults.
pub(super) fn settings(check: &mut Check<'_>, raw: Raw, key: Option<SecretString>) -> Option<Settings> {
    let server = server(check, raw.server, key);
    let state = state(check, raw.state);
    let log = log(check, raw.log);
    let listen = check.take("metrics.listen", raw.metrics.listen).map(|text| network::listen(check, &text));
    let socket = docker_socket(check, raw.docker.socket);
    let discovery = check.take("docker.discovery", raw.docker.discovery);
    let hooks = hooks(check, raw.hooks);
    let backup = backup(check, raw.backup, state.as_ref().map(|state| state.dir.join("spool")));
    let update = update(check, raw.update);
    Some(Settings {
        server: server?,
        state: state?,
        log: log?,
        metrics: Metrics { listen: listen?? },
        docker: Docker { socket: socket?, discovery: discovery? },
        hooks: hooks?,
        backup: backup?,
        update: update?,
    })
}

/// What runs need, and nothing else is looked at. Spools lie in `spool_dir` where no other is named.
pub(super) fn runs(check: &mut Check<'_>, raw: Raw, spool_dir: PathBuf) -> Option<RunSettings> {
    let mut server = raw.server;
    let allow_insecure = check.take("server.allow_insecure", std::mem::take(&mut server.allow_insecure));
    let stores = stores(check, server, allow_insecure);
    let min_free_bytes = min_free_bytes(check, raw.state.min_free_bytes);
    let backup = backup(check, raw.backup, Some(spool_dir));
    let docker_socket = docker_socket(check, raw.docker.socket);
    Some(RunSettings {
        stores: stores?,
        min_free_bytes: min_free_bytes?,
        backup: backup?,
        docker_socket: docker_socket?,
    })
}

fn server(check: &mut Check<'_>, mut raw: RawServer, inline: Option<SecretString>) -> Option<Server> {
    let allow_insecure = check.take("server.allow_insecure", std::mem::take(&mut raw.allow_insecure));
    let url = check.take("server.url", std::mem::take(&mut raw.url));
    // Where the switch itself is unreadable, one fault is enough.
    let url = url.and_then(|text| network::server_url(check, &text, allow_insecure.unwrap_or(true)));
    let (key, key_file) = (std::mem::take(&mut raw.agent_key), std::mem::take(&mut raw.agent_key_file));
    let agent_key = agent_key::find(check, key, inline, key_file);
    let pins = check.take("server.pins", std::mem::take(&mut raw.pins));
    let pins = pins.map(|pins| network::pins(check, &pins));
    let Stores { allow_insecure, ca_file, proxy, no_proxy } = stores(check, raw, allow_insecure)?;
    let (url, agent_key, pins) = (url?, agent_key?, pins??);
    Some(Server { url, agent_key, ca_file, pins, allow_insecure, proxy, no_proxy })
}

/// The keys of `[server]` that say how anything is reached.
fn stores(check: &mut Check<'_>, raw: RawServer, allow_insecure: Option<bool>) -> Option<Stores> {
    let ca_file = check.take_text("server.ca_file", raw.ca_file).and_then(absolute);
    if let Some(path) = &ca_file {
        network::check_ca_file(check, path);
    }
    let proxy = check.take_text("server.proxy", raw.proxy).map(|text| network::proxy(check, &text));
    let no_proxy = check.take("server.no_proxy", raw.no_proxy);
    let proxy = match proxy {
        Some(proxy) => Some(proxy?),
        None => None,
    };
    Some(Stores { allow_insecure: allow_insecure?, ca_file, proxy, no_proxy: no_proxy? })
}

/// `docker.socket`, absolute; also as `DOCKER_HOST` has it.
fn docker_socket(check: &mut Check<'_>, socket: Field<String>) -> Option<PathBuf> {
    let text = check.take_text("docker.socket", socket)?;
    let path = text.strip_prefix("unix://").unwrap_or(&text);
    if path.contains("://") {
        let what = "must be the path of a unix socket: engines of other hosts are not reached from here";
        check.fault("docker.socket", format_args!("{}: {what}", shown(&text)));
        return None;
    }
    absolute(path.to_owned())
}

/// `state.dir`, absolute.
pub(super) fn state_dir(check: &mut Check<'_>, dir: Field<String>) -> Option<PathBuf> {
    let dir = check.take("state.dir", dir)?;
    if dir.is_empty() {
        check.fault("state.dir", "is empty: name the directory in which the agent keeps its state");
        return None;
    }
    absolute(dir)
}

fn state(check: &mut Check<'_>, raw: RawState) -> Option<State> {
    let dir = state_dir(check, raw.dir);
    let queue = check.take("state.max_queue_bytes", raw.max_queue_bytes);
    let queue = queue.and_then(|size| bytes(check, "state.max_queue_bytes", &size, MIN_QUEUE_BYTES, false));
    let free = min_free_bytes(check, raw.min_free_bytes);
    Some(State { dir: dir?, max_queue_bytes: queue?, min_free_bytes: free? })
}

fn min_free_bytes(check: &mut Check<'_>, size: Field<Size>) -> Option<u64> {
    let size = check.take("state.min_free_bytes", size)?;
    bytes(check, "state.min_free_bytes", &size, 0, true)
}

/// A number of bytes of at least `least`, or 0 where that means off.
fn bytes(check: &mut Check<'_>, key: &'static str, size: &Size, least: u64, zero: bool) -> Option<u64> {
    let (bytes, written) = match size {
        Size::Bytes(bytes) => (u64::try_from(*bytes).ok(), bytes.to_string()),
        Size::Text(text) => (size::parse(text), shown(text)),
    };
    let or_off = if zero { ", or 0 for no limit" } else { "" };
    match bytes {
        None => check.fault(key, format_args!("{written}: must be {}", size::EXAMPLES)),
        Some(bytes) if bytes < least && !(zero && bytes == 0) => {
            check.fault(key, format_args!("{written}: must be at least {}{or_off}", size::format(least)));
        }
        Some(bytes) => return Some(bytes),
    }
    None
}

fn log(check: &mut Check<'_>, raw: RawLog) -> Option<Log> {
    let level = check.take("log.level", raw.level).and_then(|name| {
        LogLevel::from_name(name.trim())
            .or_else(|| unknown(check, "log.level", &name, &LogLevel::ALL.map(LogLevel::name)))
    });
    let format = check.take("log.format", raw.format).and_then(|name| {
        LogFormat::from_name(name.trim())
            .or_else(|| unknown(check, "log.format", &name, &LogFormat::ALL.map(LogFormat::name)))
    });
    Some(Log { level: level?, format: format? })
}

fn unknown<T>(check: &mut Check<'_>, key: &'static str, value: &str, choices: &[&str]) -> Option<T> {
    check.fault(key, format_args!("{} is unknown: choose one of {}", shown(value), choices.join(", ")));
    None
}

fn hooks(check: &mut Check<'_>, raw: RawHooks) -> Option<Hooks> {
    let enabled = check.take("hooks.enabled", raw.enabled);
    let timeout = check.take("hooks.timeout", raw.timeout).and_then(|text| {
        let parsed = parse_duration(text.trim()).ok();
        if parsed.is_none_or(|limit| !HOOK_TIMEOUT.contains(&limit)) {
            let written = shown(&text);
            check.fault(
                "hooks.timeout",
                format_args!("{written}: must be a time from 1s to 15min, such as \"30s\""),
            );
            return None;
        }
        parsed
    });
    Some(Hooks { enabled: enabled?, timeout: timeout? })
}

fn backup(check: &mut Check<'_>, raw: RawBackup, default_spool_dir: Option<PathBuf>) -> Option<Backup> {
    let spool_dir = check.take_text("backup.spool_dir", raw.spool_dir);
    let spool = check.take("backup.spool", raw.spool).and_then(|name| {
        SpoolUse::from_name(name.trim())
            .or_else(|| unknown(check, "backup.spool", &name, &SpoolUse::ALL.map(SpoolUse::name)))
    });
    let level = check.take("backup.zstd_level", raw.zstd_level);
    let level = level.and_then(|level| within(check, "backup.zstd_level", level, ZSTD_LEVELS));
    let gzip = check.take("backup.gzip_level", raw.gzip_level);
    let gzip = gzip.and_then(|level| within(check, "backup.gzip_level", level, GZIP_LEVELS));
    let given = raw.threads.is_given();
    let threads = check.take("backup.threads", raw.threads);
    let threads = match threads {
        Some(threads) => within(check, "backup.threads", threads, THREADS),
        None if given => None,
        None => Some(default_threads()),
    };
    let nice = check.take("backup.nice", raw.nice).and_then(|nice| within(check, "backup.nice", nice, NICE));
    let idle_io = check.take("backup.idle_io", raw.idle_io);
    let mut rate = |key, size| {
        let size = check.take(key, size)?;
        bytes(check, key, &size, MIN_RATE_BYTES_PER_SEC, true)
    };
    let read = rate("backup.max_read_bytes_per_sec", raw.max_read_bytes_per_sec);
    let upload = rate("backup.max_upload_bytes_per_sec", raw.max_upload_bytes_per_sec);
    Some(Backup {
        spool: spool?,
        nice: u8::try_from(nice?).ok()?,
        idle_io: idle_io?,
        max_read_bytes_per_sec: read?,
        max_upload_bytes_per_sec: upload?,
        spool_dir: match spool_dir {
            Some(dir) => absolute(dir)?,
            None => default_spool_dir?,
        },
        zstd_level: i32::try_from(level?).ok()?,
        gzip_level: u32::try_from(gzip?).ok()?,
        threads: u32::try_from(threads?).ok()?,
    })
}

fn within(
    check: &mut Check<'_>,
    key: &'static str,
    number: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    if range.contains(&number) {
        return Some(number);
    }
    check.fault(key, format_args!("{number} is not in {} to {}", range.start(), range.end()));
    None
}

/// The cores that this process may use.
fn default_threads() -> i64 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|cores| i64::try_from(cores.get()).ok())
        .map_or(1, |cores| cores.clamp(1, DEFAULT_MAX_THREADS))
}

fn update(check: &mut Check<'_>, raw: RawUpdate) -> Option<Update> {
    let enabled = check.take("update.enabled", raw.enabled);
    let path = check.take_text("update.public_key_file", raw.public_key_file).and_then(absolute);
    match (&path, enabled) {
        (None, Some(true)) if check.faults.iter().all(|fault| fault.key() != "update.public_key_file") => {
            check.fault(
                "update.enabled",
                "needs update.public_key_file: an update without a signature is refused",
            )
        }
        (Some(path), Some(true)) => {
            if let Err(error) = File::open(path) {
                check.fault("update.public_key_file", format_args!("{}: {error}", path.display()));
            }
        }
        _ => {}
    }
    Some(Update { enabled: enabled?, public_key_file: path })
}
