//! `verify`: whether an object can be restored, without writing it anywhere.

use super::opening::{Failure, OpeningArgs, Report};
use super::{CliResult, print, print_json};
use indicatif::DecimalBytes;
use serde::Serialize;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    opening: OpeningArgs,
}

#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Opens the whole object, unpacks it, and says what was found.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: Args) -> CliResult {
    match verify(&args.opening) {
        Ok(report) if args.opening.json => print_json(&Told { ok: true, report: &report }),
        Ok(_) if args.opening.quiet => Ok(()),
        Ok(report) => print(page(&args.opening, &report)),
        Err(failure) => {
            if args.opening.json {
                print_json(&failure.json())?;
            }
            Err(failure.told(&args.opening.input_name(), ""))
        }
    }
}

fn verify(opening: &OpeningArgs) -> Result<Report, Failure> {
    let key = opening.read_key()?;
    opening.open_into(&key, &mut std::io::sink())
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
