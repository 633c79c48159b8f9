//! What `backup` and `decrypt` write, and what they must never write over.

use crate::backup_cli::{Host, code, output, text};
use crate::common::{Agent, eventually, process::command};
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn no_output_replaces_the_key_the_database_or_another_output() {
    let host = Host::new();
    fs::write(host.path("out/key"), [7; 32]).unwrap();
    let before = fs::read(host.path("shop.db")).unwrap();
    for (flags, words) in [
        (&["--key-file", "key", "--out", "key", "--force"][..], "which is the key"),
        (&["--key-out", "new", "--out", "./new", "--force"], "which is --key-out"),
        (&["--key-file", "key", "--out", "a", "--manifest-out", "../out/a"], "which is --manifest-out"),
        (&["--key-file", "key", "--out", "a", "--manifest-out", "key"], "which is the key"),
        (&["--key-file", "key", "--out", "a", "--manifest-out", "../shop.db"], "which is the database"),
        (&["--key-file", "key", "--out", "../shop.db-wal", "--force"], "which is the database"),
        (&["--key-file", "key", "--out", "../agent.toml", "--force"], "which is the configuration"),
    ] {
        let refused = output(&mut host.backup("shop", flags));
        assert_eq!(code(&refused), 64, "{flags:?}: {refused:?}");
        assert!(text(&refused.stderr).contains(words), "{flags:?}: {refused:?}");
        assert_eq!(host.out(), ["key"], "{flags:?}");
    }
    assert_eq!(fs::read(host.path("out/key")).unwrap(), [7; 32]);
    assert!(fs::read(host.path("shop.db")).unwrap() == before);
    let nowhere = ["--key-file", "key", "--out", "a", "--manifest-out", "nowhere/m"];
    let nowhere = output(&mut host.backup("shop", &nowhere));
    assert_eq!(code(&nowhere), 73, "noticed before the dump: {nowhere:?}");
    assert_eq!(host.out(), ["key"]);
}

#[test]
fn decrypt_replaces_neither_its_key_nor_the_object() {
    let host = Host::new();
    assert_eq!(code(&output(&mut host.backup("shop", &["--out", "o", "--key-out", "k"]))), 0);
    let key = fs::read(host.path("out/k")).unwrap();
    for out in ["k", "o"] {
        let mut decrypt = command();
        decrypt.current_dir(host.path("out"));
        decrypt.args(["decrypt", "--force", "--key-file", "k", "--in", "o", "--out", out]);
        assert_eq!(code(&output(&mut decrypt)), 64);
    }
    assert!(fs::read(host.path("out/k")).unwrap() == key);
    host.assert_opens(&host.path("out/o"), "k");
    let mut verify = command();
    verify.current_dir(host.path("out")).args(["verify", "o", "--key-file", "k"]);
    assert_eq!(code(&output(&mut verify)), 0, "the object needs no flag");
}

#[test]
fn force_follows_a_link() {
    let host = Host::new();
    fs::write(host.path("old"), "old").unwrap();
    std::os::unix::fs::symlink("../old", host.path("out/latest")).unwrap();
    let flags = ["--key-out", "key", "--out", "latest"];
    assert_eq!(code(&output(&mut host.backup("shop", &flags))), 73);
    assert_eq!(code(&output(&mut host.backup("shop", &[&flags[..], &["--force"]].concat()))), 0);
    assert!(host.path("out/latest").is_symlink());
    host.assert_opens(&host.path("old"), "key");
}

#[test]
fn a_reader_that_stands_still_does_not_keep_a_backup_from_ending() {
    let host = Host::new();
    let spool = host.path("spool");
    for (more, exit) in [(&[][..], 75), (&["--timeout", "1"], 69)] {
        // Does not shrink below what a pipe holds.
        let flags = ["--compression", "none", "--out", "-", "--key-out", "key", "--quiet", "--spool-dir"];
        let mut backup = host.backup("shop", &[&flags[..], &[spool.to_str().unwrap()], more].concat());
        let mut going = backup.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut read = [0; 16];
        let mut stdout = going.stdout.take().unwrap();
        stdout.read_exact(&mut read).unwrap();
        let begin = Instant::now();
        if more.is_empty() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(going.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            )
            .unwrap();
        }
        let ended = eventually("it ends", SOON, || going.try_wait().unwrap());
        assert_eq!(ended.code(), Some(exit));
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
        assert_eq!(host.out(), Vec::<String>::new(), "a key that opens nothing whole");
    }
}

#[test]
fn the_key_of_an_object_that_may_be_stored_stays() {
    let host = Host::new();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(host.path("url"), format!("http://127.0.0.1:{port}/o?X-Sig=TOPSECRET")).unwrap();
    let flags = ["--put-url-file", "../url", "--key-out", "key", "--allow-insecure", "--timeout", "3"];
    let mut going = Agent::spawn(host.backup("shop", &flags));
    // Takes all of it, and never says so.
    let (mut stream, _) = listener.accept().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    assert_eq!(going.wait_for_code(SOON), 69, "{:?}", going.output());
    let said = going.output().join("\n");
    assert!(said.contains("--timeout 3 s") && said.contains("its key stays in key"), "{said}");
    assert_eq!(host.out(), ["key"]);
}
