//! Dumps inside containers, with a real Docker engine of the test's own: tools that run in a container with this machine's
//! programs mounted, and reach a server of this machine by its network. The site of the run has no tools at all.

use crate::common;
use crate::contract::{Database, Engine, PASSWORD};
use crate::docker_engine::{Docker, inside};
use crate::mariadb::Mariadb;
use crate::mongodb::Mongodb;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::run::{CANCEL_LIMIT, Going, Site, Watch, failed, megabytes, timed};
use backupy_agent::drivers::{Mark, Owner};
use backupy_agent::model::{RunOutcome, Strategy, TargetSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
use std::time::Duration;

/// A stopped run ends its tool within this.
const GONE_LIMIT: Duration = Duration::from_secs(5);

fn nothing_is_left_inside(container: &str) {
    common::eventually("no tool is left in the container", GONE_LIMIT, || {
        inside(container).is_empty().then_some(())
    });
}

/// Waits until that tool dumps inside the container; its number.
fn until_dumping(site: &Site, container: &str, tool: &str) -> i32 {
    let spool = site.options.spool_dir.join("r1.part");
    common::eventually(&format!("{tool} dumps in the container"), Duration::from_secs(30), || {
        let begun = spool.metadata().is_ok_and(|meta| meta.len() > 0);
        let found = inside(container)
            .into_iter()
            .find(|(_, line)| line.contains(tool) && !line.contains("--version"));
        found.filter(|_| begun).map(|(pid, _)| pid)
    })
}

fn in_container(mut target: TargetSpec, container: &str) -> TargetSpec {
    target.connection.strategy = Strategy::DockerExec;
    target.connection.container_id = container.to_owned();
    target
}

fn a_dump_inside_a_container_restores_to_the_same<E: Engine>() {
    let source = E::start();
    source.fill(megabytes() << 20);
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    let site = docker.site();
    let watch = Watch::for_secret(PASSWORD);
    let completed = site.success(&in_container(source.target(), "db"));
    watch.end();
    assert!(completed.engine_version.starts_with(E::VERSION), "{}", completed.engine_version);
    let expected = source.digest();
    let second = E::start();
    second.restore(&site.opened());
    assert_eq!(second.digest(), expected);
    drop(second);

    // By the server's socket, which is a path of the container; the container by a part of its id.
    site.success(&in_container(source.socket_target(), &id[..12]));
    let third = E::start();
    third.restore(&site.opened());
    assert_eq!(third.digest(), expected);
    nothing_is_left_inside(&id);
}

fn what_cannot_be_dumped_inside_a_container_is_refused_in_words<E: Engine>(wrong_password: &str) {
    let server = E::start();
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    docker.container("bare", &["-e", "PATH=/nowhere"]);
    let site = docker.site();
    let refused = |target: &TargetSpec, words: &[&str]| {
        let error = site.failure(target);
        assert!(words.iter().all(|words| error.contains(words)), "{words:?} is not in: {error}");
    };
    let mut target = in_container(server.target(), "db");
    target.connection.password_ref = "literal:the wrong one".into();
    refused(&target, &[wrong_password, E::TOOL, "in container \"db\""]);
    let mut target = in_container(server.target(), "db");
    target.connection.port = common::free_port();
    refused(&target, &[E::TOOL, "ended with exit status"]);
    refused(&in_container(server.target(), "bare"), &[E::TOOL, "is not in the container \"bare\""]);
    refused(
        &in_container(server.target(), "nobody"),
        &["container \"nobody\"", "No such container", "`docker ps` shows"],
    );
    refused(&in_container(server.target(), ""), &["connection.container_id", "empty"]);
    refused(&in_container(server.target(), "../x y"), &["connection.container_id"]);
    docker.ask(&["pause", "db"]);
    refused(&in_container(server.target(), "db"), &["is paused"]);
    docker.ask(&["unpause", "db"]);
    docker.ask(&["kill", "db"]);
    refused(&in_container(server.target(), "db"), &["is not running (exited)"]);
    nothing_is_left_inside(&id);

    let mut site = docker.site();
    site.options.host.docker.socket = docker.dir.path().join("nothing");
    let error = site.failure(&in_container(server.target(), "db"));
    assert!(error.contains("is not there: start Docker"), "{error}");
    site.options.host.docker.socket = docker.dir.path().join("pid");
    let error = site.failure(&in_container(server.target(), "db"));
    assert!(error.contains("nobody listens"), "{error}");
}

fn whatever_ends_in_the_middle_inside_a_container_ends_the_run<E: Engine>() {
    let server = E::start();
    server.fill(16 << 20);
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    let target = in_container(server.target(), "db");
    let site = docker.site().slow();
    let begin = |site: &Site| -> (Going, i32) {
        let going = site.begin(&target);
        let tool = until_dumping(site, &id, E::TOOL);
        (going, tool)
    };

    let (going, tool) = begin(&site);
    kill(Pid::from_raw(tool), Signal::SIGKILL).unwrap();
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL) && error.contains("was killed (SIGKILL)"), "{error}");

    let (going, _) = begin(&site);
    going.cancel.cancel();
    let (outcome, took) = timed(|| site.end(going));
    assert_eq!(outcome, RunOutcome::Cancelled);
    assert!(took < CANCEL_LIMIT, "{took:?}");
    nothing_is_left_inside(&id);

    let (going, _) = begin(&site);
    docker.ask(&["kill", "db"]);
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL) && error.contains("the container is not running"), "{error}");
    docker.ask(&["start", "db"]);

    let (going, _) = begin(&site);
    docker.ask(&["rm", "-f", "db"]);
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL) && error.contains("the container was removed"), "{error}");
    let id = docker.container("db", &[]);

    let going = site.begin(&target);
    until_dumping(&site, &id, E::TOOL);
    server.server().kill();
    let error = failed(site.end(going), &target);
    assert!(error.contains(E::TOOL), "{error}");
    nothing_is_left_inside(&id);
}

