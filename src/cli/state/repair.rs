//! `state repair`: a damaged state file is moved aside, and what is in it saved.

use super::inspect::{kind_name, there_is_a_state};
use super::quarantine::settle;
use crate::cli::table::Table;
use crate::cli::{CliError, CliResult, SettingsArgs, print, print_json};
use crate::model::SysExit;
use crate::settings::load;
use crate::store::{Lost, RepairReport, repair};
use serde_json::json;
use std::path::PathBuf;

/// Names and ranges that are shown to people; `--json` has all.
const MAX_SHOWN: usize = 20;

/// Arguments of `state repair`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write what is in the quarantine to this new file, one line of JSON a record.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Empty the quarantine: after a look at it, or with --export.
    #[arg(long, conflicts_with = "dry_run")]
    drop_quarantine: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Repairs what needs it. The agent must be stopped.
///
/// # Errors
/// 65 when something could not be saved (it is told what), 66 where there is no state, 73 and 74 when the
/// disk refuses, 75 while an agent runs, 78 for a missing or wrong agent key. Nothing has changed after
/// any but 65.
pub fn run(args: Args) -> CliResult {
    let loaded = load(&args.settings.sources())?;
    let (dir, agent_key) = (&loaded.settings.state.dir, &loaded.settings.server.agent_key);
    there_is_a_state(dir)?;
    let report = repair(dir, agent_key, args.dry_run).map_err(|error| CliError::new(error.exit(), &error))?;
    let settles =
        (args.drop_quarantine || args.export.is_some()) && !(args.dry_run && report.cause.is_some());
    let settled = match settles {
        true => Some(settle(dir, agent_key, args.export.as_deref(), args.drop_quarantine)?),
        false => None,
    };
    if args.json {
        let quarantine = settled.map(|records| {
            json!({ "records": records, "exported_to": args.export, "dropped": args.drop_quarantine })
        });
        print_json(&json!({ "repair": report, "whole": report.cause.is_none(), "quarantine": quarantine }))?;
    } else {
        let mut table = table(&report);
        if let Some(records) = settled {
            let to = args
                .export
                .as_ref()
                .map_or_else(String::new, |path| format!(", written to {}", path.display()));
            let dropped = if args.drop_quarantine { ", dropped" } else { "" };
            table.row("quarantine", format!("{records} records{to}{dropped}"));
        }
        print(table.to_string())?;
    }
    if report.lost.is_nothing() { Ok(()) } else { Err(CliError::silent(SysExit::Data)) }
}

fn table(report: &RepairReport) -> Table {
    let RepairReport { path, cause, dry_run, moved_to, saved, lost, next_seq, seq_jumped } = report;
    let mut table = Table::default();
    table.row("state file", path.display().to_string());
    let Some(cause) = cause else {
        table.row("whole", "nothing to repair, nothing was changed");
        return table;
    };
    table.row("damaged", cause);
    match (moved_to, dry_run) {
        (Some(aside), _) => {
            table.row("moved to", format!("{}: delete it when you need it no more", aside.display()))
        }
        (None, true) => table.row("dry run", "nothing was changed; a repair would come to this:"),
        (None, false) => {}
    }
    let again = match saved.messages_from_raw_bytes {
        0 => String::new(),
        count => format!(
            ", {count} of them from the file's raw bytes: some may have been delivered before, and are sent again \
             under the same seq"
        ),
    };
    table.row("saved", format!("{} messages{again}", saved.messages));
    let version = saved
        .config_version
        .map_or_else(|| "no configuration".to_owned(), |version| format!("configuration {version}"));
    table.row("", format!("{} runs, {version}", saved.runs));
    if saved.quarantined > 0 {
        table.row("", format!("{} records in the quarantine", saved.quarantined));
    }
    lost_rows(&mut table, lost);
    let jumped = if *seq_jumped {
        ": far above every seq that can have been used, for the record of them was lost"
    } else {
        ""
    };
    table.row("next seq", format!("{next_seq}{jumped}"));
    table
}

fn lost_rows(table: &mut Table, lost: &Lost) {
    let Lost { messages, unnamed_messages, missing_seqs, runs, unnamed_runs, values, quarantine, uncounted } =
        lost;
    if lost.is_nothing() {
        table.row("lost", "nothing");
        return;
    }
    let mut row = |text: String| table.row("lost", text);
    for message in messages.iter().take(MAX_SHOWN) {
        row(format!("message {} ({})", message.seq, message.kind.map_or("of an unknown kind", kind_name)));
    }
    if messages.len() > MAX_SHOWN {
        row(format!("and {} more messages: --json names all", messages.len() - MAX_SHOWN));
    }
    if *unnamed_messages > 0 {
        row(format!("{unnamed_messages} messages that are nowhere in the file any more"));
    }
    for run_id in runs.iter().take(MAX_SHOWN) {
        row(format!("run {run_id}"));
    }
    if runs.len() > MAX_SHOWN {
        row(format!("and {} more runs: --json names all", runs.len() - MAX_SHOWN));
    }
    if *unnamed_runs > 0 {
        row(format!("{unnamed_runs} runs that are nowhere in the file any more"));
    }
    values.iter().for_each(|name| row(format!("the value \"{name}\"")));
    if *quarantine {
        row("the quarantine, or a part of it".to_owned());
    }
    if *uncounted {
        row("what else there may have been: the file no longer says how much it had".to_owned());
    }
    for (first, last) in missing_seqs.iter().take(MAX_SHOWN) {
        table.row("not there", format!("seq {first} to {last}: lost, delivered out of order, or never used"));
    }
}
