//! `demo`: the main job on one machine, with nothing pretended. A control plane and an agent run as processes of
//! their own and speak the real protocol over TLS; a database is backed up while it is written to, and the backup
//! is proved by opening it again.

mod compare;
mod database;
mod follow;
mod link;
mod plug;
mod processes;
mod rest;
mod screen;
mod stage;
mod story;

use super::{CliError, CliResult};
use crate::model::SysExit;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};

const AFTER: &str = "\
Nothing outside of the directory is touched, and nothing listens but on loopback. The files stay (some 300 MB); what \
it says at the end tells where they are and how to delete them.";

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    /// Kill the agent with SIGKILL in the middle of the upload and cut its link; the run must still end in one good
    /// backup.
    #[arg(long)]
    pull_the_plug: bool,
    /// Where everything goes: a directory that is empty or not there yet [default: a new one among the temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave control plane and agent running at the end, until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// Delete the directory at the end when all went well.
    #[arg(long, conflicts_with = "stay")]
    clean: bool,
}

/// Plays the whole of it. Every process that it starts has ended when it returns.
///
/// # Errors
/// 70 when a part of it did not go as it must, 75 when it was interrupted.
pub fn run(args: Args) -> CliResult {
    let system = actix_rt::System::new();
    system.block_on(async {
        let interrupted = interrupted().map_err(|error| CliError::new(SysExit::Internal, error))?;
        let lingers = Rc::new(Cell::new(false));
        let told = story::tell(args, Rc::clone(&lingers));
        let cut_short = async {
            interrupted.await;
            if lingers.get() {
                // What `--stay` waits for: the story itself comes to its end.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = cut_short => {
                Err(CliError::new(SysExit::Temporary, "demo: interrupted; what it started has ended"))
            }
            told = told => told.map_err(|error| CliError::chain(SysExit::Internal, &error)),
        }
    })
}

/// Ends with Ctrl-C, SIGTERM or a closed terminal.
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    Ok(async move {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