#[test]
#[ignore = "needs Docker and the engines' servers: make engines"]
fn an_engine_that_dies_in_the_middle_fails_the_run_and_its_tool_ends() {
    let server = Postgres::start();
    server.fill(16 << 20);
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    let target = in_container(server.target(), "db");
    let site = docker.site().slow();
    let going = site.begin(&target);
    until_dumping(&site, &id, "pg_dump");
    docker.kill();
    let error = failed(site.end(going), &target);
    assert!(error.contains("pg_dump") && error.contains("Docker engine"), "{error}");
    nothing_is_left_inside(&id);
}

#[test]
#[ignore = "needs Docker and the engines' servers: make engines"]
fn a_tool_that_an_earlier_life_left_in_the_container_is_ended_before_the_next_dump() {
    let server = Postgres::start();
    server.fill(1 << 20);
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    let mut site = docker.site();
    let life = || Owner::new("this agent".into());
    site.options.host.docker.owner = Some(life());
    // What a life that was killed leaves: a tool with the target's mark, which goes on.
    let left = |mark: Mark| {
        docker.ask(&["exec", "-d", "-e", mark.variable(), "db", "/usr/bin/tail", "-f", "/dev/null"]);
    };
    left(life().mark("t1"));
    left(life().mark("t2"));
    assert_eq!(inside(&id).len(), 2);
    site.success(&in_container(server.target(), "db"));
    common::eventually("the one that was left is gone, and nobody else's", GONE_LIMIT, || {
        (inside(&id).len() == 1).then_some(())
    });
}

