//! `decrypt`: one object back into what was backed up.

use super::files::check_distinct;
use super::opening::{Failure, OpeningArgs, Report, Target};
use super::{CliResult, print_json};
use indicatif::DecimalBytes;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

const AFTER: &str = "\
To a file, the plaintext appears under its name only when the whole object was opened and checked; until then there \
is no file, whatever happens. To standard output (--out -) each frame is written once it is authentic, before the \
end of the object is known: use it only when the exit code is 0.

Exit codes: 0 good, 64 wrong flags, 65 the token or the object does not hold, 66 no such input, 73 the output cannot \
be made or exists, 74 reading or writing failed.";

/// Arguments of `decrypt`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    opening: OpeningArgs,
    /// Where the plaintext goes; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the output when it exists.
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Opens the object and writes its content.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: Args) -> CliResult {
    let to_stdout = args.out.as_os_str() == "-";
    check_distinct(&args.opening.files(), &[("--out", Some(&args.out))])?;
    match decrypt(&args) {
        Ok(report) => {
            if let Some(warning) = args.opening.warning(&report) {
                say(&format!("backupy-agent: warning: {warning}"));
            }
            if args.opening.json {
                return tell(&Told { ok: true, report: &report }, to_stdout);
            }
            if !args.opening.quiet {
                say(&summary(&args, &report));
            }
            Ok(())
        }
        Err((failure, was_stream)) => {
            if args.opening.json {
                tell(&failure.json(), to_stdout)?;
            }
            let after = if was_stream { "; do not use what was written" } else { "" };
            Err(failure.told(&args.opening.input_name(), after))
        }
    }
}

/// The failure, and whether something went where it cannot be taken back from.
fn decrypt(args: &Args) -> Result<Report, (Failure, bool)> {
    let at_once = |failure| (failure, false);
    let key = args.opening.read_key().map_err(at_once)?;
    let mut target = Target::create(&args.out, args.force).map_err(at_once)?;
    let was_stream = target.is_stream();
    let late = |failure| (failure, was_stream);
    let report = args.opening.open_into(&key, &mut target).map_err(late)?;
    target.commit().map_err(late)?;
    Ok(report)
}

fn summary(args: &Args, report: &Report) -> String {
    let packed = match report.compression {
        "none" => String::new(),
        name => format!("{name}, "),
    };
    let checked = if report.sha256_matches_token { ", SHA-256 as the token says" } else { "" };
    let run = report.run_id.as_ref().map(|id| format!("; run {id}")).unwrap_or_default();
    format!(
        "{}: {} out of an object of {} ({packed}{} frames{checked}{run})",
        args.out.display(),
        DecimalBytes(report.content_bytes),
        DecimalBytes(report.object_bytes),
        report.frames,
    )
}

/// JSON goes where the plaintext does not.
fn tell(value: &impl Serialize, to_stderr: bool) -> CliResult {
    if to_stderr {
        say(&serde_json::to_string(value).unwrap_or_default());
        return Ok(());
    }
    print_json(value)
}

/// On standard error; a closed one is no error of its own.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
