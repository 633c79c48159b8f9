//! Defaults < file < environment < flags. Each layer is a source of the `config` crate whose values
//! name where they came from; the agent key travels beside them, where no error can print it.

use super::fault::Fault;
use super::keys::{self, KEYS, Key, Kind};
use super::shown::shown;
use config::{ConfigError, Map, Value, ValueKind};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Variables of the agent begin with this.
const PREFIX: &str = "BACKUPY_";

/// Where systemd puts credentials.
pub(super) const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Stands in the merged values where the agent key was.
const AGENT_KEY_GIVEN: &str = "***";

/// A flag that was given.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key it sets.
    pub key: &'static str,
    /// The value as it was typed.
    pub value: String,
}

/// Everything that settings are made of. No `Debug`: the environment may hold the agent key.
#[derive(Clone)]
pub struct Sources {
    /// `--config`: must be there.
    pub file: Option<PathBuf>,
    /// Read when it is there and `file` names none.
    pub default_file: PathBuf,
    /// The variables that matter here.
    pub environment: BTreeMap<String, OsString>,
    /// Over everything else.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// The sources of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let matters = |name: &str| {
            name.starts_with(PREFIX)
                || name == CREDENTIALS_DIRECTORY
                || KEYS.iter().any(|key| key.variables.contains(&name))
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| matters(name))
            .collect();
        Self { file, default_file: PathBuf::from(super::DEFAULT_FILE), environment, flags }
    }
}

/// One layer: `section.key` -> value with its origin.
#[derive(Clone, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
    agent_key: Option<SecretString>,
}

impl Layer {
    /// Adds a value; a later one replaces an earlier.
    pub fn put(&mut self, key: &Key, origin: &str, mut kind: ValueKind) {
        if let (Kind::Secret, ValueKind::String(text)) = (key.kind, &mut kind) {
            self.agent_key = Some(SecretString::from(std::mem::replace(text, AGENT_KEY_GIVEN.to_owned())));
        }
        self.values.insert(key.name.to_owned(), Value::new(Some(&origin.to_owned()), kind));
    }

    /// The agent key as this layer gives it.
    pub fn agent_key(&self) -> Option<&SecretString> {
        self.agent_key.as_ref()
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

/// The variables as a layer. An empty variable counts as not set, except where empty has a meaning.
pub(super) fn environment(
    variables: &BTreeMap<String, OsString>,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Layer {
    let mut layer = Layer::default();
    for key in KEYS {
        let set = key.variables.iter().filter_map(|name| Some((*name, variables.get(*name)?)));
        let Some((name, value)) =
            set.into_iter().find(|(_, value)| !value.is_empty() || empty_means_something(key))
        else {
            continue;
        };
        match value.to_str() {
            Some(text) => layer.put(key, name, typed(key.kind, text, key.inverted)),
            None => faults.push(Fault::new(key.name, name, "is not valid UTF-8")),
        }
    }
    for name in variables.keys().filter(|name| name.starts_with(PREFIX)) {
        let variables = || KEYS.iter().flat_map(|key| key.variables.iter().copied());
        let known = || variables().filter(|variable| variable.starts_with(PREFIX));
        if !known().any(|variable| variable == name) {
            let bare = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
            let near = keys::nearest(&name[PREFIX.len()..], known().map(bare));
            let hint = near.map(|near| format!("; did you mean {PREFIX}{near}?"));
            warnings.push(format!("unknown variable {} is ignored{}", shown(name), hint.unwrap_or_default()));
        }
    }
    layer
}

/// `metrics.listen`: empty switches the exporter off.
fn empty_means_something(key: &Key) -> bool {
    key.name == "metrics.listen"
}

/// The flags as a layer.
pub(super) fn flags(flags: &[Flag]) -> Layer {
    named(flags, |key| format!("--{}", key.flag.unwrap_or_default()))
}

/// Typed texts as a layer, `origin` says how each is called.
pub(super) fn named(flags: &[Flag], origin: impl Fn(&Key) -> String) -> Layer {
    let mut layer = Layer::default();
    for Flag { key, value } in flags {
        if let Some(key) = keys::find(key) {
            layer.put(key, &origin(key), typed(key.kind, value, false));
        }
    }
    layer
}

/// What a text of a variable or a flag is. A text that does not fit stays one: the validation says so.
fn typed(kind: Kind, text: &str, inverted: bool) -> ValueKind {
    match kind {
        Kind::Bool => boolean(text).map(|value| ValueKind::Boolean(value != inverted)),
        Kind::Integer => text.trim().parse().ok().map(ValueKind::I64),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(ValueKind::Array(items.map(|item| Value::new(None, item)).collect()))
        }
        Kind::Text | Kind::Secret | Kind::Size => None,
    }
    .unwrap_or_else(|| ValueKind::String(text.to_owned()))
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}
