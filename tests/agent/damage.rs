//! The state file damaged under the real binary: it starts and goes on, or ends with 65 and one clear line
//! that names the repair; the repair saves what is there; and what was saved reaches the control plane.

use crate::common::{Agent, agent_key, eventually, free_port, process};
use backupy_agent::model::{MessageKind, RunId, unix_ms};
use backupy_agent::store::{Change, Options, OutboxRecord, Store};
use backupy_agent::wire::{self, Payload, v1};
use secrecy::SecretString;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;
const MESSAGES: u64 = 60;
/// Of the data that scripts tell apart.
const LOST: i32 = 65;

/// As an agent makes its own: nobody else looks in.
fn private() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn key() -> String {
    agent_key('k')
}

/// A state with messages that wait, as a stopped agent leaves it.
fn filled() -> (TempDir, Vec<u8>) {
    let dir = private();
    let (mut store, _) = Store::open(dir.path(), &SecretString::from(key()), Options::default()).unwrap();
    let event = |seq: u64| {
        let log = v1::LogEvent { message: format!("event {seq}"), ..Default::default() };
        let envelope = wire::encode(seq, unix_ms(), "", Payload::Log(log)).unwrap();
        Change::Append(OutboxRecord { seq, kind: MessageKind::Log, envelope })
    };
    store.commit(&[Change::ReserveSeq(1_000)]).unwrap();
    for chunk in (1..=MESSAGES).collect::<Vec<_>>().chunks(10) {
        store.commit(&chunk.iter().map(|seq| event(*seq)).collect::<Vec<_>>()).unwrap();
    }
    let config = v1::AgentConfig { version: 4, ..Default::default() };
    let config = prost::Message::encode_to_vec(&config).into();
    store
        .commit(&[Change::PutConfig { version: 4, config }, Change::ForgetRun(RunId::from("none"))])
        .unwrap();
    drop(store);
    let whole = fs::read(dir.path().join("state.redb")).unwrap();
    (dir, whole)
}

fn agent(state: &Path) -> Agent {
    Agent::run(state, &format!("http://127.0.0.1:{}", free_port()), &key(), |command| {
        command.env("BACKUPY_LOG_LEVEL", "info");
    })
}

