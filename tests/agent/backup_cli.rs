//! `backup`, as somebody uses it who has a host and a cron, and no control plane.

use crate::common::{Agent, eventually, process::command};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// A host: a database, a configuration that names it, a folder for objects.
pub struct Host(TempDir);

impl Host {
    pub fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let config = format!(
            "[targets.shop]\ntype = \"sqlite\"\ndatabase = \"{}\"\n[targets.gone]\ntype = \"sqlite\"\ndatabase = \"{}\"\n",
            host.path("shop.db").display(),
            host.path("gone.db").display()
        );
        fs::write(host.path("agent.toml"), config).unwrap();
        fs::create_dir(host.path("out")).unwrap();
        let database = rusqlite::Connection::open(host.path("shop.db")).unwrap();
        database.execute_batch("CREATE TABLE a(b); BEGIN").unwrap();
        for number in 0..20_000 {
            database
                .execute("INSERT INTO a VALUES (?1)", [format!("row {number} {}", number * 7919)])
                .unwrap();
        }
        database.execute_batch("COMMIT").unwrap();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn backup(&self, target: &str, arguments: &[&str]) -> Command {
        let mut command = command();
        command.args(["backup", "--target", target, "--config"]).arg(self.path("agent.toml")).args(arguments);
        command.current_dir(self.path("out")).stdin(Stdio::null());
        command
    }

    /// What lies in the folder for objects.
    pub fn out(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Opens an object with a key file, and holds it against the database.
    pub fn assert_opens(&self, object: &Path, key: &str) {
        let clear = self.path("clear.db");
        let mut open = command();
        open.args(["decrypt", "--force", "--key-file"])
            .arg(self.path("out").join(key))
            .arg("--in")
            .arg(object);
        let opened = output(open.arg("--out").arg(&clear));
        assert!(opened.status.success(), "{opened:?}");
        assert!(fs::read(clear).unwrap() == fs::read(self.path("shop.db")).unwrap(), "not the database");
    }
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_database_goes_to_a_file_and_comes_back_with_the_key_alone() {
    let host = Host::new();
    let made = output(&mut host.backup("shop", &["--out", "shop.bkpy", "--key-out", "shop.key"]));
    assert_eq!(code(&made), 0, "{made:?}");
    assert!(text(&made.stdout).contains("SQLite 3.") && made.stderr.is_empty(), "{made:?}");
    assert_eq!(host.out(), ["shop.bkpy", "shop.key"]);
    for name in host.out() {
        let mode = fs::metadata(host.path("out").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    host.assert_opens(&host.path("out/shop.bkpy"), "shop.key");

    let before = fs::read(host.path("out/shop.bkpy")).unwrap();
    let again = output(&mut host.backup("shop", &["--out", "shop.bkpy", "--key-file", "shop.key"]));
    assert_eq!(code(&again), 73, "{again:?}");
    assert!(text(&again.stderr).contains("shop.bkpy exists; --force replaces it"), "{again:?}");
    let key_again = output(&mut host.backup("shop", &["--out", "new.bkpy", "--key-out", "shop.key"]));
    assert_eq!(code(&key_again), 73, "{key_again:?}");
    assert!(text(&key_again.stderr).contains("--key-file uses the key"), "{key_again:?}");
    assert_eq!(fs::read(host.path("out/shop.bkpy")).unwrap(), before);

    let flags =
        ["--out", "shop.bkpy", "--key-file", "shop.key", "--force", "--json", "--compression", "gzip"];
    let forced = output(&mut host.backup("shop", &flags));
    let told: serde_json::Value = serde_json::from_slice(&forced.stdout).unwrap();
    assert_eq!((&told["ok"], &told["compression"]), (&true.into(), &"gzip".into()), "{told}");
    host.assert_opens(&host.path("out/shop.bkpy"), "shop.key");
    assert_eq!(host.out(), ["shop.bkpy", "shop.key"]);

    let mut verify = command();
    verify.args(["verify", "--json", "--key-file", "shop.key", "--in", "shop.bkpy"]);
    let verified = output(verify.current_dir(host.path("out")));
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&report["ok"], &report["sha256"]), (&true.into(), &told["sha256"]), "{report}");
    assert!(report.get("run_id").is_none());
}

#[test]
fn a_backup_is_restored_for_a_look_and_nothing_of_that_stays() {
    let host = Host::new();
    let made = output(&mut host.backup("shop", &["--out", "shop.bkpy", "--key-out", "shop.key"]));
    assert_eq!(code(&made), 0, "{made:?}");
    let place = host.path("restore #1");
    fs::create_dir(&place).unwrap();
    let verify = |object: &str| {
        let mut verify = command();
        verify.args([
            "verify",
            "--restore",
            "--json",
            "--key-file",
            "shop.key",
            "--in",
            object,
            "--restore-dir",
        ]);
        output(verify.arg(&place).current_dir(host.path("out")))
    };
    let good = verify("shop.bkpy");
    let report: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["restored"]["tables"]["a"]),
        (&true.into(), &20_000.into()),
        "{report}"
    );
    assert_eq!(report["restored"]["rows"], 20_000);
    assert!(report.get("manifest").is_none(), "none was written: {report}");

