//! Why a database could not be dumped.

use super::tools::Tools;
use crate::spool::SpoolError;
use std::io;
use std::path::PathBuf;

/// A dump's failure. The texts go to the server: no secret is in them.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The run was told to stop.
    #[error("the run was stopped")]
    Cancelled,
    /// The engine is not known.
    #[error(
        "target \"{target}\" is of a database type that this agent does not know: update the agent, or correct the target"
    )]
    UnknownEngine {
        /// Its id.
        target: String,
    },
    /// The engine cannot be reached that way.
    #[error("target \"{target}\": {reason}")]
    Strategy {
        /// Its id.
        target: String,
        /// And what to do.
        reason: &'static str,
    },
    /// The target says something that cannot be used.
    #[error("target \"{target}\": {problem}")]
    Target {
        /// Its id.
        target: String,
        /// What is wrong and what to do; no secret.
        problem: String,
    },
    /// The host has no such tool.
    #[error("{tool} is not installed on this host (looked in {searched}): install the package {package}")]
    ToolMissing {
        /// Its name.
        tool: &'static str,
        /// Directories.
        searched: String,
        /// Debian's.
        package: &'static str,
    },
    /// The container has no such tool.
    #[error(
        "{tool} is not in the container \"{container}\": use an image that has it, as the engine's own has, or publish the server's port on loopback and use the strategy TCP"
    )]
    ToolMissingInside {
        /// Its name.
        tool: String,
        /// As the target calls it.
        container: String,
    },
    /// The Docker engine did not do its part.
    #[error("container \"{container}\": {cause}")]
    Docker {
        /// As the target calls it.
        container: String,
        /// Why.
        cause: crate::docker::Error,
    },
    /// Every such tool of the host is older than the server.
    #[error(
        "target \"{target}\" is {server}, and the newest tool on this host is older ({tool}): install the package {package}"
    )]
    ToolTooOld {
        /// Its id.
        target: String,
        /// Its version.
        server: String,
        /// What the newest tool says of itself.
        tool: String,
        /// Debian's, with one that is new enough.
        package: String,
    },
    /// The tool is there and could not be started.
    #[error("{tool} could not be started: {cause}")]
    ToolStart {
        /// Its name.
        tool: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The tool failed.
    #[error("{tool} {how}{}", words(said))]
    Tool {
        /// Its name.
        tool: String,
        /// How it ended.
        how: String,
        /// The end of its standard error, without secrets.
        said: String,
    },
    /// The tool says that it went well, and its dump is not whole.
    #[error("the {engine} dump of {tool} is no whole one, nothing was stored: {problem}")]
    Form {
        /// For people.
        engine: &'static str,
        /// Its name.
        tool: String,
        /// What is missing.
        problem: String,
    },
    /// A database file cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The stream does not begin as the engine's dumps do.
    #[error("the dump of target \"{target}\" does not begin like one of {engine}: nothing was stored")]
    Magic {
        /// Its id.
        target: String,
        /// Of the driver.
        engine: String,
    },
    /// There is no room for what the driver must put aside.
    #[error(transparent)]
    Scratch(#[from] SpoolError),
    /// The dump could not be handed on: the packing thread ended, and has the reason.
    #[error("the dump could not be handed on: {0}")]
    Output(io::Error),
}

impl DumpError {
    /// A tool that was looked for in vain.
    pub fn missing(tools: &Tools, tool: &'static str, package: &'static str) -> Self {
        let dirs = tools.dirs.iter().map(|dir| dir.display().to_string());
        Self::ToolMissing { tool, searched: dirs.collect::<Vec<_>>().join(":"), package }
    }
}

fn words(said: &str) -> String {
    if said.is_empty() { "; it gave no reason".to_owned() } else { format!(": {said}") }
}
