//! `run`: the daemon.

use super::steady::begin_again;
use super::{CliError, CliResult, SettingsArgs};
use crate::daemon::{self, DaemonError};
use crate::model::SysExit;
use crate::settings::{Loaded, Settings, Sources, load, prepare};
use crate::telemetry::{LogControl, init_logs};
use secrecy::ExposeSecret;

/// The one key that a running agent takes over.
const RELOADED: &str = "log.level";

/// Its value never stands in a row.
const AGENT_KEY: &str = "server.agent_key";

/// Where it may come from. Not in the environment of the second beginning.
const AGENT_KEY_VARIABLE: &str = "BACKUPY_AGENT_KEY";

/// Arguments of `run`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Runs until SIGTERM.
///
/// # Errors
/// 78 for settings and keys, 75 for a second agent on the directory, 65 and 74 for a state that cannot
/// be used, 70 when the agent gives up: init systems start it again for all but 78.
pub fn run(args: Args) -> CliResult {
    let key = begin_again();
    let mut sources = args.settings.sources();
    if let Some(key) = key {
        sources.environment.insert(AGENT_KEY_VARIABLE.to_owned(), key.expose_secret().into());
    }
    let loaded = load(&sources)?;
    let probed = prepare(&loaded)?;
    let log = init_logs(loaded.settings.log).map_err(|error| CliError::new(SysExit::Internal, error))?;
    for warning in loaded.warnings.iter().chain(&probed) {
        tracing::warn!("{warning}");
    }
    let settings = loaded.settings.clone();
    let mut running = loaded;
    let reload = move || reload(&sources, &mut running, &log);
    daemon::run(settings, Box::new(reload)).map_err(|error: DaemonError| CliError::new(error.exit(), &error))
}

/// SIGHUP. What is wrong with the new settings changes nothing.
fn reload(sources: &Sources, running: &mut Loaded, log: &LogControl) {
    let fresh = match load(sources) {
        Ok(fresh) => fresh,
        Err(faults) => {
            for fault in faults.iter() {
                tracing::error!(%fault, "the settings were not read again: the agent goes on with the old ones");
            }
            return;
        }
    };
    for key in changed(running, &fresh) {
        if key == RELOADED {
            log.set_level(fresh.settings.log.level);
            tracing::info!(key, "applied");
        } else {
            tracing::warn!(key, "changed: the agent takes it over when it is restarted");
        }
    }
    // What was not applied stays as it runs, so that the next SIGHUP names it again.
    running.settings.log.level = fresh.settings.log.level;
    running.rows.retain(|row| row.key != RELOADED);
    running.rows.extend(fresh.rows.into_iter().filter(|row| row.key == RELOADED));
}

/// The keys whose value is another one now.
fn changed(running: &Loaded, fresh: &Loaded) -> Vec<&'static str> {
    let key = |settings: &Settings| settings.server.agent_key.expose_secret().to_owned();
    let same_key = key(&running.settings) == key(&fresh.settings);
    let rows = fresh.rows.iter().filter(|row| row.key != AGENT_KEY);
    let differs = |row: &&crate::settings::Row| {
        !running.rows.iter().any(|old| old.key == row.key && old.value == row.value)
    };
    rows.filter(differs).map(|row| row.key).chain((!same_key).then_some(AGENT_KEY)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    fn loaded(changes: &[(&str, &str)]) -> Loaded {
        let dir = std::env::temp_dir();
        let mut environment: BTreeMap<String, OsString> = BTreeMap::from([
            ("BACKUPY_AGENT_KEY".to_owned(), format!("bkpy_test_{}", "a".repeat(32)).into()),
            ("BACKUPY_STATE_DIR".to_owned(), dir.into()),
        ]);
        environment.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))));
        let nowhere = "/nonexistent/agent.toml".into();
        load(&Sources { file: None, default_file: nowhere, environment, flags: Vec::new() }).unwrap()
    }

    #[test]
    fn a_reload_names_every_key_that_changed_and_no_other() {
        let running = loaded(&[]);
        assert_eq!(changed(&running, &loaded(&[])), Vec::<&str>::new());
        let other_key = format!("bkpy_test_{}", "b".repeat(32));
        let fresh = loaded(&[
            ("BACKUPY_LOG_LEVEL", "debug"),
            ("BACKUPY_MAX_QUEUE_BYTES", "1 MiB"),
            ("BACKUPY_AGENT_KEY", &other_key),
        ]);
        let mut keys = changed(&running, &fresh);
        keys.sort_unstable();
        assert_eq!(keys, ["log.level", "server.agent_key", "state.max_queue_bytes"]);
    }
}