    // With a manifest beside it, an object is held against that too; another object's is a difference.
    let flags = ["--out", "noted.bkpy", "--key-file", "shop.key", "--manifest-out", "noted.bkpy.manifest"];
    let noted = output(&mut host.backup("shop", &flags));
    assert_eq!(code(&noted), 0, "{noted:?}");
    let sealed = fs::read(host.path("out/noted.bkpy.manifest")).unwrap();
    assert!(!text(&sealed).contains("largest"), "in the clear");
    let held = verify("noted.bkpy");
    let report: serde_json::Value = serde_json::from_slice(&held.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["manifest"]),
        (&true.into(), &"noted.bkpy.manifest".into()),
        "{report}"
    );
    let database = rusqlite::Connection::open(host.path("shop.db")).unwrap();
    database.execute("DELETE FROM a WHERE rowid % 100 = 0", []).unwrap();
    drop(database);
    let fewer =
        output(&mut host.backup("shop", &["--out", "noted.bkpy", "--key-file", "shop.key", "--force"]));
    assert_eq!(code(&fewer), 0, "{fewer:?}");
    let differs = verify("noted.bkpy");
    assert_eq!(code(&differs), 65, "{differs:?}");
    let said = text(&differs.stderr);
    assert!(
        said.contains("a has 20000 rows in the manifest") && said.contains("has 19800 rows in the object"),
        "{said}"
    );
    fs::write(host.path("out/noted.bkpy.manifest"), b"{\"tables\": 1}").unwrap();
    let broken = verify("noted.bkpy");
    assert_eq!(code(&broken), 65, "{broken:?}");
    assert!(text(&broken.stderr).contains("is no manifest"), "{broken:?}");

    // A database that is damaged before it is backed up: its backup is authentic, and useless.
    let mut bytes = fs::read(host.path("shop.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0x5a);
    fs::write(host.path("shop.db"), bytes).unwrap();
    let made = output(&mut host.backup("shop", &["--out", "bad.bkpy", "--key-file", "shop.key"]));
    assert_eq!(code(&made), 0, "{made:?}");
    let bad = verify("bad.bkpy");
    assert_eq!(code(&bad), 65, "{bad:?}");
    assert!(text(&bad.stderr).contains("is not sound"), "{bad:?}");
    assert_eq!(fs::read_dir(place).unwrap().count(), 0, "the copy is left");
}

#[test]
fn an_object_goes_to_standard_output_and_nothing_else_does() {
    let host = Host::new();
    let made = output(&mut host.backup("shop", &["--out", "-", "--key-out", "key", "--json"]));
    assert_eq!(code(&made), 0, "{}", text(&made.stderr));
    assert!(text(&made.stderr).contains("\"ok\":true"));
    let object = host.path("piped");
    fs::write(&object, &made.stdout).unwrap();
    host.assert_opens(&object, "key");
    assert_eq!(host.out(), ["key"]);
}

#[test]
fn a_standard_output_that_is_closed_takes_no_object() {
    let host = Host::new();
    let backup = host.backup("shop", &["--out", "-", "--key-out", "key"]);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(backup.get_program()).args(backup.get_args());
    closed.envs(backup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    closed.current_dir(backup.get_current_dir().unwrap());
    let made = output(&mut closed);
    assert_ne!(code(&made), 0);
    assert!(text(&made.stderr).contains("closed"), "{}", text(&made.stderr));
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_says_why() {
    let host = Host::new();
    for (target, flags, exit, word) in [
        ("gone", &["--out", "x", "--key-out", "k"][..], 69, "does not exist"),
        ("none", &["--out", "x", "--key-out", "k"], 78, "it has gone, shop"),
        ("shop", &["--out", "nowhere/x", "--key-out", "k"], 73, "no such directory"),
        ("shop", &["--out", "x", "--key-file", "../agent.toml"], 65, "is no key"),
        ("shop", &["--out", "x", "--key-file", "missing"], 66, "missing"),
        ("shop", &["--out", "x"], 64, "--key-out"),
        ("shop", &["--key-out", "k"], 64, "--put-url-file"),
    ] {
        let failed = output(&mut host.backup(target, flags));
        assert_eq!(code(&failed), exit, "{failed:?}");
        assert!(text(&failed.stderr).contains(word), "{failed:?}");
        assert_eq!(host.out(), Vec::<String>::new(), "{target} {flags:?}");
    }
}

/// A store that takes one PUT and answers with that status; what it got.
fn store(answer: &'static str) -> (u16, JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let taking = std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).unwrap();
        }
        let lower = head.to_ascii_lowercase();
        if lower.contains("100-continue") {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let len =
            lower.split("content-length: ").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();
        let mut body = vec![0; len];
        stream.read_exact(&mut body).unwrap();
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        (head, body)
    });
    (port, taking)
}

#[test]
fn an_object_goes_to_a_presigned_url_whose_query_nobody_sees() {
    let host = Host::new();
    let url =
        |port| fs::write(host.path("url"), format!("http://127.0.0.1:{port}/o?X-Sig=TOPSECRET\n")).unwrap();
    let flags = ["--put-url-file", "../url", "--key-out", "key", "--allow-insecure"];
    let (port, taking) = store("200 OK");
    url(port);
    let made = output(&mut host.backup("shop", &flags));
    assert_eq!(code(&made), 0, "{made:?}");
    let (head, body) = taking.join().unwrap();
    assert!(head.starts_with("PUT /o?X-Sig=TOPSECRET "), "{head}");
    let object = host.path("stored");
    fs::write(&object, body).unwrap();
    host.assert_opens(&object, "key");

    let (port, _taking) = store("403 Forbidden");
    url(port);
    fs::remove_file(host.path("out/key")).unwrap();
    let refused = output(&mut host.backup("shop", &flags));
    assert_eq!(code(&refused), 69, "{refused:?}");
    assert!(
        text(&refused.stderr).contains("403") && !text(&refused.stderr).contains("TOPSECRET"),
        "{refused:?}"
    );
    // It had all of it: who can tell what it did with that.
    assert!(text(&refused.stderr).contains("its key stays in key"), "{refused:?}");
    assert_eq!(host.out(), ["key"]);
    fs::remove_file(host.path("out/key")).unwrap();
    let insecure = output(&mut host.backup("shop", &flags[..4]));
    assert_eq!(code(&insecure), 69, "{insecure:?}");
    assert_eq!(host.out(), Vec::<String>::new());
}

#[test]
fn a_signal_or_its_timeout_ends_a_backup_at_once_and_leaves_nothing() {
    let host = Host::new();
    // Takes the connection, and never a byte.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(host.path("url"), format!("http://127.0.0.1:{port}/o?X-Sig=TOPSECRET")).unwrap();
    let spool = host.path("spool");
    let spool = spool.to_str().unwrap();
    let flags = ["--put-url-file", "../url", "--key-out", "key", "--allow-insecure", "--spool-dir", spool];
    let mut going = Agent::spawn(host.backup("shop", &flags));
    let (_held, _) = listener.accept().unwrap();
    let begin = Instant::now();
    going.terminate();
    assert_eq!(going.wait_for_code(SOON), 75, "{:?}", going.output());
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // The kernel took the whole small object for the store, which may have it: only the key stays.
    let only_the_key = || {
        eventually("nothing but the key", SOON, || (host.out() == ["key"]).then_some(()));
        fs::remove_file(host.path("out/key")).unwrap();
    };
    only_the_key();
    assert_eq!(fs::read_dir(spool).unwrap().count(), 0);

    let mut late = Agent::spawn(host.backup("shop", &[&flags[..], &["--timeout", "1"]].concat()));
    let (_held, _) = listener.accept().unwrap();
    assert_eq!(late.wait_for_code(SOON), 69, "{:?}", late.output());
    assert!(late.output().join("\n").contains("--timeout 1 s"));
    only_the_key();
}

#[test]
fn force_replaces_a_file_and_nothing_else() {
    let host = Host::new();
    fs::write(host.path("key"), [7; 32]).unwrap();
    fs::write(host.path("out/old"), "old").unwrap();
    fs::create_dir(host.path("out/folder")).unwrap();
    let _socket = UnixListener::bind(host.path("out/socket")).unwrap();
    let before = fs::read(host.path("shop.db")).unwrap();
    for (out, exit) in [("old", 0), ("folder", 73), ("socket", 73), ("../shop.db", 64)] {
        let flags = ["--key-file", "../key", "--force", "--out", out];
        let made = output(&mut host.backup("shop", &flags));
        assert_eq!(code(&made), exit, "{out}: {made:?}");
    }
    host.assert_opens(&host.path("out/old"), "../key");
    assert!(fs::metadata(host.path("out/socket")).unwrap().file_type().is_socket());
    assert!(fs::read(host.path("shop.db")).unwrap() == before, "the database was replaced");
    assert_eq!(host.out(), ["folder", "old", "socket"]);
}

#[test]
fn check_config_names_what_is_wrong_with_a_target() {
    let host = Host::new();
    fs::write(host.path("agent.toml"), "[targets.shop]\ntype = \"sqlite3\"\nprot = 1\n").unwrap();
    let checked = output(command().args(["check-config", "--config"]).arg(host.path("agent.toml")));
    assert_eq!(code(&checked), 78, "{checked:?}");
    let said = text(&checked.stderr);
    assert!(said.contains("targets.shop.type") && said.contains("did you mean port?"), "{said}");
}
