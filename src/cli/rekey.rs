//! `rekey`: seals the state under another agent key.

use super::table::Table;
use super::{CliError, CliResult, SettingsArgs, print, print_json};
use crate::model::SysExit;
use crate::settings::{Sources, WhichKey, load, load_state_dir, rekey_key};
use crate::store::{Rekeyed, STATE_FILE, StoreError, rekey};
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;

/// Arguments of `rekey`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys come from these files, else from BACKUPY_OLD_AGENT_KEY(_FILE) and \
BACKUPY_NEW_AGENT_KEY(_FILE), else from the systemd credentials old-agent-key and new-agent-key. One of the two \
may be left out: it is then the configured agent key.")]
pub struct Args {
    /// File with the key that the state is sealed under now.
    #[arg(long, value_name = "FILE")]
    old_key_file: Option<PathBuf>,
    /// File with the key that it shall be sealed under.
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Seals everything anew. The agent must be stopped.
///
/// # Errors
/// 64 without keys or with the same one twice, 65 for a damaged file, 66 where there is no state, 74 when
/// the disk refuses, 75 while an agent runs, 78 for what is no key or not the old one. Nothing has changed
/// after any.
pub fn run(args: Args) -> CliResult {
    let sources = args.settings.sources();
    let dir = load_state_dir(&sources)?;
    let (old, new) = keys(&sources, &args.old_key_file, &args.new_key_file)?;
    if let Err(error) = dir.join(STATE_FILE).symlink_metadata() {
        let path = dir.join(STATE_FILE);
        return Err(CliError::new(
            SysExit::NoInput,
            format_args!("{}: no state is here: {error}", path.display()),
        ));
    }
    let rekeyed = rekey(&dir, &old, &new).map_err(told)?;
    if args.json { print_json(&rekeyed) } else { print(table(&rekeyed).to_string()) }
}

/// Here a wrong key is another thing than at the start of an agent.
fn told(error: StoreError) -> CliError {
    if let StoreError::WrongKey { path } = &error {
        return CliError::new(
            SysExit::Config,
            format_args!(
                "{}: sealed under neither the old key nor the new one: nothing was changed; name the key that the \
                 agent ran with last",
                path.display()
            ),
        );
    }
    CliError::new(error.exit(), &error)
}

fn keys(
    sources: &Sources,
    old_file: &Option<PathBuf>,
    new_file: &Option<PathBuf>,
) -> Result<(SecretString, SecretString), CliError> {
    let old = rekey_key(sources, WhichKey::Old, old_file.as_deref())?;
    let new = rekey_key(sources, WhichKey::New, new_file.as_deref())?;
    let configured = || Ok::<_, CliError>(load(sources)?.settings.server.agent_key);
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) => (old, configured()?),
        (None, Some(new)) => (configured()?, new),
        (None, None) => {
            return Err(CliError::new(
                SysExit::Usage,
                "name the key that the state is sealed under (--old-key-file), the new one (--new-key-file), or both",
            ));
        }
    };
    if old.expose_secret() == new.expose_secret() {
        return Err(CliError::new(SysExit::Usage, "the old key and the new one are the same"));
    }
    Ok((old, new))
}

fn table(rekeyed: &Rekeyed) -> Table {
    let Rekeyed { path, already, messages, runs, config_version, quarantined, set_aside, next_seq } = rekeyed;
    let mut table = Table::default();
    table.row("state file", path.display().to_string());
    if *already {
        table.row("nothing to do", "it is sealed under the new key already");
        return table;
    }
    let version = config_version
        .map_or_else(|| "no configuration".to_owned(), |version| format!("configuration {version}"));
    table.row("sealed anew", format!("{messages} messages, {runs} runs, {version}"));
    if *quarantined > 0 {
        table.row(
            "quarantine",
            format!("{quarantined} records, {set_aside} of them new: `state inspect` shows them"),
        );
    }
    table.row("next seq", next_seq.to_string());
    table
}
