//! The validated values, one struct a section.

use super::shown::mask_url;
use crate::model::SpoolUse;
use secrecy::SecretString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Everything the agent is told on its host. Only `load` makes one: it is valid.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane.
    pub server: Server,
    /// The state directory.
    pub state: State,
    /// Logs.
    pub log: Log,
    /// The metrics exporter.
    pub metrics: Metrics,
    /// The Docker socket.
    pub docker: Docker,
    /// Hooks.
    pub hooks: Hooks,
    /// Backup runs.
    pub backup: Backup,
    /// Self-update.
    pub update: Update,
}

/// What every run is done with, ordered or not: nothing of the control plane is in it.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The ways out.
    pub stores: Stores,
    /// `state.min_free_bytes`
    pub min_free_bytes: u64,
    /// How databases are read and packed.
    pub backup: Backup,
    /// `docker.socket`
    pub docker_socket: PathBuf,
}

/// How object stores are reached: the same keys as for the control plane.
#[derive(Clone)]
pub struct Stores {
    /// `server.allow_insecure`
    pub allow_insecure: bool,
    /// `server.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `server.proxy`
    pub proxy: Option<Url>,
    /// `server.no_proxy`
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("allow_insecure", &self.allow_insecure)
            .field("ca_file", &self.ca_file)
            .field("proxy", &self.proxy.as_ref().map(mask_url))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl Settings {
    /// Of the daemon's runs.
    pub fn of_runs(&self) -> RunSettings {
        let Server { allow_insecure, ca_file, proxy, no_proxy, .. } = self.server.clone();
        RunSettings {
            stores: Stores { allow_insecure, ca_file, proxy, no_proxy },
            min_free_bytes: self.state.min_free_bytes,
            backup: self.backup.clone(),
            docker_socket: self.docker.socket.clone(),
        }
    }
}

/// `[server]`
#[derive(Clone)]
pub struct Server {
    /// `http`, `https`, `ws` or `wss`; the clear ones only with `allow_insecure`.
    pub url: Url,
    /// Matches the contract's pattern (protocol section 1).
    pub agent_key: SecretString,
    /// PEM; None means the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of SubjectPublicKeyInfo; empty means none is asked.
    pub pins: Vec<[u8; 32]>,
    /// Clear-text URLs may be used, for development.
    pub allow_insecure: bool,
    /// HTTP CONNECT proxy.
    pub proxy: Option<Url>,
    /// Hosts that are dialled without the proxy, as in NO_PROXY.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &mask_url(&self.url))
            .field("agent_key", &"***")
            .field("ca_file", &self.ca_file)
            .field("pins", &self.pins.len())
            .field("allow_insecure", &self.allow_insecure)
            .field("proxy", &self.proxy.as_ref().map(mask_url))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// `[state]`
#[derive(Debug, Clone)]
pub struct State {
    /// 0700, made if missing, probed for writing.
    pub dir: PathBuf,
    /// Bound of the disk queue, bytes.
    pub max_queue_bytes: u64,
    /// Below so many free bytes new work is refused; 0 switches that off.
    pub min_free_bytes: u64,
}

/// `[log]`
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The least severe that is written.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// `log.level`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may become a problem.
    Warn,
    /// What an operator must act on.
    Error,
}

impl LogLevel {
    /// Every level, the most talkative first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// As it is written in the file, in `BACKUPY_LOG_LEVEL` and in `AdvancedSettings.log_level`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level of that name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// journald when systemd runs it, text on a terminal, else JSON.
    Auto,
    /// The journal's own protocol.
    Journald,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Journald, Self::Text, Self::Json];

    /// As it is written in the file and in `BACKUPY_LOG_FORMAT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Journald => "journald",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format of that name, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }
}

/// `[metrics]`
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// None means off.
    pub listen: Option<SocketAddr>,
}

/// `[docker]`
#[derive(Debug, Clone)]
pub struct Docker {
    /// Of the engine's API.
    pub socket: PathBuf,
    /// Whether containers are looked for.
    pub discovery: bool,
}

/// `[hooks]`
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// The host's owner lets the server run code here.
    pub enabled: bool,
    /// Of one hook: 1 s to 15 min.
    pub timeout: Duration,
}

/// `[backup]`
#[derive(Debug, Clone)]
pub struct Backup {
    /// Only ciphertext is written here.
    pub spool_dir: PathBuf,
    /// Whether objects lie there before they go up.
    pub spool: SpoolUse,
    /// 1 to 22.
    pub zstd_level: i32,
    /// 1 to 9, for jobs that ask for gzip.
    pub gzip_level: u32,
    /// Of zstd's workers, at least 1.
    pub threads: u32,
    /// Added to the niceness of dump tools, 0 to 19.
    pub nice: u8,
    /// Dump tools read the disk only when nobody else does.
    pub idle_io: bool,
    /// Of what the databases give, all runs together; 0 means no limit.
    pub max_read_bytes_per_sec: u64,
    /// Of what goes to the store, all runs together; 0 means no limit.
    pub max_upload_bytes_per_sec: u64,
}

/// `[update]`
#[derive(Debug, Clone)]
pub struct Update {
    /// Off by default.
    pub enabled: bool,
    /// Checks the signature.
    pub public_key_file: Option<PathBuf>,
}
