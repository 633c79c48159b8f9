//! The daemon as an init system and an operator at the same host see it.

use crate::common::{Agent, Secrets, agent_key, eventually, free_port, process};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// What systemd would be told.
struct Init(UnixDatagram);

impl Init {
    fn bind(folder: &Path) -> (Self, std::path::PathBuf) {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        (Self(socket), path)
    }

    /// The next datagram.
    #[track_caller]
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("the agent tells its init system something");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Datagrams up to the first that has this line.
    #[track_caller]
    fn until(&self, start: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let datagram = self.next();
            let found = datagram.lines().any(|line| line.starts_with(start));
            seen.push(datagram);
            if found {
                return seen;
            }
            assert!(seen.len() < 1000, "no {start} among {seen:?}");
        }
    }
}

/// A server that takes connections and drops them; counts them.
fn dropping_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// An agent that is up: its socket is there.
fn started(state: &Path, key: &str) -> Agent {
    let agent = Agent::run(state, &nobody(), key, |_| {});
    eventually("the control socket", SOON, || state.join("agent.sock").exists().then_some(()));
    agent
}

/// Another command on the same state directory: exit code and output.
fn ask(state: &Path, key: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = process::command();
    command
        .args(arguments)
        .env("BACKUPY_SERVER_URL", nobody())
        .env("BACKUPY_AGENT_KEY", key)
        .env("BACKUPY_STATE_DIR", state)
        .env("BACKUPY_DEV_ALLOW_INSECURE", "true");
    let mut asked = Agent::spawn(command);
    let code = asked.wait_for_code(SOON);
    (code, asked.output().join("\n"))
}

#[test]
fn ready_comes_after_the_state_is_open_and_the_first_dial_was_tried() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let (init, notify) = Init::bind(folder.path());
    let (port, dials) = dropping_server();
    let _agent = Agent::run(&state, &format!("http://127.0.0.1:{port}"), &agent_key('a'), |command| {
        command.env("NOTIFY_SOCKET", &notify);
    });
    init.until("READY=1");
    assert!(dials.load(Ordering::SeqCst) >= 1, "ready before the first dial");
    assert!(state.join("state.redb").exists(), "ready before the state is open");
    let status = init.until("STATUS=");
    assert!(status.concat().len() > "STATUS=".len());
}

#[test]
fn the_watchdog_is_fed_at_least_twice_a_period_and_the_end_is_announced() {
    let folder = TempDir::new().unwrap();
    let (init, notify) = Init::bind(folder.path());
    let mut agent = Agent::run(&folder.path().join("state"), &nobody(), &agent_key('a'), |command| {
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "2000000");
    });
    init.until("WATCHDOG=1");
    let start = Instant::now();
    for _ in 0..3 {
        init.until("WATCHDOG=1");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "three feedings took {:?}", start.elapsed());
    agent.terminate();
    assert_eq!(agent.wait_for_code(SOON), 0);
    init.until("STOPPING=1");
}

#[test]
fn a_running_daemon_answers_status_health_check_and_dump_state() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let key = agent_key('k');
    let mut agent = started(&state, &key);

    let (code, text) = ask(&state, &key, &["status"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&agent.pid().to_string()), "{text}");

    let (code, text) = ask(&state, &key, &["status", "--json"]);
    assert_eq!(code, 0, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let status = json.get("agent").unwrap_or(&json);
    assert_eq!(status["pid"], agent.pid());
    assert_eq!(status["config_version"], 0);
    assert_eq!(status["queue"]["depth"], 0);
    assert!(status["children"].as_array().unwrap().len() >= 6, "{text}");

    let (code, text) = ask(&state, &key, &["dump-state"]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(&key), "the agent key in dump-state");

    let start = Instant::now();
    let (_, text) = ask(&state, &key, &["health-check"]);
    assert!(!text.is_empty());
    assert!(start.elapsed() < Duration::from_secs(4), "health-check took {:?}", start.elapsed());

    assert!(agent.is_running());
    Secrets::new([("the agent key", key.as_str())]).assert_not_seen(&agent);
}

#[test]
fn without_a_daemon_health_check_says_so() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let key = agent_key('k');
    let (code, text) = ask(&state, &key, &["health-check"]);
    assert_eq!(code, 69, "{text}");

    // Its socket and lock outlive a killed daemon, and deceive nobody.
    let mut agent = started(&state, &key);
    agent.kill();
    let (code, text) = ask(&state, &key, &["health-check"]);
    assert_eq!(code, 69, "{text}");
    let mut agent = started(&state, &key);
    eventually("status of the new life", SOON, || {
        let (code, text) = ask(&state, &key, &["status"]);
        (code == 0 && text.contains(&agent.pid().to_string())).then_some(())
    });
    assert!(agent.is_running());
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused_with_the_pid_of_the_first() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let key = agent_key('k');
    let mut first = started(&state, &key);
    let mut second = Agent::run(&state, &nobody(), &key, |_| {});
    assert_eq!(second.wait_for_code(SOON), 75, "{:?}", second.output());
    let output = second.output().join("\n");
    assert!(output.contains(&first.pid().to_string()), "{output}");
    assert!(first.is_running());
    assert_eq!(ask(&state, &key, &["status"]).0, 0, "the second one took the socket away");
}

#[test]
fn another_key_is_refused_and_the_state_is_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let mut agent = started(&state, &agent_key('k'));
    agent.terminate();
    assert_eq!(agent.wait_for_code(SOON), 0);
    let before = std::fs::read(state.join("state.redb")).unwrap();

    let other = agent_key('x');
    let mut agent = Agent::run(&state, &nobody(), &other, |_| {});
    assert_eq!(agent.wait_for_code(SOON), 78, "{:?}", agent.output());
    let output = agent.output().join("\n");
    assert!(output.contains("another agent key") && !output.contains(&other), "{output}");
    assert!(std::fs::read(state.join("state.redb")).unwrap() == before, "the state was changed");
    let agent = started(&state, &agent_key('k'));
    drop(agent);
}

#[test]
fn a_damaged_state_is_refused_and_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let mut agent = started(&state, &agent_key('k'));
    agent.terminate();
    assert_eq!(agent.wait_for_code(SOON), 0);
    let file = state.join("state.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&file, &bytes).unwrap();

    let mut agent = Agent::run(&state, &nobody(), &agent_key('k'), |_| {});
    let code = agent.wait_for_code(SOON);
    let output = agent.output().join("\n");
    assert!(code != 0 && code != 75, "{code}: {output}");
    assert!(output.contains("damaged") && !output.contains("panicked"), "{output}");
    assert!(std::fs::read(&file).unwrap() == bytes, "the damaged file was changed");
}

#[test]
fn what_the_agent_keeps_is_for_its_own_eyes() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let _agent = started(&state, &agent_key('k'));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("agent.sock")), 0o600);
    assert_eq!(mode(&state.join("state.redb")), 0o600);
}