#[test]
#[ignore = "needs Docker and the engines' servers: make engines"]
fn an_agent_that_may_not_signal_the_tool_ends_it_by_the_containers_shell() {
    let server = Postgres::start();
    server.fill(16 << 20);
    let docker = Docker::start();
    let id = docker.container("db", &[]);
    let dir = tempfile::tempdir().unwrap();
    crate::server::own(dir.path(), "daemon");
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(docker.dir.path());
    let connection = server.target().connection;
    let config = dir.path().join("agent.toml");
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    std::fs::write(
        &config,
        format!(
            "[targets.t1]\ntype = \"postgresql\"\nstrategy = \"docker_exec\"\ncontainer_id = \"db\"\nhost = \"127.0.0.1\"\nport = {}\n\
             database = {}\nusername = {}\npassword_ref = {}\n[docker]\nsocket = {}\n",
            connection.port,
            quoted(&connection.database),
            quoted(&connection.username),
            quoted(connection.password_ref.expose()),
            quoted(&docker.socket().display().to_string()),
        ),
    )
    .unwrap();
    let backup = || {
        let mut backup = crate::server::as_user("daemon", env!("CARGO_BIN_EXE_backupy-agent"));
        backup.args(["backup", "--target", "t1", "--compression", "none", "--config"]).arg(&config);
        backup.arg("--out").arg(dir.path().join("o")).arg("--key-out").arg(dir.path().join("key"));
        backup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        backup
    };
    // Not of the socket's group: told what to do.
    let refused = backup().output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("add its user to the socket's group"), "{said}");

    open(&docker.socket());
    // So that the dump waits in the middle: the reader holds a lock that it wants.
    let mut holder = server.hold("s.t");
    let child = backup().spawn().unwrap();
    common::eventually("pg_dump waits in the container", Duration::from_secs(30), || {
        inside(&id).iter().any(|(_, line)| line.contains("--format=custom")).then_some(())
    });
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let (output, took) = timed(|| child.wait_with_output().unwrap());
    assert!(!output.status.success() && took < Duration::from_secs(5), "{took:?} {output:?}");
    nothing_is_left_inside(&id);
    let _ = holder.kill();
    let _ = holder.wait();
}

/// Its tools read it from their standard input, whoever they run as.
#[test]
#[ignore = "needs Docker and the engines' servers: make engines"]
fn a_password_that_a_tool_wants_in_a_file_reaches_it_by_its_standard_input() {
    let docker = Docker::start();
    let site = docker.site();
    let server = Mariadb::start();
    server.fill(1 << 20);
    docker.container("unprivileged", &["--user", "1:1"]);
    let watch = Watch::for_secret(PASSWORD);
    site.success(&in_container(server.target(), "unprivileged"));

    // A scripted mongodump: no real one could be had.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy(&Mongodb::tools()[0], site.bin().join("mongodump")).unwrap();
    let server = Mongodb::start();
    server.fill(4 << 20);
    let path = format!("PATH={}:/usr/bin", site.bin().display());
    let id = docker.container("mongo", &["--user", "1:1", "-e", &path]);
    let target = in_container(server.target(), "mongo");
    let completed = site.success(&target);
    watch.end();
    assert_eq!(completed.engine_version, "MongoDB 7.0.5");
    let mut wrong = target;
    wrong.connection.password_ref = "literal:another".into();
    let error = site.failure(&wrong);
    assert!(error.contains("authentication failed") && !error.contains("another"), "{error}");
    nothing_is_left_inside(&id);
}

/// The contract inside a container, as tests of one engine.
macro_rules! inside_a_container {
    ($module:ident, $engine:ty, $wrong_password:expr) => {
        mod $module {
            use super::*;

            #[test]
            #[ignore = "needs Docker and the engines' servers: make engines"]
            fn a_dump_inside_a_container_restores_to_the_same() {
                super::a_dump_inside_a_container_restores_to_the_same::<$engine>();
            }

            #[test]
            #[ignore = "needs Docker and the engines' servers: make engines"]
            fn what_cannot_be_dumped_inside_a_container_is_refused_in_words() {
                super::what_cannot_be_dumped_inside_a_container_is_refused_in_words::<$engine>(
                    $wrong_password,
                );
            }

            #[test]
            #[ignore = "needs Docker and the engines' servers: make engines"]
            fn whatever_ends_in_the_middle_inside_a_container_ends_the_run() {
                super::whatever_ends_in_the_middle_inside_a_container_ends_the_run::<$engine>();
            }
        }
    };
}

inside_a_container!(postgres, Postgres, "password authentication failed");
inside_a_container!(mariadb, Mariadb, "Access denied");
inside_a_container!(redis, Redis, "WRONGPASS");
