//! How a control plane is set up: by code (the demo, tests), by file, by flags.

use super::agent_config::AgentConfig;
use crate::model::Secret;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where it listens when nothing is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8443";
/// Where its data lies when nothing is said.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/backupy-control-plane";
/// What agents expect where a server says nothing (protocol section 1).
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// An upload URL must outlive a dump of a large database, and should not live for days.
const DEFAULT_URL_LIFETIME: Duration = Duration::from_secs(6 * 3600);
/// What object stores take in parts (AWS: "Amazon S3 multipart upload limits"); one PUT is bounded by itself.
const DEFAULT_MAX_OBJECT_BYTES: u64 = 5 * 1024 * 1024 * 1024 * 1024;
/// The smallest that S3 takes: agents hold a few of them in memory.
const DEFAULT_PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;
/// 200 KB of URLs: enough for 5 GB before compression, and an agent that expects more makes larger parts, or asks.
const DEFAULT_PART_URLS: u32 = 1_000;

/// Everything that [`serve`](super::serve) must know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// State, keys and objects; made 0700 where it is missing.
    pub data_dir: PathBuf,
    /// How the wire is protected.
    pub tls: Tls,
    /// What agents are told; whole seconds, at least one.
    pub heartbeat_interval: Duration,
    /// Messages are acknowledged one by one after their commit, where the agent offers it; else the agent
    /// goes by pongs, which here come after the commit as well.
    pub end_to_end_acks: bool,
    /// Base of the URLs of objects; else the address by which an agent came.
    pub public_url: Option<String>,
    /// How long an upload or download URL lives.
    pub url_lifetime: Duration,
    /// A longer object is refused.
    pub max_object_bytes: u64,
    /// Agents that can are offered to upload in parts.
    pub multipart: bool,
    /// Of each part but the last, as offered: 5 MiB to 5 GiB.
    pub part_size_bytes: u64,
    /// How many parts' URLs an agent gets at once, 1 to 10,000; more when it asks.
    pub part_urls: u32,
    /// Of each PUT; none means as fast as it comes.
    pub max_upload_bytes_per_sec: Option<u64>,
    /// Made at start where they are missing.
    pub agents: Vec<AgentSeed>,
}

impl Config {
    /// The defaults, with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: DEFAULT_LISTEN.into(),
            data_dir: data_dir.into(),
            tls: Tls::SelfSigned { names: Vec::new() },
            heartbeat_interval: DEFAULT_HEARTBEAT,
            end_to_end_acks: true,
            public_url: None,
            url_lifetime: DEFAULT_URL_LIFETIME,
            max_object_bytes: DEFAULT_MAX_OBJECT_BYTES,
            multipart: true,
            part_size_bytes: DEFAULT_PART_SIZE_BYTES,
            part_urls: DEFAULT_PART_URLS,
            max_upload_bytes_per_sec: None,
            agents: Vec::new(),
        }
    }
}

