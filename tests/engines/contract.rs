//! What holds for every engine. Each engine's file says how its server is started, filled, asked and restored, and
//! which tool dumps it.

use crate::common;
use crate::run::{CANCEL_LIMIT, Going, NICE, Site, Watch, failed, megabytes, timed};
use crate::server::{Server, ok};
use backupy_agent::model::{Connection, Engine as Kind, RunOutcome, Strategy, TargetSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A database's name, a user and a password that every shell, every option parser and every connection string takes
/// for something else.
pub const NAME: &str = "-d o'b \"q\" a=b \u{fc}\u{4e16}%";
pub const USER: &str = "-u o'b \"q\" a=b \u{fc}";
pub const PASSWORD: &str = "-p 'w\" #;\\n=x\\ %25@/:\u{fc}$(id)`id` ";

/// Nothing takes longer to be refused.
const REFUSED_LIMIT: Duration = Duration::from_secs(20);

/// A database [`NAME`] of some engine, which [`USER`] may read with [`PASSWORD`] where the engine asks for that.
pub trait Database {
    /// As `db_engine_version` begins.
    const VERSION: &'static str;
    /// Makes an empty one.
    fn start() -> Self;
    /// The tools that the driver may call.
    fn tools() -> Vec<PathBuf>;
    /// Puts about so many bytes into the database, that do not compress to nothing.
    fn fill(&self, bytes: u64);
    /// What must be the same after a restore.
    fn digest(&self) -> String;
    /// Restores a dump into this empty database.
    fn restore(&self, dump: &Path);
    /// By host and port; by its path.
    fn target(&self) -> TargetSpec;
}

/// A database behind a server and a dump tool.
pub trait Engine: Database {
    /// The tool that dumps.
    const TOOL: &'static str;
    /// Debian's package with it.
    const PACKAGE: &'static str;
    /// Behind which the database is.
    fn server(&self) -> &Server;
    /// What a target by the server's socket has for a host: the socket's path, or its directory.
    fn socket(&self) -> PathBuf;

    /// By the server's socket.
    fn socket_target(&self) -> TargetSpec {
        let mut target = self.target();
        target.connection.host = self.socket().display().to_string();
        target.connection.strategy = Strategy::UnixSocket;
        target
    }
}

/// The database of a server on this machine, read by `user` with [`PASSWORD`].
pub fn by_tcp(engine: Kind, port: u16, database: &str, user: &str) -> TargetSpec {
    TargetSpec {
        id: "t1".into(),
        engine: Some(engine),
        display_name: "main".into(),
        connection: Connection {
            host: "127.0.0.1".into(),
            port,
            database: database.into(),
            username: user.into(),
            password_ref: format!("literal:{PASSWORD}").into(),
            container_id: String::new(),
            strategy: Strategy::Tcp,
        },
    }
}

/// Dumps, restores into a second one and compares; no secret in any command line.
pub fn a_backup_restores_to_the_same<D: Database>() {
    let source = D::start();
    source.fill(megabytes() << 20);
    let site = Site::new(&D::tools());
    let watch = Watch::for_secret(PASSWORD);
    let completed = site.success(&source.target());
    watch.end();
    assert!(completed.engine_version.starts_with(D::VERSION), "{}", completed.engine_version);
    let expected = source.digest();
    let second = D::start();
    let empty = second.digest();
    assert_ne!(empty, expected);
    second.restore(&site.opened());
    assert_eq!(second.digest(), expected);
}

/// The same by the server's socket.
pub fn a_backup_by_the_socket_restores_to_the_same<E: Engine>() {
    let source = E::start();
    source.fill(1 << 20);
    let site = Site::new(&E::tools());
    let target = source.socket_target();
    assert_eq!(target.connection.strategy, Strategy::UnixSocket);
    site.success(&target);
    let second = E::start();
    second.restore(&site.opened());
    assert_eq!(second.digest(), source.digest());
}

/// An empty database is a database.
pub fn an_empty_database_restores_to_an_empty_one<D: Database>() {
    let source = D::start();
    let site = Site::new(&D::tools());
    site.success(&source.target());
    let second = D::start();
    second.restore(&site.opened());
    assert_eq!(second.digest(), source.digest());
}

/// What cannot be dumped is refused soon and in words: password, server, tool, reference.
pub fn what_cannot_be_dumped_is_refused_in_words<E: Engine>(wrong_password: &str) {
    let server = E::start();
    let site = Site::new(&E::tools());
    let refused = |site: &Site, target: &TargetSpec, words: &str| {
        let (error, took) = timed(|| site.failure(target));
        assert!(error.contains(words), "{words} is not in: {error}");
        assert!(took < REFUSED_LIMIT, "{took:?}: {error}");
    };
    let mut target = server.target();
    target.connection.password_ref = "literal:the wrong one".into();
    refused(&site, &target, wrong_password);
    let mut target = server.target();
    target.connection.port = common::free_port();
    refused(&site, &target, E::TOOL);
    let mut target = server.target();
    target.connection.password_ref = "env:NOT_SET_ANYWHERE".into();
    refused(&site, &target, "NOT_SET_ANYWHERE");
    let without_tools = Site::new(&[]);
    let error = without_tools.failure(&server.target());
    assert!(error.contains("is not installed") && error.contains(E::PACKAGE), "{error}");
}

/// Whatever ends in the middle, the run fails or is cancelled, soon, and leaves nothing.
pub fn whatever_ends_in_the_middle_ends_the_run<E: Engine>() {
    let server = E::start();
    server.fill(16 << 20);
    let target = server.target();

    let site = Site::new(&E::tools()).slow();
    let going = site.begin(&target);
    let tool = site.until_dumping(E::TOOL);
    kill(Pid::from_raw(tool), Signal::SIGKILL).unwrap();
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL) && error.contains("SIGKILL"), "{error}");

    let going = site.begin(&target);
    assert_manners(site.until_dumping(E::TOOL));
    cancelled_soon(&site, going);

    // Before it dumps; and while its tool is frozen and hears no signal but one.
    cancelled_soon(&site, site.begin(&target));
    let going = site.begin(&target);
    kill(Pid::from_raw(site.until_dumping(E::TOOL)), Signal::SIGSTOP).unwrap();
    cancelled_soon(&site, going);

    let going = site.begin(&target);
    site.until_dumping(E::TOOL);
    server.server().kill();
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL), "{error}");
}

