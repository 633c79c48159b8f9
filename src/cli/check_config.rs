//! `check-config`: what the agent would run with, and where each value comes from.

use super::settings_args::warn;
use super::{CliResult, SettingsArgs, print, print_json};
use crate::settings::{Loaded, Row, prepare};
use serde::Serialize;
use std::fmt::Write;

/// Arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

#[derive(Serialize)]
struct Report {
    settings: Vec<Row>,
    warnings: Vec<String>,
}

/// Prints the settings, secrets masked. The state directory is made and probed as `run` would.
///
/// # Errors
/// 78 with one line a fault.
pub fn run(args: Args) -> CliResult {
    let loaded = args.settings.load()?;
    let probed = prepare(&loaded)?;
    let Loaded { rows, mut warnings, .. } = loaded;
    warnings.extend(probed);
    if args.json {
        return print_json(&Report { settings: rows, warnings });
    }
    print(table(&rows))?;
    warn(&warnings);
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let width = |text: fn(&Row) -> &str| rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0);
    let keys = width(|row| row.key);
    let values = width(|row| &row.value);
    let mut table = String::new();
    for Row { key, value, source } in rows {
        // Writing into a String does not fail.
        let _ = writeln!(table, "{key:keys$} = {value:values$}  ({source})");
    }
    table
}