/// How the wire is protected.
#[derive(Clone, Debug)]
pub enum Tls {
    /// By an own CA in the data directory; the certificate names loopback, this host and these.
    SelfSigned {
        /// DNS names or addresses under which agents reach it.
        names: Vec<String>,
    },
    /// By these PEM files.
    Files {
        /// The chain, the server's certificate first.
        cert: PathBuf,
        /// PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
    /// Not at all: loopback and tests.
    Insecure,
}

/// An agent that is known before it connects.
#[derive(Clone, Debug)]
pub struct AgentSeed {
    /// Unique.
    pub name: String,
    /// How it proves itself.
    pub key: AgentKey,
    /// What it is to do. Becomes a new version when it differs from what was seeded last.
    pub config: Option<AgentConfig>,
}

/// Where an agent's key comes from.
#[derive(Clone, Debug)]
pub enum AgentKey {
    /// Here it is.
    Given(Secret),
    /// In this file; made with a new key, 0600, where it is missing.
    File(PathBuf),
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    public_url: Option<String>,
    #[serde(with = "humantime_serde::option")]
    heartbeat_interval: Option<Duration>,
    end_to_end_acks: Option<bool>,
    tls: FileTls,
    objects: FileObjects,
    agents: Vec<FileAgent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileTls {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileObjects {
    #[serde(with = "humantime_serde::option")]
    url_lifetime: Option<Duration>,
    max_object_bytes: Option<u64>,
    multipart: Option<bool>,
    part_size_bytes: Option<u64>,
    part_urls: Option<u32>,
    max_upload_bytes_per_sec: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAgent {
    name: String,
    agent_key: Option<Secret>,
    agent_key_file: Option<PathBuf>,
    config: Option<AgentConfig>,
}

impl Config {
    /// What the file says, over the defaults.
    ///
    /// # Errors
    /// A text for people, with the path and what is wrong in it.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        Self::from_toml(&text).map_err(|error| format!("{shown}: {error}"))
    }

    fn from_toml(text: &str) -> Result<Self, String> {
        // The full message would show the line, which may hold a key: message and place are enough.
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            format!("line {line}: {}", error.message())
        })?;
        let mut config = Self::new(file.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()));
        config.listen = file.listen.unwrap_or(config.listen);
        config.public_url = file.public_url;
        config.heartbeat_interval = file.heartbeat_interval.unwrap_or(config.heartbeat_interval);
        config.end_to_end_acks = file.end_to_end_acks.unwrap_or(config.end_to_end_acks);
        config.url_lifetime = file.objects.url_lifetime.unwrap_or(config.url_lifetime);
        config.max_object_bytes = file.objects.max_object_bytes.unwrap_or(config.max_object_bytes);
        config.multipart = file.objects.multipart.unwrap_or(config.multipart);
        config.part_size_bytes = file.objects.part_size_bytes.unwrap_or(config.part_size_bytes);
        config.part_urls = file.objects.part_urls.unwrap_or(config.part_urls);
        config.max_upload_bytes_per_sec = file.objects.max_upload_bytes_per_sec;
        config.tls = match (file.tls.cert, file.tls.key) {
            (Some(cert), Some(key)) => Tls::Files { cert, key },
            (None, None) => Tls::SelfSigned { names: file.tls.names },
            _ => return Err("tls.cert and tls.key go together".into()),
        };
        for agent in file.agents {
            let key = match (agent.agent_key, agent.agent_key_file) {
                (Some(key), None) => AgentKey::Given(key),
                (None, Some(path)) => AgentKey::File(path),
                _ => {
                    return Err(format!("agent {:?} needs either agent_key or agent_key_file", agent.name));
                }
            };
            config.agents.push(AgentSeed { name: agent.name, key, config: agent.config });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_that_is_shipped_is_read_as_it_says() {
        let config = Config::from_toml(include_str!("../../config/control-plane.toml")).unwrap();
        assert_eq!(config.listen, DEFAULT_LISTEN);
        assert_eq!(config.heartbeat_interval, DEFAULT_HEARTBEAT);
        assert_eq!(config.url_lifetime, DEFAULT_URL_LIFETIME);
        assert!(config.end_to_end_acks);
        assert_eq!(config.max_object_bytes, DEFAULT_MAX_OBJECT_BYTES);
        assert!(config.multipart);
        assert_eq!(config.part_size_bytes, DEFAULT_PART_SIZE_BYTES);
        assert_eq!(config.part_urls, DEFAULT_PART_URLS);
        assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
        let agent = &config.agents[0];
        let config = agent.config.as_ref().unwrap();
        assert_eq!(super::super::config_rules::faults(config), Vec::<String>::new());
        assert_eq!(config.jobs[0].target_id, config.targets[0].id);
    }

    #[test]
    fn what_is_wrong_is_told_without_showing_a_key() {
        let wrong = |text: &str| Config::from_toml(text).unwrap_err();
        assert!(wrong("lissten = \"x\"").contains("lissten"));
        assert!(wrong("[tls]\ncert = \"x\"").contains("go together"));
        assert!(wrong("[[agents]]\nname = \"a\"").contains("agent_key_file"));
        let key = "bkpy_live_secretsecretsecretsecretsecret12";
        let text = format!("[[agents]]\nname = \"a\"\nagent_key = \"{key}\" 7");
        let told = wrong(&text);
        assert!(told.starts_with("line 3") && !told.contains("secret"), "{told}");
        let given = format!("[[agents]]\nname = \"a\"\nagent_key = \"{key}\"");
        assert!(!format!("{:?}", Config::from_toml(&given).unwrap()).contains("secret"));
    }
}
