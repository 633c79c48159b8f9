//! The way from the sources to the valid value.

use super::check::Check;
use super::fault::{Fault, Faults};
use super::file;
use super::keys::{self, KEYS};
use super::layers::{self, Flag, Layer, Sources};
use super::raw::{Field, Raw};
use super::shown::mask_url;
use super::size;
use super::types::{RunSettings, Settings};
use super::{targets, validate};
use crate::model::TargetSpec;
use config::{Config, Value, ValueKind};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a value came from when no layer gave it.
const DEFAULT: &str = "default";

/// Valid settings, and what `check-config` shows of them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The value.
    pub settings: Settings,
    /// One row a key, secrets masked.
    pub rows: Vec<Row>,
    /// What is not wrong, but an operator should know.
    pub warnings: Vec<String>,
}

/// One key as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// `section.key`
    pub key: &'static str,
    /// For people; secrets are masked.
    pub value: String,
    /// File and line, variable, flag, or `default`.
    pub source: String,
}

impl Loaded {
    /// Where the value of a key came from.
    pub fn source_of(&self, key: &str) -> &str {
        self.rows.iter().find(|row| row.key == key).map_or(DEFAULT, |row| row.source.as_str())
    }
}

/// One target of the file, and what a run of it is done with.
#[derive(Clone, Debug)]
pub struct ForTarget {
    /// The database.
    pub target: TargetSpec,
    /// As the daemon would.
    pub runs: RunSettings,
    /// What is not wrong, but an operator should know.
    pub warnings: Vec<String>,
}

/// The layers put over each other.
struct Merged {
    raw: Raw,
    targets: BTreeMap<String, TargetSpec>,
    origins: BTreeMap<&'static str, String>,
    agent_key: Option<SecretString>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

/// Merges and validates.
///
/// # Errors
/// Everything that is wrong, at once. Only a file with syntax errors hides the rest: what it would
/// have said is not known.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let Merged { raw, origins, agent_key, faults, warnings, .. } = merge(sources)?;
    let mut check = Check { sources, origins, faults, warnings };
    match validate::settings(&mut check, raw, agent_key) {
        Some(settings) if check.faults.is_empty() => {
            Ok(Loaded { rows: rows(&settings, &check), warnings: check.warnings, settings })
        }
        _ => Err(Faults(check.faults)),
    }
}

/// What `backup` needs, which knows neither a control plane nor an agent key. Spools lie in the directory for temporary
/// files, unless somebody names another: the daemon's is the daemon's.
///
/// # Errors
/// Everything that is wrong with the file or with what runs use; a name that the file does not have.
pub fn load_for_target(sources: &Sources, name: &str) -> Result<ForTarget, Faults> {
    let Merged { raw, targets, origins, faults, warnings, .. } = merge(sources)?;
    let mut check = Check { sources, origins, faults, warnings };
    let runs = validate::runs(&mut check, raw, std::env::temp_dir());
    let file = sources.file.as_ref().unwrap_or(&sources.default_file);
    let target = targets::find(targets, file.display(), name);
    match (runs, target) {
        (Some(runs), Ok(target)) if check.faults.is_empty() => {
            Ok(ForTarget { target, runs, warnings: check.warnings })
        }
        (_, target) => {
            // A target that is wrong is not there either: what is wrong with it says more.
            if let (Err(fault), true) = (target, check.faults.is_empty()) {
                check.faults.push(fault);
            }
            Err(Faults(check.faults))
        }
    }
}

/// The state directory alone, for commands that ask a running agent and need no agent key.
///
/// # Errors
/// What is wrong with the file as a whole, or with `state.dir`.
pub fn load_state_dir(sources: &Sources) -> Result<PathBuf, Faults> {
    let Merged { raw, origins, .. } = merge(sources)?;
    let mut check = Check { sources, origins, faults: Vec::new(), warnings: Vec::new() };
    validate::state_dir(&mut check, raw.state.dir).ok_or(Faults(check.faults))
}

