//! What the control plane wants of this agent: the domain's view of `AgentConfig`.

use super::{HealthCheck, JobId, Secret, TargetId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An applied configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Grows with every change; 0 before the first.
    pub version: u64,
    /// Databases.
    pub targets: Vec<TargetSpec>,
    /// Backups of targets.
    pub jobs: Vec<JobSpec>,
    /// What is looked at; each id once.
    pub health_checks: Vec<HealthCheck>,
    /// Holds runs that nobody started by hand.
    pub maintenance: Option<MaintenanceWindow>,
    /// Runs at once, at least 1.
    pub max_parallel_jobs: usize,
}

impl Plan {
    /// The job of that name.
    pub fn job(&self, id: &JobId) -> Option<&JobSpec> {
        self.jobs.iter().find(|job| job.id == *id)
    }

    /// The target of that name.
    pub fn target(&self, id: &TargetId) -> Option<&TargetSpec> {
        self.targets.iter().find(|target| target.id == *id)
    }
}

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// MongoDB.
    Mongodb,
    /// Redis and Valkey.
    Redis,
    /// SQLite.
    Sqlite,
}

/// How a target's engine is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By host and port.
    #[default]
    Tcp,
    /// By exec in a container.
    DockerExec,
    /// By a socket of this host.
    UnixSocket,
}

/// A database to back up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// Its name in the configuration.
    pub id: TargetId,
    /// None where the server named an engine that this agent does not know.
    pub engine: Option<Engine>,
    /// For people.
    pub display_name: String,
    /// Where it is.
    pub connection: Connection,
}

/// Where a database is and who asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Name or address; for a unix socket its directory or path.
    pub host: String,
    /// 0 means the engine's own.
    pub port: u16,
    /// For SQLite the file's path.
    pub database: String,
    /// Empty means the engine's own.
    pub username: String,
    /// A reference (`env:`, `file:`, `credential:`, `literal:`) or the password itself.
    pub password_ref: Secret,
    /// For [`Strategy::DockerExec`].
    pub container_id: String,
    /// How it is reached.
    pub strategy: Strategy,
}

/// How the stream is made smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Also what an empty name means.
    #[default]
    Zstd,
    /// RFC 1952.
    Gzip,
    /// As it comes.
    None,
}

impl Compression {
    /// The name on the wire (BackupJobSpec.compression, BackupCompleted.compression).
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}

/// A backup job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name in the configuration.
    pub id: JobId,
    /// What it backs up.
    pub target_id: TargetId,
    /// None where the server named an algorithm that this agent does not know.
    pub compression: Option<Compression>,
    /// Shell commands before the dump.
    pub pre_hooks: Vec<String>,
    /// Shell commands after the run.
    pub post_hooks: Vec<String>,
    /// Over the whole run; none means no limit.
    pub timeout: Option<Duration>,
}

/// Minutes of the day, UTC; `end` before `start` crosses midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceWindow {
    /// Minute of the day, 0..1440.
    pub start_min: u16,
    /// Minute of the day, 0..1440; equal to the start means an empty window.
    pub end_min: u16,
}

impl MaintenanceWindow {
    /// Whether the minute of the day lies inside.
    pub fn contains(&self, minute: u16) -> bool {
        if self.start_min <= self.end_min {
            (self.start_min..self.end_min).contains(&minute)
        } else {
            minute >= self.start_min || minute < self.end_min
        }
    }
}