/// A server that takes the connection and says nothing holds no run that is stopped, by a cancel or at the end of its
/// time; no tool is left that waits for it.
pub fn a_silent_server_does_not_hold_a_stopped_run<E: Engine>() {
    let server = E::start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut target = server.target();
    target.connection.port = listener.local_addr().unwrap().port();
    let site = Site::new(&E::tools());
    let going = site.begin(&target);
    // Whoever asks first: the tool, or the one that the driver asks before.
    let (_held, _) = listener.accept().unwrap();
    assert!(!site.children().is_empty());
    cancelled_soon(&site, going);
}

/// Stops the run; it is over within its limit and leaves nothing.
fn cancelled_soon(site: &Site, going: Going) {
    going.cancel.cancel();
    let (outcome, took) = timed(|| site.end(going));
    assert_eq!(outcome, RunOutcome::Cancelled);
    assert!(took < CANCEL_LIMIT, "{took:?}");
}

/// The tool itself, and no program before it, has the niceness and the class of reading that the host asks for.
fn assert_manners(tool: i32) {
    let nice = |pid: &str| -> i64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The 19th field; the second is a name in parentheses.
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    assert_eq!(nice(&tool.to_string()), (nice("self") + i64::from(NICE)).min(19));
    assert_eq!(ok(Command::new("ionice").args(["-p", &tool.to_string()])).trim(), "idle");
}

/// The contract as tests of one engine; `served` where it has a server and a tool.
#[macro_export]
macro_rules! contract {
    ($database:ty) => {
        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn a_backup_restores_to_the_same() {
            $crate::contract::a_backup_restores_to_the_same::<$database>();
        }

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn an_empty_database_restores_to_an_empty_one() {
            $crate::contract::an_empty_database_restores_to_an_empty_one::<$database>();
        }
    };
    (served $engine:ty, $wrong_password:expr) => {
        $crate::contract!($engine);

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn a_backup_by_the_socket_restores_to_the_same() {
            $crate::contract::a_backup_by_the_socket_restores_to_the_same::<$engine>();
        }

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn what_cannot_be_dumped_is_refused_in_words() {
            $crate::contract::what_cannot_be_dumped_is_refused_in_words::<$engine>($wrong_password);
        }

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn whatever_ends_in_the_middle_ends_the_run() {
            $crate::contract::whatever_ends_in_the_middle_ends_the_run::<$engine>();
        }

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn a_silent_server_does_not_hold_a_stopped_run() {
            $crate::contract::a_silent_server_does_not_hold_a_stopped_run::<$engine>();
        }
    };
}