fn merge(sources: &Sources) -> Result<Merged, Faults> {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let path = match &sources.file {
        Some(path) => Some(path),
        None => Some(&sources.default_file).filter(|path| path.exists()),
    };
    let parsed = path.map_or_else(|| Ok(file::Parsed::default()), |path| file::read(path)).map_err(Faults)?;
    faults.extend(parsed.faults);
    warnings.extend(parsed.warnings);
    let environment = layers::environment(&sources.environment, &mut faults, &mut warnings);
    let layers = [defaults(), parsed.layer, environment, layers::flags(&sources.flags)];

    let agent_key = layers.iter().rev().find_map(Layer::agent_key).cloned();
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let unusable = |error: config::ConfigError| Faults(vec![Fault::of_place("configuration", error)]);
    let merged = builder.build().map_err(unusable)?;
    let origins = KEYS.iter().filter_map(|key| Some((key.name, origin(&merged.cache, key.name)?))).collect();
    let raw = merged.try_deserialize::<Raw>().map_err(unusable)?;
    Ok(Merged { raw, targets: parsed.targets, origins, agent_key, faults, warnings })
}

/// The built-in defaults as a layer like the others.
fn defaults() -> Layer {
    let flag = |key: &keys::Key| Some(Flag { key: key.name, value: key.default?.to_owned() });
    layers::named(&KEYS.iter().filter_map(flag).collect::<Vec<_>>(), |_| DEFAULT.to_owned())
}

/// Where the value at `section.key` came from.
fn origin(root: &Value, name: &str) -> Option<String> {
    let leaf = name.split('.').try_fold(root, |value, part| {
        let ValueKind::Table(table) = &value.kind else { return None };
        table.get(part)
    })?;
    leaf.origin().map(str::to_owned)
}

fn rows(settings: &Settings, check: &Check<'_>) -> Vec<Row> {
    KEYS.iter()
        .map(|key| Row {
            key: key.name,
            value: value(settings, check, key.name),
            source: check.origin(key.name).to_owned(),
        })
        .collect()
}

fn value(settings: &Settings, check: &Check<'_>, key: &str) -> String {
    let Settings { server, state, log, metrics, docker, hooks, backup, update } = settings;
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let none = || "none".to_owned();
    match key {
        "server.url" => mask_url(&server.url),
        "server.agent_key" => "***".to_owned(),
        "server.agent_key_file" => check.agent_key_file().unwrap_or_else(none),
        "server.ca_file" => path(&server.ca_file).unwrap_or_else(|| "none (the platform's roots)".to_owned()),
        "server.pins" if server.pins.is_empty() => none(),
        "server.pins" => {
            let pins = server.pins.iter().map(|pin| data_encoding::BASE64.encode(pin));
            pins.collect::<Vec<_>>().join(", ")
        }
        "server.allow_insecure" => server.allow_insecure.to_string(),
        "server.proxy" => server.proxy.as_ref().map_or_else(none, mask_url),
        "server.no_proxy" if server.no_proxy.is_empty() => none(),
        "server.no_proxy" => server.no_proxy.join(", "),
        "state.dir" => state.dir.display().to_string(),
        "state.max_queue_bytes" => size::format(state.max_queue_bytes),
        "state.min_free_bytes" => size::format(state.min_free_bytes),
        "log.level" => log.level.name().to_owned(),
        "log.format" => log.format.name().to_owned(),
        "metrics.listen" => metrics.listen.map_or_else(|| "off".to_owned(), |listen| listen.to_string()),
        "docker.socket" => docker.socket.display().to_string(),
        "docker.discovery" => docker.discovery.to_string(),
        "hooks.enabled" => hooks.enabled.to_string(),
        "hooks.timeout" => humantime_serde::re::humantime::format_duration(hooks.timeout).to_string(),
        "backup.spool_dir" => backup.spool_dir.display().to_string(),
        "backup.spool" => backup.spool.name().to_owned(),
        "backup.zstd_level" => backup.zstd_level.to_string(),
        "backup.gzip_level" => backup.gzip_level.to_string(),
        "backup.threads" => backup.threads.to_string(),
        "backup.nice" => backup.nice.to_string(),
        "backup.idle_io" => backup.idle_io.to_string(),
        "backup.max_read_bytes_per_sec" => rate(backup.max_read_bytes_per_sec),
        "backup.max_upload_bytes_per_sec" => rate(backup.max_upload_bytes_per_sec),
        "update.enabled" => update.enabled.to_string(),
        "update.public_key_file" => path(&update.public_key_file).unwrap_or_else(none),
        _ => none(),
    }
}

fn rate(bytes_per_sec: u64) -> String {
    if bytes_per_sec == 0 { "0 (no limit)".to_owned() } else { size::format(bytes_per_sec) }
}

impl<T> Field<T> {
    /// Whether a layer has it, of whatever type.
    pub fn is_given(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}
