//! `verify`: whether an object can be restored, without writing it anywhere, or by restoring it for a look.

mod recorded;
mod restore;

use super::opening::{Failure, Key, OpeningArgs, Report};
use super::{CliResult, print, print_json};
use crate::drivers::Tally;
use indicatif::DecimalBytes;
use recorded::Recorded;
use restore::{Restored, restore};
use serde::Serialize;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
With --restore the backup becomes a database again: in a throwaway server of its engine (PostgreSQL, MariaDB, Redis or \
Valkey), which nobody can reach but by a socket in its own directory, or in the linked SQLite. Its tables and rows are \
counted there, and held against those that the dump had as it was unpacked, and against what the run noted when it made \
the backup, where that is known: --manifest, else OBJECT.manifest beside the object, else the agent of this host, by the \
token's run. Owners and privileges of PostgreSQL are left out: roles are not in a backup of a database.

Meanwhile the plaintext lies in --restore-dir, in a directory of mode 0700, and about as large as the database was. It is \
removed however this command ends; only what ends the whole host at once leaves it.

Exit codes: 0 good, 64 wrong flags, 65 the token, the object or what is in it does not hold, 66 no such input, 69 this host \
cannot restore it (a server is missing or failed), 73 --restore-dir takes nothing, 74 reading or writing failed.";

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    opening: OpeningArgs,
    /// Make a database of it again, look at all of it, count its tables and rows, and throw it away.
    #[arg(long)]
    restore: bool,
    /// Where the restored database lies meanwhile [default: the directory for temporary files].
    #[arg(long, value_name = "DIR", requires = "restore")]
    restore_dir: Option<PathBuf>,
    /// What the run noted of the backup: a file of `backup --manifest-out`, or the result of `backup --json`.
    #[arg(long, value_name = "FILE", requires = "restore")]
    manifest: Option<PathBuf>,
    /// The state directory of the agent of this host, which keeps what its runs noted.
    #[arg(long, value_name = "DIR", requires = "restore", default_value = "/var/lib/backup-agent")]
    state_dir: PathBuf,
}

/// A page of a terminal; all of them stand in the JSON.
const SHOWN_TABLES: usize = 32;

/// A good look at a restored backup.
struct Looked {
    restored: Restored,
    recorded: Option<Recorded>,
}

#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a Restored>,
    /// Where the manifest was found that it was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a str>,
}

/// Opens the whole object, unpacks it, and says what was found.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: Args) -> CliResult {
    match verify(&args) {
        Ok((report, looked)) if args.opening.json => print_json(&Told {
            ok: true,
            report: &report,
            restored: looked.as_ref().map(|looked| &looked.restored),
            manifest: looked.as_ref().and_then(|looked| Some(looked.recorded.as_ref()?.source.as_str())),
        }),
        Ok(_) if args.opening.quiet => Ok(()),
        Ok((report, looked)) => {
            let counted = looked.as_ref().map(counts).unwrap_or_default();
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

fn verify(args: &Args) -> Result<(Report, Option<Looked>), Failure> {
    let opening = &args.opening;
    let key = opening.read_key()?;
    if !args.restore {
        return Ok((opening.open_into(&key, &mut std::io::sink())?, None));
    }
    let recorded = recorded(args, &key)?;
    let dir = args.restore_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (report, restored, counted) = restore(opening, &key, &dir)?;
    let recorded = match (recorded, counted) {
        (Some(recorded), Some(counted)) => Some(held_against(recorded, &counted)?),
        (_, _) => None,
    };
    Ok((report, Some(Looked { restored, recorded })))
}

/// Before any work: a manifest that is none must not cost an hour.
fn recorded(args: &Args, key: &Key) -> Result<Option<Recorded>, Failure> {
    let given: Option<&Path> = args.manifest.as_deref();
    recorded::find(&args.opening, key, given, &args.state_dir)
}

fn held_against(recorded: Recorded, counted: &Tally) -> Result<Recorded, Failure> {
    let there = format!("the manifest ({})", recorded.source);
    let differences = counted.against(&recorded.manifest, "the object", &there);
    if differences.is_empty() { Ok(recorded) } else { Err(Failure::Differs(differences.join("; "))) }
}

/// What the restored database has.
fn counts(looked: &Looked) -> String {
    let Looked { restored, recorded } = looked;
    let Restored { engine, tables, rows, expired, remarks } = restored;
    let mut page = format!("  restored {} tables, {rows} rows, sound ({engine})\n", tables.len());
    for (name, rows) in tables.iter().take(SHOWN_TABLES) {
        // A name may hold what a terminal obeys.
        let name = name.replace(char::is_control, " ");
        page.push_str(&format!("    {name:<28} {rows}\n"));
    }
    if tables.len() > SHOWN_TABLES {
        page.push_str(&format!("    and {} more: --json names them all\n", tables.len() - SHOWN_TABLES));
    }
    if let Some(expired) = expired.filter(|expired| *expired > 0) {
        page.push_str(&format!("  expired  {expired} keys, since the backup was made\n"));
    }
    let manifest = recorded.as_ref().map_or_else(
        || "none was found: held against the dump itself".to_owned(),
        |recorded| format!("the same tables and rows ({})", recorded.source),
    );
    page.push_str(&format!("  manifest {manifest}\n"));
    for remark in remarks {
        page.push_str(&format!("  warning  {remark}\n"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_tables_is_shown_and_nothing_that_a_terminal_obeys() {
        let tables = (0..20_000).map(|n| (format!("t{n:05}\u{1b}[2J\n"), n)).collect();
        let restored =
            Restored { engine: "SQLite".into(), tables, rows: 9, expired: None, remarks: Vec::new() };
        let page = counts(&Looked { restored, recorded: None });
        assert!(page.lines().count() < 40 && page.contains("t00031") && !page.contains("t00032"), "{page}");
        assert!(page.contains("20000 tables") && page.contains("and 19968 more") && !page.contains('\u{1b}'));
    }
}
