//! `health-check`: one line and an exit code, for HEALTHCHECK and monitoring.

use super::{CliError, CliResult, SettingsArgs, print};
use crate::daemon::client::{AskError, ask};
use crate::daemon::control::{Health, Request};
use crate::model::SysExit;
use std::time::Duration;

/// Monitoring hears within 2 s, also of an agent that is stuck: something is left for the start of
/// this process.
const LIMIT: Duration = Duration::from_millis(1800);

/// Arguments of `health-check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the control plane may have been out of reach, in minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    max_disconnected: u64,
    /// An agent without a connection is healthy as well.
    #[arg(long)]
    allow_disconnected: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Says whether the agent runs, answers, and has its link.
///
/// # Errors
/// 69 when no agent answers; the same when it runs and is not well.
pub fn run(args: Args) -> CliResult {
    let allowed =
        (!args.allow_disconnected).then(|| Duration::from_secs(args.max_disconnected.saturating_mul(60)));
    let state_dir = args.settings.state_dir()?;
    let unhealthy = |why: &str| CliError::new(SysExit::Unavailable, format_args!("unhealthy: {why}"));
    let health: Health =
        ask(&state_dir, Request::Health, LIMIT).map_err(|error: AskError| unhealthy(&error.to_string()))?;
    match judge(&health, allowed) {
        Ok(words) => print(format!("healthy: {words}\n")),
        Err(why) => Err(unhealthy(&why)),
    }
}

/// Healthy or not, in words; `allowed` is how long no link may have stood, None for ever.
fn judge(health: &Health, allowed: Option<Duration>) -> Result<String, String> {
    let Health { pid, silent, connected, disconnected_s, write_error } = health;
    if !silent.is_empty() {
        return Err(format!("pid {pid} runs, and does not answer in: {}", silent.join(", ")));
    }
    if let Some(error) = write_error {
        return Err(format!("pid {pid} cannot write its state: {error}"));
    }
    if allowed.is_some_and(|allowed| !connected && *disconnected_s > allowed.as_secs()) {
        return Err(format!(
            "pid {pid} has had no connection to the control plane for {disconnected_s} s; `backupy-agent status` \
             says why"
        ));
    }
    Ok(if *connected {
        format!("pid {pid}, connected")
    } else {
        format!("pid {pid}, not connected for {disconnected_s} s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Health {
        Health { pid: 1, silent: vec![], connected: true, disconnected_s: 0, write_error: None }
    }

    #[test]
    fn an_agent_is_healthy_while_its_actors_answer_its_disk_takes_writes_and_its_link_is_not_gone_too_long() {
        let quarter = Some(Duration::from_secs(900));
        let cut_off = |disconnected_s| Health { connected: false, disconnected_s, ..well() };
        assert!(judge(&well(), quarter).is_ok());
        assert!(judge(&cut_off(900), quarter).is_ok());
        assert!(judge(&cut_off(901), quarter).is_err());
        assert!(judge(&cut_off(1_000_000), None).is_ok());
        let silent = Health { silent: vec!["queue".into()], ..well() };
        assert!(judge(&silent, None).is_err_and(|why| why.contains("queue")));
        let full = Health { write_error: Some("no space left".into()), ..well() };
        assert!(judge(&full, None).is_err_and(|why| why.contains("no space")));
    }
}
