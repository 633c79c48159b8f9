//! `rekey` and `state repair` killed at random moments: what is there afterwards is whole, and a second try ends
//! what the first began.
//!
//! `KILLS=200 cargo test --test agent killed` is the long form.

use crate::common::{agent_key, process};
use backupy_agent::model::{MessageKind, unix_ms};
use backupy_agent::store::{Change, Options, OutboxRecord, STATE_FILE, Store};
use backupy_agent::wire::{self, Payload, v1};
use secrecy::SecretString;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// In CI.
const KILLS: u32 = 10;

/// Enough that writing the new file takes several transactions.
const MESSAGES: u64 = 3_000;

/// Of a file of which something was lost, or may have been.
const LOST: i32 = 65;

fn kills() -> u32 {
    std::env::var("KILLS").map_or(KILLS, |text| text.parse().expect("KILLS is a number"))
}

fn filled() -> Vec<u8> {
    let dir = private();
    let key = SecretString::from(agent_key('o'));
    let (mut store, _) = Store::open(dir.path(), &key, Options::default()).unwrap();
    store.commit(&[Change::ReserveSeq(100_000)]).unwrap();
    let event = |seq: u64| {
        let log = v1::LogEvent { message: format!("{seq:>200}"), ..Default::default() };
        let envelope = wire::encode(seq, unix_ms(), "", Payload::Log(log)).unwrap();
        Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope })
    };
    store.commit(&(1..=MESSAGES).map(event).collect::<Vec<_>>()).unwrap();
    drop(store);
    fs::read(dir.path().join(STATE_FILE)).unwrap()
}

fn private() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// The binary on a directory with that state file; what it prints is dropped.
fn command(state: &Path, arguments: &[&str], key: char) -> Command {
    let mut command = process::command();
    command.args(arguments).env("BACKUPY_AGENT_KEY", agent_key(key)).env("BACKUPY_STATE_DIR", state);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn code(command: &mut Command) -> Option<i32> {
    command.status().unwrap().code()
}

/// How many messages a state has; None where that key does not open it.
fn messages(state: &Path, key: char) -> Option<u64> {
    let mut command = command(state, &["state", "inspect", "--json"], key);
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let seen: Value = output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())?;
    assert!(seen["quarantine"].as_array().unwrap().is_empty(), "{seen}");
    seen["messages"]["count"].as_u64()
}

/// What lies beside the lock and the state file.
fn others(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != STATE_FILE && name != "agent.lock").collect()
}

/// Runs the command once to its end, then kills it at moments that are spread over that time, each on the content
/// as it was.
fn kill_it(content: &[u8], build: impl Fn(&Path) -> Command, check: impl Fn(&Path, &str)) {
    let fresh = || {
        let dir = private();
        fs::write(dir.path().join(STATE_FILE), content).unwrap();
        dir
    };
    let dir = fresh();
    let begin = Instant::now();
    code(&mut build(dir.path()));
    let whole = begin.elapsed();
    check(dir.path(), "not killed");

    let kills = kills();
    let mut cut_short = 0;
    for kill in 0..kills {
        let dir = fresh();
        let jitter = f64::from(unix_nanos() % 1_000) / 1_000.0;
        let after = whole.mul_f64((f64::from(kill) + jitter) / f64::from(kills));
        let mut child = build(dir.path()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        cut_short += u32::from(child.wait().unwrap().code().is_none());
        check(dir.path(), &format!("killed after {after:?} of {whole:?}"));
    }
    assert!(cut_short >= kills / 2, "only {cut_short} of {kills} were still at work");
}

fn unix_nanos() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).subsec_nanos() / 100
}

#[test]
fn a_rekey_that_is_killed_leaves_the_whole_state_under_one_of_both_keys() {
    let keys = TempDir::new().unwrap();
    let file = |name: &str, key: char| {
        let path = keys.path().join(name);
        fs::write(&path, agent_key(key)).unwrap();
        path.display().to_string()
    };
    let (old, new) = (file("old", 'o'), file("new", 'n'));
    let rekey = |dir: &Path| command(dir, &["rekey", "--old-key-file", &old, "--new-key-file", &new], 'o');
    kill_it(&filled(), rekey, |dir, what| {
        let there = (messages(dir, 'o'), messages(dir, 'n'));
        assert!([(Some(MESSAGES), None), (None, Some(MESSAGES))].contains(&there), "{what}: {there:?}");
        assert_eq!(code(&mut rekey(dir)), Some(0), "{what}: a second try");
        assert_eq!((messages(dir, 'o'), messages(dir, 'n')), (None, Some(MESSAGES)), "{what}: a second try");
        assert_eq!(others(dir), Vec::<String>::new(), "{what}: nothing is left behind");
    });
}

#[test]
fn a_repair_that_is_killed_is_ended_by_the_next_one() {
    let mut damaged = filled();
    // Without its head redb opens nothing; every record is found in the raw bytes.
    damaged[..4096].fill(0);
    let repair = |dir: &Path| command(dir, &["state", "repair"], 'o');
    kill_it(&damaged, repair, |dir, what| {
        let is_old = fs::read(dir.join(STATE_FILE)).unwrap() == damaged;
        let expected = if is_old { LOST } else { 0 };
        assert_eq!(code(&mut repair(dir)), Some(expected), "{what}: a second try");
        assert_eq!(messages(dir, 'o'), Some(MESSAGES), "{what}");
        let aside = others(dir);
        assert_eq!(aside.len(), 1, "{what}: {aside:?}");
        assert!(aside[0].starts_with("state.redb.damaged-"), "{what}: {aside:?}");
        assert!(fs::read(dir.join(&aside[0])).unwrap() == damaged, "{what}: the damaged file is kept whole");
    });
}
