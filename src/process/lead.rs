//! How a program is started: by programs of the system that each become the next one, so that its number is its own.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a process treats the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Added to the agent's own niceness, 0 to 19.
    pub nice: u8,
    /// It reads the disk only when nobody else does.
    pub idle_io: bool,
}

/// The command, with an empty environment.
pub fn command(manners: Manners, program: &Path, args: impl IntoIterator<Item = OsString>) -> Command {
    let mut argv: Vec<OsString> = Vec::new();
    if manners.nice > 0
        && let Some(nice) = of_the_system("nice")
    {
        argv.extend([nice.into(), "-n".into(), manners.nice.to_string().into()]);
    }
    if manners.idle_io
        && let Some(ionice) = of_the_system("ionice")
    {
        // -t: a host that does not allow it still gets its backup.
        argv.extend([ionice.into(), "-t".into(), "-c".into(), "3".into()]);
    }
    if let Some(setpriv) = of_the_system("setpriv") {
        argv.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    argv.push(program.into());
    argv.extend(args);
    let mut argv = argv.into_iter();
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).env_clear();
    command
}

/// A program of the system itself, wherever the `PATH` leads. Not one of busybox, whose options are fewer.
fn of_the_system(name: &str) -> Option<PathBuf> {
    let found =
        ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())?;
    let real = found.canonicalize().ok()?;
    (real.file_name() == Some(OsStr::new(name))).then_some(real)
}
