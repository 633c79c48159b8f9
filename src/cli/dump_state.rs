//! `dump-state`: what the agent keeps on its disk.

use super::{CliError, CliResult, SettingsArgs, print_json};
use crate::daemon::client::{AskError, ask};
use crate::daemon::control::Request;
use crate::daemon::dump;
use crate::model::SysExit;
use crate::settings::{Sources, load, load_state_dir};
use crate::store::{STATE_FILE, Store};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The store may be in the middle of a commit to a slow disk.
const LIMIT: Duration = Duration::from_secs(5);

/// Arguments of `dump-state`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show passwords, keys and presigned URLs in the clear.
    #[arg(long)]
    allow_secrets: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Prints the state as JSON. The running agent is asked; where none runs, the file is read.
///
/// # Errors
/// 69 when the agent does not answer or there is no state, 75 when another process has the file, 78
/// when the file needs an agent key that is not there or does not fit.
pub fn run(args: Args) -> CliResult {
    let sources = args.settings.sources();
    let state_dir = load_state_dir(&sources)?;
    match ask::<Value>(&state_dir, Request::DumpState { allow_secrets: args.allow_secrets }, LIMIT) {
        Ok(state) => print_json(&state),
        Err(AskError::NotRunning(_)) => print_json(&read_file(&state_dir, &sources, args.allow_secrets)?),
        Err(error) => Err(error.into()),
    }
}

/// The state file itself, opened for reading alone. It is sealed: this needs the agent key.
fn read_file(state_dir: &Path, sources: &Sources, allow_secrets: bool) -> Result<Value, CliError> {
    // Checked first: looking must not make a directory.
    let path = state_dir.join(STATE_FILE);
    if !path.exists() {
        return Err(CliError::new(
            SysExit::Unavailable,
            format_args!(
                "{}: no agent runs on this state directory, and it holds no state",
                state_dir.display()
            ),
        ));
    }
    let settings = load(sources)?.settings;
    let (_store, recovered) = Store::open_read_only(state_dir, &settings.server.agent_key)
        .map_err(|error| CliError::new(error.exit(), &error))?;
    Ok(dump(&recovered, allow_secrets))
}