/// A command of the binary on that state.
fn command(state: &Path, arguments: &[&str]) -> Output {
    let mut command = process::command();
    command.args(arguments).env("BACKUPY_AGENT_KEY", key()).env("BACKUPY_STATE_DIR", state);
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Starts the daemon on a damaged file: what holds either way, and how many messages are there after it.
#[track_caller]
fn survives(damaged: &[u8], what: &str) -> u64 {
    let dir = private();
    let path = dir.path().join("state.redb");
    fs::write(&path, damaged).unwrap();
    let mut daemon = agent(dir.path());
    let up = || dir.path().join("agent.sock").exists().then_some(true);
    let is_up = eventually(what, SOON, || up().or_else(|| (!daemon.is_running()).then_some(false)));
    if is_up {
        daemon.terminate();
        assert_eq!(daemon.wait_for_code(SOON), 0, "{what}: {:?}", daemon.output());
    } else {
        assert_eq!(daemon.wait_for_code(SOON), LOST, "{what}: {:?}", daemon.output());
        let output = daemon.output();
        assert!(
            output.len() == 1 && output[0].contains("state repair"),
            "{what}: not one clear line: {output:?}"
        );
        assert!(fs::read(&path).unwrap() == damaged, "{what}: the file was changed");
        let repair = command(dir.path(), &["state", "repair", "--json"]);
        let report = json(&repair);
        let whole = report["repair"]["lost"]["messages"] == Value::Array(vec![])
            && report["repair"]["lost"]["unnamed_messages"] == 0
            && report["repair"]["lost"]["uncounted"] == false;
        let code = repair.status.code().unwrap();
        assert!(code == LOST || (code == 0 && whole), "{what}: {code}: {report}");
        assert!(repair.stderr.is_empty(), "{what}: {repair:?}");
        let aside = report["repair"]["moved_to"].as_str().unwrap_or_else(|| panic!("{what}: {report}"));
        assert!(fs::read(aside).unwrap() == damaged, "{what}: the damaged file is kept whole");
    }
    let inspect = command(dir.path(), &["state", "inspect", "--json"]);
    if inspect.status.code() == Some(LOST) {
        // It was whole enough to start with, not to be read to its end.
        assert!(is_up, "{what}: {inspect:?}");
        return MESSAGES;
    }
    let seen = json(&inspect);
    assert!(seen["unsealed"]["next_seq"].as_u64().unwrap() >= 1_000, "{what}: {seen}");
    let quarantined = seen["quarantine"].as_array().unwrap().len() as u64;
    seen["messages"]["count"].as_u64().unwrap() + quarantined
}

#[test]
fn a_flipped_byte_or_a_zeroed_page_never_stops_an_agent_for_good() {
    let (_dir, whole) = filled();
    let pages: Vec<usize> = (0..whole.len() / PAGE)
        .filter(|page| whole[page * PAGE..(page + 1) * PAGE].iter().any(|b| *b != 0))
        .collect();
    for page in pages {
        let mut damaged = whole.clone();
        damaged[page * PAGE + 2] ^= 0x10;
        let there = survives(&damaged, &format!("page {page}, a flipped byte"));
        assert!(page == 0 || there + 30 >= MESSAGES, "page {page}: {there} messages are left");
        damaged[page * PAGE..(page + 1) * PAGE].fill(0);
        let there = survives(&damaged, &format!("page {page}, zeroed"));
        assert!(there + 30 >= MESSAGES, "page {page}: {there} messages are left");
    }
}

/// Lets every list of free pages begin with a page that no file can have. redb keeps such lists in leaves
/// (type 1, a byte, the number of entries, where each value ends) with keys of 16 bytes, a transaction and 0;
/// a value is a count of 2 bytes and page numbers of 8. It believes them until it gives the pages out again.
fn spoil_free_pages(file: &mut [u8]) -> usize {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let pages = (file.len() / PAGE) as u64;
    let mut spoilt = 0;
    for page in file.chunks_exact_mut(PAGE) {
        let entries = number(&page[2..4]) as usize;
        if page[0] != 1 || !(1..50).contains(&entries) {
            continue;
        }
        let keys = 4 + 4 * entries;
        let values = keys + 16 * entries;
        let transactions: Vec<_> =
            page[keys..values].chunks_exact(16).map(|key| (number(&key[..8]), number(&key[8..]))).collect();
        let are_keys = transactions.iter().all(|(id, part)| (1..1_000).contains(id) && *part == 0);
        let first = values + 2..values + 10;
        if are_keys
            && number(&page[values..first.start]) > 0
            && (1..pages).contains(&number(&page[first.clone()]))
        {
            page[first.end - 4..first.end].copy_from_slice(&[0xff, 0xff, 0, 0]);
            spoilt += 1;
        }
    }
    spoilt
}

#[test]
fn damage_over_which_redb_panics_twice_ends_the_agent_with_the_line_that_names_the_repair() {
    let (dir, mut file) = filled();
    assert!(spoil_free_pages(&mut file) > 0);
    let path = dir.path().join("state.redb");
    fs::write(&path, &file).unwrap();
    let mut daemon = agent(dir.path());
    assert_eq!(daemon.wait_for_code(SOON), LOST, "{:?}", daemon.output());
    let output = daemon.output();
    let told: Vec<_> = output.iter().filter(|line| line.contains("state repair")).collect();
    assert!(told.len() == 1 && told[0].contains(path.to_str().unwrap()), "{output:?}");
    assert!(!output.concat().contains("panick"), "{output:?}");
    let repair = command(dir.path(), &["state", "repair", "--json"]);
    let report = json(&repair);
    assert_eq!((repair.status.code(), &report["repair"]["saved"]["messages"]), (Some(0), &MESSAGES.into()));
    let mut daemon = agent(dir.path());
    let goes_on = |line: &String| line.contains("the queue goes on") && line.contains("\"waiting\":60");
    eventually("its messages", SOON, || daemon.output().iter().any(goes_on).then_some(()));
    daemon.terminate();
    assert_eq!(daemon.wait_for_code(SOON), 0, "{:?}", daemon.output());
}

#[test]
fn a_truncated_file_garbage_or_nothing_is_repaired() {
    let (_dir, whole) = filled();
    for length in [0, 1, PAGE, whole.len() / 3, whole.len() / 2, whole.len() - PAGE, whole.len() - 1] {
        survives(&whole[..length], &format!("cut to {length} bytes"));
    }
    survives(&[0xa5; 40_000], "garbage");
}

#[test]
fn a_directory_in_its_place_is_told_and_moved_aside() {
    let dir = private();
    fs::create_dir(dir.path().join("state.redb")).unwrap();
    let mut daemon = agent(dir.path());
    assert_eq!(daemon.wait_for_code(SOON), LOST, "{:?}", daemon.output());
    assert!(daemon.output().concat().contains("state repair"), "{:?}", daemon.output());
    assert_eq!(command(dir.path(), &["state", "repair"]).status.code(), Some(LOST));
    assert!(command(dir.path(), &["state", "inspect"]).status.success());
}

#[test]
fn a_state_is_inspected_while_its_agent_runs_and_after() {
    let (dir, _) = filled();
    let daemon = agent(dir.path());
    eventually("the control socket", SOON, || dir.path().join("agent.sock").exists().then_some(()));
    let running = json(&command(dir.path(), &["state", "inspect", "--json"]));
    assert_eq!(running["messages"]["count"], MESSAGES);
    assert_eq!(running["messages"]["by_kind"][0]["kind"], "Log");
    assert_eq!(running["unsealed"]["config_version"], 4);
    assert!(running["unsealed"]["oldest_age_s"].as_u64().unwrap() < 600);
    for arguments in [&["state", "repair"][..], &["rekey", "--new-key-file", "/dev/null"]] {
        let refused = command(dir.path(), arguments);
        assert!([Some(75), Some(78)].contains(&refused.status.code()), "{refused:?}");
    }
    drop(daemon);
    let stopped = json(&command(dir.path(), &["state", "inspect", "--json"]));
    assert_eq!(stopped["messages"], running["messages"]);
    let mut keyless = process::command();
    let keyless = keyless
        .args(["state", "inspect", "--without-key"])
        .env("BACKUPY_STATE_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(keyless.stdout.clone()).unwrap();
    assert!(
        keyless.status.success() && text.contains("60 messages") && text.contains("need the agent key"),
        "{text}"
    );
    let empty = TempDir::new().unwrap();
    assert_eq!(command(empty.path(), &["state", "inspect"]).status.code(), Some(66));
    assert_eq!(command(empty.path(), &["state", "repair"]).status.code(), Some(66));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn a_state_goes_from_one_key_to_the_next() {
    let (dir, whole) = filled();
    let files = TempDir::new().unwrap();
    let file = |name: &str, key: &str| {
        let path = files.path().join(name);
        fs::write(&path, format!("{key}\n")).unwrap();
        path.display().to_string()
    };
    let (old, new, third) =
        (file("old", &key()), file("new", &agent_key('n')), file("third", &agent_key('t')));
    let run = |arguments: &[&str]| {
        let mut command = process::command();
        command.arg("rekey").args(arguments).env("BACKUPY_STATE_DIR", dir.path()).output().unwrap()
    };
    let wrong = run(&["--old-key-file", &third, "--new-key-file", &new]);
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
    assert!(fs::read(dir.path().join("state.redb")).unwrap() == whole, "nothing was changed");
    assert_eq!(run(&[]).status.code(), Some(64));
    let done = run(&["--old-key-file", &old, "--new-key-file", &new, "--json"]);
    assert_eq!((done.status.code(), &json(&done)["messages"]), (Some(0), &Value::from(MESSAGES)), "{done:?}");
    let again = run(&["--old-key-file", &old, "--new-key-file", &new, "--json"]);
    assert_eq!(json(&again)["already"], true);
    let refused = command(dir.path(), &["state", "inspect"]);
    assert_eq!(refused.status.code(), Some(78), "the old key opens it no more: {refused:?}");
    let mut command = process::command();
    command.args(["state", "inspect", "--agent-key-file", &new]).env("BACKUPY_STATE_DIR", dir.path());
    assert!(command.output().unwrap().status.success());
}

#[test]
fn what_was_set_aside_is_shown_written_out_and_let_go() {
    let (dir, _) = filled();
    let (mut store, _) = Store::open(dir.path(), &SecretString::from(key()), Options::default()).unwrap();
    store.commit(&[Change::SetAside(vec![7])]).unwrap();
    drop(store);
    let seen = json(&command(dir.path(), &["state", "inspect", "--json"]));
    assert_eq!(
        (&seen["quarantine"][0]["seq"], &seen["quarantine"][0]["why"]),
        (&Value::from(7), &Value::from("refused"))
    );
    let file = dir.path().join("quarantine.jsonl").display().to_string();
    let done = command(dir.path(), &["state", "repair", "--export", &file, "--drop-quarantine"]);
    assert!(done.status.success(), "{done:?}");
    let line: Value = serde_json::from_str(fs::read_to_string(&file).unwrap().trim()).unwrap();
    assert_eq!(line["seq"], 7);
    assert!(line["value_base64"].as_str().unwrap().len() > 40);
    let seen = json(&command(dir.path(), &["state", "inspect", "--json"]));
    assert_eq!(
        (&seen["quarantine"], &seen["messages"]["count"]),
        (&Value::Array(vec![]), &Value::from(MESSAGES - 1))
    );
    let twice = command(dir.path(), &["state", "repair", "--export", &file]);
    assert_eq!(twice.status.code(), Some(73), "an export overwrites nothing: {twice:?}");
}
