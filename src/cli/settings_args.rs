//! The flags that set what the file and the environment set too.

use super::CliError;
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
    /// PEM file with the roots that the control plane's certificate must lead to.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<String>,
    /// Base64 SHA-256 of accepted public keys, separated by commas.
    #[arg(long, value_name = "PINS")]
    pins: Option<String>,
    /// Allow http and ws, for development.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_insecure: Option<String>,
    /// HTTP proxy that takes CONNECT.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Hosts that are reached without the proxy, separated by commas.
    #[arg(long, value_name = "HOSTS")]
    no_proxy: Option<String>,
    /// Bound of the disk queue, such as "256 MiB".
    #[arg(long, value_name = "SIZE")]
    max_queue_bytes: Option<String>,
    /// Free space below which new work is refused, such as "64 MiB".
    #[arg(long, value_name = "SIZE")]
    min_free_bytes: Option<String>,
    /// trace, debug, info, warn or error.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// auto, journald, text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Address of the metrics, "" for none.
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// Socket of the Docker engine.
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<String>,
    /// Look for containers.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    docker_discovery: Option<String>,
    /// Let the control plane run hooks on this host.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    hooks_enabled: Option<String>,
    /// The time of one hook, such as "30s"; at most 15min.
    #[arg(long, value_name = "TIME")]
    hooks_timeout: Option<String>,
    /// Directory for encrypted objects on their way.
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<String>,
    /// Whether a whole object lies on the disk before it goes up: auto, always or never.
    #[arg(long, value_name = "USE")]
    spool: Option<String>,
    /// 1 to 22.
    #[arg(long, value_name = "LEVEL")]
    zstd_level: Option<String>,
    /// Compression threads.
    #[arg(long, value_name = "COUNT")]
    threads: Option<String>,
    /// Niceness of dump tools, 0 to 19.
    #[arg(long, value_name = "NUMBER")]
    nice: Option<String>,
    /// Dump tools read the disk only when nobody else does.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    idle_io: Option<String>,
    /// Read no faster from databases, such as "10 MiB"; 0 is no limit.
    #[arg(long, value_name = "SIZE")]
    max_read_bytes_per_sec: Option<String>,
    /// Upload no faster; 0 is no limit.
    #[arg(long, value_name = "SIZE")]
    max_upload_bytes_per_sec: Option<String>,
    /// Let the control plane replace this binary.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    update_enabled: Option<String>,
    /// File with the key that updates are signed with.
    #[arg(long, value_name = "FILE")]
    update_public_key_file: Option<String>,
}

impl SettingsArgs {
    /// Where the settings of this process come from.
    pub fn sources(self) -> Sources {
        let flags = [
            ("server.url", self.server_url),
            ("server.agent_key_file", self.agent_key_file),
            ("server.ca_file", self.ca_file),
            ("server.pins", self.pins),
            ("server.allow_insecure", self.allow_insecure),
            ("server.proxy", self.proxy),
            ("server.no_proxy", self.no_proxy),
            ("state.dir", self.state_dir),
            ("state.max_queue_bytes", self.max_queue_bytes),
            ("state.min_free_bytes", self.min_free_bytes),
            ("log.level", self.log_level),
            ("log.format", self.log_format),
            ("metrics.listen", self.metrics_listen),
            ("docker.socket", self.docker_socket),
            ("docker.discovery", self.docker_discovery),
            ("hooks.enabled", self.hooks_enabled),
            ("hooks.timeout", self.hooks_timeout),
            ("backup.spool_dir", self.spool_dir),
            ("backup.spool", self.spool),
            ("backup.zstd_level", self.zstd_level),
            ("backup.threads", self.threads),
            ("backup.nice", self.nice),
            ("backup.idle_io", self.idle_io),
            ("backup.max_read_bytes_per_sec", self.max_read_bytes_per_sec),
            ("backup.max_upload_bytes_per_sec", self.max_upload_bytes_per_sec),
            ("update.enabled", self.update_enabled),
            ("update.public_key_file", self.update_public_key_file),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some(Flag { key, value: value? }));
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
