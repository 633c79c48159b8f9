//! Database servers on this machine: started on a random loopback port in a directory of their own, as the user that
//! they insist on, and gone with the test.

use crate::common;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, chown, geteuid};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A server that is not up by then will not come.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server.
pub struct Server {
    child: Child,
    pub dir: TempDir,
    pub port: u16,
    user: &'static str,
}

impl Server {
    /// `prepare` gets the directory, and makes in it what the server needs; `command` is the server itself;
    /// `is_up` asks it.
    pub fn start(
        user: &'static str,
        prepare: impl FnOnce(&Path),
        command: impl FnOnce(&Path, u16) -> Command,
        is_up: impl Fn(&Path, u16) -> bool,
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("engines-").tempdir().unwrap();
        own(dir.path(), user);
        prepare(dir.path());
        let port = common::free_port();
        let mut command = command(dir.path(), port);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let server = Self { child, dir, port, user };
        let what = format!("{user}'s server is up");
        common::eventually(&what, START_LIMIT, || is_up(server.dir.path(), port).then_some(()));
        server
    }

    /// A program as the server's user.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        as_user(self.user, program)
    }

    /// As when the machine's kernel kills it.
    pub fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// The program under that user, where the tests run as root; it ends with the test's process.
pub fn as_user(user: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if geteuid().is_root() && user != "root" {
        command.args([format!("--reuid={user}"), format!("--regid={user}")]).arg("--init-groups");
    }
    command.arg("--").arg(program);
    command
}

/// Gives a directory to the user.
pub fn own(path: &Path, user: &str) {
    if geteuid().is_root() {
        let user =
            User::from_name(user).unwrap().unwrap_or_else(|| panic!("no user {user}: run `make deps`"));
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// The output of a program that must succeed.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The same, fed with a file.
#[track_caller]
pub fn fed(command: &mut Command, file: &Path) -> String {
    command.stdin(std::fs::File::open(file).unwrap());
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Whether a program succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Where a tool is; the tests need it.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `make deps`"))
}
