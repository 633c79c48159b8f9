//! `version`: which binary this is.

use super::{CliResult, print, print_json};
use serde::Serialize;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    commit: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// Prints version, commit and platform.
///
/// # Errors
/// When standard output refuses.
pub fn run(args: Args) -> CliResult {
    let version = Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("BACKUPY_COMMIT"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    if args.json {
        return print_json(&version);
    }
    let Version { name, version, commit, os, arch } = version;
    print(format!("{name} {version} ({commit}) {os}/{arch}\n"))
}
