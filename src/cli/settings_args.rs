//! The flags that set what the file and the environment set too.

use super::CliError;
use super::run_args::RunArgs;
use crate::model::SysExit;
use crate::settings::{Faults, Flag, Loaded, Sources, load, load_state_dir};
use std::io::Write;
use std::path::PathBuf;

/// Settings on the command line, over the environment and the file. There is no flag for the agent
/// key itself: arguments are public on a host.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// Configuration file [default: /etc/backupy-agent/agent.toml where it is there].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// State directory.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// URL of the control plane.
    #[arg(long, value_name = "URL")]
    server_url: Option<String>,
    /// File that holds the agent key.
    #[arg(long, value_name = "FILE")]
    agent_key_file: Option<String>,
    /// Base64 SHA-256 of accepted public keys, separated by commas.
    #[arg(long, value_name = "PINS")]
    pins: Option<String>,
    /// Bound of the disk queue, such as "256 MiB".
    #[arg(long, value_name = "SIZE")]
    max_queue_bytes: Option<String>,
    /// trace, debug, info, warn or error.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// auto, journald, text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Address of the metrics, "" for none.
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// Look for containers.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    docker_discovery: Option<String>,
    /// Let the control plane run hooks on this host.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    hooks_enabled: Option<String>,
    /// The time of one hook, such as "30s"; at most 15min.
    #[arg(long, value_name = "TIME")]
    hooks_timeout: Option<String>,
    /// Let the control plane replace this binary.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    update_enabled: Option<String>,
    /// File with the key that updates are signed with.
    #[arg(long, value_name = "FILE")]
    update_public_key_file: Option<String>,
    #[command(flatten)]
    runs: RunArgs,
}

impl SettingsArgs {
    /// Where the settings of this process come from.
    pub fn sources(self) -> Sources {
        let flags = [
            ("server.url", self.server_url),
            ("server.agent_key_file", self.agent_key_file),
            ("server.pins", self.pins),
            ("state.dir", self.state_dir),
            ("state.max_queue_bytes", self.max_queue_bytes),
            ("log.level", self.log_level),
            ("log.format", self.log_format),
            ("metrics.listen", self.metrics_listen),
            ("docker.discovery", self.docker_discovery),
            ("hooks.enabled", self.hooks_enabled),
            ("hooks.timeout", self.hooks_timeout),
            ("update.enabled", self.update_enabled),
            ("update.public_key_file", self.update_public_key_file),
        ];
        let given = flags
            .into_iter()
            .chain(self.runs.flags())
            .filter_map(|(key, value)| Some(Flag { key, value: value? }));
        Sources::of_process(self.config, given.collect())
    }

    /// Merges and validates everything.
    ///
    /// # Errors
    /// 78 with one line a fault.
    pub fn load(self) -> Result<Loaded, CliError> {
        load(&self.sources()).map_err(CliError::from)
    }

    /// The state directory alone: what commands need that ask a running agent.
    ///
    /// # Errors
    /// 78 with one line a fault.
    pub fn state_dir(self) -> Result<PathBuf, CliError> {
        load_state_dir(&self.sources()).map_err(CliError::from)
    }
}

impl From<Faults> for CliError {
    fn from(faults: Faults) -> Self {
        Self::many(SysExit::Config, faults.iter())
    }
}

/// Writes warnings on standard error, for commands without a log. Who cannot be warned goes on.
pub fn warn(warnings: &[String]) {
    let mut stderr = std::io::stderr().lock();
    for warning in warnings {
        let _ = writeln!(stderr, "backupy-agent: warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::KEYS;
    use clap::{Args, CommandFactory, FromArgMatches};

    #[test]
    fn every_flag_of_the_table_is_there_and_sets_its_key() {
        let command = SettingsArgs::augment_args(clap::Command::new("test"));
        for key in KEYS.iter().filter(|key| key.flag.is_some()) {
            let flag = format!("--{}=x", key.flag.unwrap());
            let matches = command.clone().try_get_matches_from(["test", &flag]).unwrap();
            let flags = SettingsArgs::from_arg_matches(&matches).unwrap().sources().flags;
            assert_eq!(flags.len(), 1, "{flag}");
            assert_eq!((flags[0].key, flags[0].value.as_str()), (key.name, "x"));
        }
    }

    #[test]
    fn no_flag_takes_the_agent_key_itself() {
        let flags = KEYS.iter().filter(|key| key.flag.is_none()).map(|key| key.name);
        assert_eq!(flags.collect::<Vec<_>>(), ["server.agent_key"]);
        super::super::Cli::command().debug_assert();
    }
}
