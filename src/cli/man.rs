//! `man`: the manual pages.

use super::{Cli, CliError, CliResult, print};
use crate::model::SysExit;
use clap::CommandFactory;
use std::path::PathBuf;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page a subcommand into this directory instead of the overview on standard output.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

/// Prints the page, or writes all pages.
///
/// # Errors
/// When the output refuses.
pub fn run(args: Args) -> CliResult {
    let Some(dir) = args.out_dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| CliError::new(SysExit::Io, format_args!("the manual page: {error}")))?;
        return print(page);
    };
    clap_mangen::generate_to(Cli::command(), &dir)
        .map_err(|error| CliError::new(SysExit::CannotCreate, format_args!("{}: {error}", dir.display())))
}
