//! `completions`: what the shell needs to complete this command.

use super::{Cli, CliResult, print};
use clap::CommandFactory;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that asks.
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// When standard output refuses.
pub fn run(args: Args) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    print(script)
}
