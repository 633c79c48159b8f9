//! An agent's configuration as the REST face and the configuration file write it, and as the wire has it.

use crate::wire::v1;
use serde::{Deserialize, Serialize};

/// The whole configuration of one agent. A change makes a new version of the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Databases.
    pub targets: Vec<Target>,
    /// Backups of targets.
    pub jobs: Vec<Job>,
    /// Endpoints that the agent looks at.
    pub health_checks: Vec<HealthCheck>,
    /// Holds runs that nobody started by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// How the agent works.
    pub advanced: Advanced,
}

/// A database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Named by jobs.
    pub id: String,
    /// Which engine.
    #[serde(rename = "type")]
    pub engine: Engine,
    /// For people.
    #[serde(default)]
    pub display_name: String,
    /// Where it is and who asks.
    #[serde(default)]
    pub connection: Connection,
}

/// A database engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the engines' own names")]
pub enum Engine {
    Postgresql,
    Mysql,
    Mariadb,
    Mongodb,
    Redis,
    #[default]
    Sqlite,
}

/// How the agent reaches an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By host and port.
    #[default]
    Tcp,
    /// By exec in a container.
    DockerExec,
    /// By a socket of the agent's host.
    UnixSocket,
}

/// Where a database is and who asks.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Name or address; for a unix socket its directory or path.
    pub host: String,
    /// 0 means the engine's own.
    pub port: u16,
    /// For SQLite the path of the file on the agent's host.
    pub database: String,
    /// Empty means the engine's own.
    pub username: String,
    /// `env:NAME`, `file:/path`, `credential:NAME`, `literal:VALUE`, else the password itself.
    pub password_secret_ref: String,
    /// For `docker_exec`.
    pub container_id: String,
    /// How it is reached.
    pub strategy: Strategy,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({}:{} {})", self.host, self.port, self.database)
    }
}

/// A backup job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What `POST /v1/jobs/:id/run` names.
    pub id: String,
    /// What it backs up.
    pub target_id: String,
    /// In UTC.
    #[serde(default)]
    pub cron: String,
    /// 0 keeps everything.
    #[serde(default)]
    pub retention_days: u32,
    /// `zstd`, `gzip` or `none`; empty means zstd.
    #[serde(default)]
    pub compression: String,
    /// Objects are always encrypted, whatever stands here.
    #[serde(default = "yes")]
    pub encryption_enabled: bool,
    /// Shell commands before the dump.
    #[serde(default)]
    pub pre_hooks: Vec<String>,
    /// Shell commands after the run.
    #[serde(default)]
    pub post_hooks: Vec<String>,
    /// Over the whole run; 0 means no limit.
    #[serde(default)]
    pub timeout_sec: u32,
}

fn yes() -> bool {
    true
}

/// What a health check does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckType {
    /// GET in the clear.
    #[default]
    Http,
    /// GET over TLS.
    Https,
    /// Connect only.
    Tcp,
}

/// An endpoint that the agent looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Named by results.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What is done.
    #[serde(rename = "type", default)]
    pub kind: CheckType,
    /// A URL, or host:port.
    pub target: String,
    /// 0 means 60.
    #[serde(default)]
    pub interval_sec: u32,
    /// 0 means 10.
    #[serde(default)]
    pub timeout_sec: u32,
    /// 0 means any 2xx.
    #[serde(default)]
    pub expected_status: u32,
}

/// `HH:MM` to `HH:MM`, UTC; may cross midnight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// From.
    pub start_utc: String,
    /// To.
    pub end_utc: String,
}

/// How the agent works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Advanced {
    /// 0 means 1.
    pub max_parallel_jobs: u32,
    /// Empty leaves the agent's own.
    pub log_level: String,
    /// Whether SelfUpdate is wanted.
    pub auto_update_enabled: bool,
}

impl AgentConfig {
    /// As the agent gets it.
    pub fn to_wire(&self, version: u64) -> v1::AgentConfig {
        v1::AgentConfig {
            version,
            targets: self.targets.iter().map(Target::to_wire).collect(),
            jobs: self.jobs.iter().map(Job::to_wire).collect(),
            health_checks: self.health_checks.iter().map(HealthCheck::to_wire).collect(),
            maintenance: self.maintenance.as_ref().map(|window| v1::MaintenanceWindow {
                start_utc: window.start_utc.clone(),
                end_utc: window.end_utc.clone(),
            }),
            advanced: Some(v1::AdvancedSettings {
                max_parallel_jobs: self.advanced.max_parallel_jobs,
                log_level: self.advanced.log_level.clone(),
                auto_update_enabled: self.advanced.auto_update_enabled,
            }),
        }
    }
}

impl Target {
    fn to_wire(&self) -> v1::Target {
        let engine = match self.engine {
            Engine::Postgresql => v1::DbType::Postgresql,
            Engine::Mysql => v1::DbType::Mysql,
            Engine::Mariadb => v1::DbType::Mariadb,
            Engine::Mongodb => v1::DbType::Mongodb,
            Engine::Redis => v1::DbType::Redis,
            Engine::Sqlite => v1::DbType::Sqlite,
        };
        v1::Target {
            id: self.id.clone(),
            r#type: engine.into(),
            display_name: self.display_name.clone(),
            connection: Some(self.connection.to_wire()),
        }
    }
}

impl Connection {
    fn to_wire(&self) -> v1::ConnectionConfig {
        let strategy = match self.strategy {
            Strategy::Tcp => v1::ConnectionStrategy::Tcp,
            Strategy::DockerExec => v1::ConnectionStrategy::DockerExec,
            Strategy::UnixSocket => v1::ConnectionStrategy::UnixSocket,
        };
        v1::ConnectionConfig {
            host: self.host.clone(),
            port: self.port.into(),
            database: self.database.clone(),
            username: self.username.clone(),
            password_secret_ref: self.password_secret_ref.clone(),
            container_id: self.container_id.clone(),
            strategy: strategy.into(),
        }
    }
}

impl Job {
    fn to_wire(&self) -> v1::BackupJobSpec {
        v1::BackupJobSpec {
            id: self.id.clone(),
            target_id: self.target_id.clone(),
            cron: self.cron.clone(),
            retention_days: self.retention_days,
            compression: self.compression.clone(),
            encryption_enabled: self.encryption_enabled,
            pre_hooks: self.pre_hooks.clone(),
            post_hooks: self.post_hooks.clone(),
            retry: None,
            timeout_sec: self.timeout_sec,
        }
    }
}

impl HealthCheck {
    fn to_wire(&self) -> v1::HealthCheckSpec {
        let kind = match self.kind {
            CheckType::Http => v1::CheckType::Http,
            CheckType::Https => v1::CheckType::Https,
            CheckType::Tcp => v1::CheckType::TcpCheck,
        };
        v1::HealthCheckSpec {
            id: self.id.clone(),
            name: self.name.clone(),
            r#type: kind.into(),
            target: self.target.clone(),
            interval_sec: self.interval_sec,
            timeout_sec: self.timeout_sec,
            expected_status: self.expected_status,
        }
    }
}
