//! `state`: what an operator does with the agent's state file.

mod inspect;
mod quarantine;
mod repair;

use super::CliResult;
use clap::Subcommand;

/// Arguments of `state`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the state holds: counts, sizes, ages, what was set aside.
    Inspect(inspect::Args),
    /// Move a damaged state file aside and save what is in it into a new one.
    Repair(repair::Args),
}

/// Runs the one that is asked for.
///
/// # Errors
/// As [`inspect::run`] and [`repair::run`].
pub fn run(args: Args) -> CliResult {
    match args.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Repair(args) => repair::run(args),
    }
}
