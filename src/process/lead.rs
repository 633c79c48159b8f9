//! How a program is started: by programs of the system that each become the next one, so that its number is its own.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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
    if let Some(setpriv) = setpriv() {
        argv.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    argv.push(program.into());
    argv.extend(args);
    let mut argv = argv.into_iter();
    let mut command = Command::new(argv.next().unwrap_or_default());
    command.args(argv).env_clear();
    command
}

/// The program that has the kernel end another one with its parent, where this host has one that can.
pub fn setpriv() -> Option<PathBuf> {
    of_the_system("setpriv").filter(|setpriv| takes_pdeathsig(setpriv))
}

/// Whether this host's `setpriv` knows the option: util-linux has it since 2.33. Tried once: a program of the system is not
/// replaced by an older one.
fn takes_pdeathsig(setpriv: &Path) -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    if let Some(takes) = TRIED.get() {
        return *takes;
    }
    match try_pdeathsig(setpriv) {
        Ok(takes) => *TRIED.get_or_init(|| takes),
        // Not started, as on a host without room for a process: the tool will not start either, and say why.
        Err(_) => true,
    }
}

fn try_pdeathsig(setpriv: &Path) -> std::io::Result<bool> {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(setpriv).arg("--version").env_clear();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.success())
}

/// A program of the system itself, wherever the `PATH` leads. Not one of busybox, whose options are fewer.
fn of_the_system(name: &str) -> Option<PathBuf> {
    let found =
        ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())?;
    let real = found.canonicalize().ok()?;
    (real.file_name() == Some(OsStr::new(name))).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_setpriv_that_does_not_know_the_option_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let setpriv = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        // As that of Ubuntu 18.04 says it.
        let old = "#!/bin/sh\ncase $1 in --pdeathsig) echo \"setpriv: unrecognized option '$1'\" >&2; exit 1;; esac\n";
        let new = "#!/bin/sh\n[ \"$1 $2 $3\" = '--pdeathsig KILL --' ] || exit 0\nshift 3; exec \"$@\"\n";
        assert!(!try_pdeathsig(&setpriv("old", old)).unwrap());
        assert!(try_pdeathsig(&setpriv("new", new)).unwrap());
        assert!(try_pdeathsig(&dir.path().join("none")).is_err());
    }
}
