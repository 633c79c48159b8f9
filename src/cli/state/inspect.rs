//! `state inspect`: counts, sizes, ages, what was set aside.

use crate::cli::table::{Table, ago, bytes};
use crate::cli::{CliError, CliResult, SettingsArgs, print, print_json};
use crate::daemon::client::{AskError, ask};
use crate::daemon::control::Request;
use crate::daemon::report::{StateReport, Unsealed};
use crate::model::{MessageKind, SysExit, unix_ms};
use crate::settings::{Sources, load, load_state_dir};
use crate::store::{STATE_FILE, Store, inspect_without_key};
use std::path::Path;
use std::time::Duration;

/// The store may be in the middle of a commit to a slow disk, or have a long queue to count.
const LIMIT: Duration = Duration::from_secs(5);

/// Records of the quarantine that are shown to people; `--json` has all.
const MAX_SHOWN: usize = 20;

/// Arguments of `state inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read the file of a stopped agent without the agent key: counts and sizes only.
    #[arg(long)]
    without_key: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// The running agent is asked; where none runs, the file is read, and not changed.
///
/// # Errors
/// 65 for a damaged file, 66 where there is no state, 69 when the agent does not answer, 75 when another
/// process has the file, 78 for a missing or wrong agent key.
pub fn run(args: Args) -> CliResult {
    let sources = args.settings.sources();
    let state_dir = load_state_dir(&sources)?;
    let report = match ask::<StateReport>(&state_dir, Request::InspectState, LIMIT) {
        Ok(report) => report,
        Err(AskError::NotRunning(_)) => read_file(&state_dir, &sources, args.without_key)?,
        Err(error) => return Err(error.into()),
    };
    if args.json { print_json(&report) } else { print(table(&report, unix_ms()).to_string()) }
}

/// There must be a state before anything is done with it: looking makes no directory.
pub(super) fn there_is_a_state(state_dir: &Path) -> Result<(), CliError> {
    match state_dir.join(STATE_FILE).symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::new(
            SysExit::NoInput,
            format_args!("{}: no state is here: {error}", state_dir.join(STATE_FILE).display()),
        )),
    }
}

fn read_file(state_dir: &Path, sources: &Sources, without_key: bool) -> Result<StateReport, CliError> {
    there_is_a_state(state_dir)?;
    let inspected = if without_key {
        inspect_without_key(state_dir)
    } else {
        let settings = load(sources)?.settings;
        Store::open_read_only(state_dir, &settings.server.agent_key)
            .and_then(|(mut store, _)| store.inspect())
    };
    let inspection = inspected.map_err(|error| CliError::new(error.exit(), &error))?;
    Ok(StateReport::of(&inspection))
}

/// The name of a kind for people.
pub(super) fn kind_name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Run => "results of runs",
        MessageKind::HealthResult => "results of health checks",
        MessageKind::Log => "log events",
    }
}

fn table(report: &StateReport, now_ms: u64) -> Table {
    let StateReport { path, file_bytes, content_bytes, layout, messages, runs, quarantine, unsealed } =
        report;
    let mut table = Table::default();
    table.row("state file", format!("{}, layout {layout}", path.display()));
    table.row("size", format!("{} on the disk, {} of content", bytes(*file_bytes), bytes(*content_bytes)));
    table.row("waiting", format!("{} messages, {}", messages.count, bytes(messages.bytes)));
    for of_kind in messages.by_kind.iter().filter(|of_kind| of_kind.count > 0) {
        let kind = kind_name(of_kind.kind);
        table.row("", format!("{} {kind}, {}", of_kind.count, bytes(of_kind.bytes)));
    }
    if let (Some(first), Some(last)) = (messages.first_seq, messages.last_seq) {
        table.row("", format!("seq {first} to {last}"));
    }
    let counts = [(runs.accepted, "not started"), (runs.started, "started"), (runs.finished, "over")];
    let counts: Vec<_> =
        counts.iter().filter_map(|(count, name)| Some(format!("{} {name}", (*count)?))).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    table.row("runs", format!("{}{counts}", runs.count));
    match unsealed {
        Some(unsealed) => unsealed_rows(&mut table, unsealed, now_ms),
        None => table.row("sealed", "ages, configuration and seqs need the agent key"),
    }
    table.row(
        "set aside",
        if quarantine.is_empty() { "nothing".to_owned() } else { format!("{} records", quarantine.len()) },
    );
    for record in quarantine.iter().take(MAX_SHOWN) {
        let when = record.at_ms.map_or_else(|| "at an unknown time".to_owned(), |at_ms| ago(at_ms, now_ms));
        table.row(
            "",
            format!("{} {}, {} bytes, {when}: {}", record.table, record.name, record.bytes, record.reason),
        );
    }
    if quarantine.len() > MAX_SHOWN {
        table.row("", format!("and {} more: --json shows all", quarantine.len() - MAX_SHOWN));
    }
    table
}

fn unsealed_rows(table: &mut Table, unsealed: &Unsealed, now_ms: u64) {
    let Unsealed { oldest_ms, oldest_age_s: _, next_seq, config_version, session_id, broken } = unsealed;
    if let Some(oldest_ms) = oldest_ms {
        table.row("oldest", ago(*oldest_ms, now_ms));
    }
    table.row("next seq", next_seq.to_string());
    table.row(
        "configuration",
        config_version.map_or_else(|| "none yet".to_owned(), |version| format!("version {version}")),
    );
    table.row("session", session_id.clone().unwrap_or_else(|| "none yet".to_owned()));
    if *broken > 0 {
        table.row("do not open", format!("{broken} records, which the agent sets aside when it starts"));
    }
}
