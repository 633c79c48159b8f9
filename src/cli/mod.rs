//! One file a subcommand. Each has its `Args` and a `run` that ends in a [`CliResult`].

mod backup;
mod check_config;
mod completions;
#[cfg(feature = "control-plane")]
mod control_plane;
mod decrypt;
#[cfg(feature = "control-plane")]
mod demo;
mod dump_state;
mod error;
mod files;
mod health_check;
mod man;
mod opening;
mod output;
mod progress;
mod rekey;
mod run;
mod run_args;
mod settings_args;
mod state;
mod status;
mod steady;
mod table;
mod verify;
mod version;

pub use error::{CliError, CliResult};
pub use output::{print, print_json};
pub use settings_args::SettingsArgs;

use crate::model::SysExit;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// The daemon beside your databases: encrypted backups on command of a control plane, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "backupy-agent", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    Run(run::Args),
    /// Back up one database to a file or a presigned URL, without any control plane.
    Backup(backup::Args),
    /// Decrypt a backup object with a decryption token.
    Decrypt(decrypt::Args),
    /// Back up a database for real, on this machine alone, and open the backup again.
    #[cfg(feature = "control-plane")]
    Demo(demo::Args),
    /// Check that a backup object opens, to its end, without writing it.
    Verify(verify::Args),
    /// Show what the running agent does.
    Status(status::Args),
    /// Say by one line and the exit code whether the agent is well.
    HealthCheck(health_check::Args),
    /// Print what the agent keeps on its disk, secrets masked.
    DumpState(dump_state::Args),
    /// Look at the state of an agent, or repair it.
    State(state::Args),
    /// Seal the state of a stopped agent under another agent key.
    Rekey(rekey::Args),
    /// Check the configuration and print it, with the place that each value comes from.
    CheckConfig(check_config::Args),
    /// Run an embedded control plane for one site.
    #[cfg(feature = "control-plane")]
    ControlPlane(control_plane::Args),
    /// Print version, commit and platform.
    Version(version::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual page.
    Man(man::Args),
}

impl Command {
    fn run(self) -> CliResult {
        crate::daemon::keep_memory_private();
        match self {
            Self::Run(args) => run::run(args),
            Self::Backup(args) => backup::run(args),
            Self::Decrypt(args) => decrypt::run(args),
            #[cfg(feature = "control-plane")]
            Self::Demo(args) => demo::run(args),
            Self::Verify(args) => verify::run(args),
            Self::Status(args) => status::run(args),
            Self::HealthCheck(args) => health_check::run(args),
            Self::DumpState(args) => dump_state::run(args),
            Self::State(args) => state::run(args),
            Self::Rekey(args) => rekey::run(args),
            Self::CheckConfig(args) => check_config::run(args),
            #[cfg(feature = "control-plane")]
            Self::ControlPlane(args) => control_plane::run(args),
            Self::Version(args) => version::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }
}

impl Cli {
    /// `run` without a word more, as an init system starts it. It needs no parser, and the parser of all commands
    /// would stay resident as long as the daemon lives.
    fn bare_run(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let bare = arguments.nth(1)? == "run" && arguments.next().is_none();
        bare.then(|| Self { command: Command::Run(run::Args::default()) })
    }
}

/// Parses the arguments of this process, runs the command, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::bare_run(std::env::args_os()).map_or_else(Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version come this way too. A reader that went away is no reason to fail.
            let _ = answer.print();
            let exit = if answer.use_stderr() { SysExit::Usage } else { SysExit::Ok };
            return ExitCode::from(exit.code());
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit().code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_alone_means_the_same_without_the_parser() {
        let bare = |words: &[&str]| Cli::bare_run(words.iter().map(OsString::from));
        let parsed = Cli::try_parse_from(["backupy-agent", "run"]).unwrap();
        let known = bare(&["backupy-agent", "run"]).unwrap();
        assert_eq!(format!("{known:?}"), format!("{parsed:?}"));
        for words in
            [&["backupy-agent"][..], &["backupy-agent", "status"], &["backupy-agent", "run", "--help"]]
        {
            assert!(bare(words).is_none(), "{words:?}");
        }
    }
}
