//! `verify`: whether an object can be restored, without writing it anywhere.

mod restore;

use super::opening::{Failure, OpeningArgs, Report};
use super::{CliResult, print, print_json};
use indicatif::DecimalBytes;
use restore::{Restored, restore};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    opening: OpeningArgs,
    /// Make a database of it again, look at every page of it, count its tables and rows, and throw it away: SQLite only.
    /// The copy is not encrypted; it has no name on the disk, and is gone when this command ends, however it ends.
    #[arg(long)]
    restore: bool,
    /// Where the copy of --restore lies meanwhile [default: the directory for temporary files].
    #[arg(long, value_name = "DIR", requires = "restore")]
    restore_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a Restored>,
}

/// Opens the whole object, unpacks it, and says what was found.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: Args) -> CliResult {
    match verify(&args) {
        Ok((report, restored)) if args.opening.json => {
            print_json(&Told { ok: true, report: &report, restored: restored.as_ref() })
        }
        Ok(_) if args.opening.quiet => Ok(()),
        Ok((report, restored)) => {
            let counted = restored.as_ref().map(counts).unwrap_or_default();
            print(page(&args.opening, &report) + &counted)
        }
        Err(failure) => {
            if args.opening.json {
                print_json(&failure.json())?;
            }
            Err(failure.told(&args.opening.input_name(), ""))
        }
    }
}

fn verify(args: &Args) -> Result<(Report, Option<Restored>), Failure> {
    let opening = &args.opening;
    let key = opening.read_key()?;
    if !args.restore {
        return Ok((opening.open_into(&key, &mut std::io::sink())?, None));
    }
    let dir = args.restore_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (report, restored) = restore(opening, &key, &dir)?;
    Ok((report, Some(restored)))
}

/// What the restored database has.
fn counts(restored: &Restored) -> String {
    let Restored { engine, tables, rows } = restored;
    let mut page = format!("  restored {} tables, {rows} rows, sound ({engine})\n", tables.len());
    for (name, rows) in tables {
        page.push_str(&format!("    {name:<28} {rows}\n"));
    }
    page
}

fn page(opening: &OpeningArgs, report: &Report) -> String {
    let frames =
        if report.order_checked { "all there, each in its place" } else { "their order was not checked" };
    let sha256 = if report.sha256_matches_token { "as the token says" } else { "not held against a token" };
    let packed = match report.compression {
        "none" => "not packed, or left as it is".to_owned(),
        name => format!("{name} of {}", DecimalBytes(report.sealed_bytes)),
    };
    let warning =
        opening.warning(report).map(|warning| format!("  warning  {warning}\n")).unwrap_or_default();
    let run = report.run_id.as_ref().map(|id| format!("  run      {id}\n")).unwrap_or_default();
    format!(
        "{}: opens, to its end\n{run}  object   {} ({} bytes)\n  frames   {}, {frames}\n  \
         sha256   {} ({sha256})\n  content  {} ({} bytes; {packed})\n{warning}",
        opening.input_name(),
        DecimalBytes(report.object_bytes),
        report.object_bytes,
        report.frames,
        report.sha256,
        DecimalBytes(report.content_bytes),
        report.content_bytes,
    )
}
