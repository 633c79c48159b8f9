//! `backup` keeps to what the daemon's runs keep to: proxy, niceness, rates, levels; from file, environment and flags.

use super::backup_cli::{Host, code, output, text};
use crate::common::{Agent, eventually};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A proxy, and behind it the store of whatever name: takes one tunnel and one PUT. Gives the first line and the
/// number of bytes that the store got.
fn proxy() -> (TcpListener, impl FnOnce(TcpListener) -> JoinHandle<(String, usize)>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let serve = |listener: TcpListener| {
        std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let connect = head(&mut stream);
            stream.get_mut().write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let put = head(&mut stream).to_ascii_lowercase();
            if put.contains("100-continue") {
                stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            let len = put.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let mut body = vec![0; len.trim().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            (connect.lines().next().unwrap().to_owned(), body.len())
        })
    };
    (listener, serve)
}

fn head(stream: &mut BufReader<std::net::TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head
}

/// Puts it before everything else in the host's configuration.
fn configure(host: &Host, sections: &str) {
    let path = host.path("agent.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{sections}\n{before}")).unwrap();
}

const TO_STORE: [&str; 5] = ["--put-url-file", "../url", "--key-out", "key", "--json"];

fn told(made: &std::process::Output) -> serde_json::Value {
    assert_eq!(code(made), 0, "{made:?}");
    serde_json::from_slice(&made.stdout).unwrap()
}

#[test]
fn an_object_goes_through_the_proxy_of_the_settings_unless_its_host_is_excepted() {
    for by_variable in [false, true] {
        let host = Host::new();
        fs::write(host.path("url"), "http://store.test/o?X-Sig=TOPSECRET").unwrap();
        let (listener, serve) = proxy();
        let url = format!("http://{}", listener.local_addr().unwrap());
        configure(&host, "[server]\nallow_insecure = true");
        let mut backup = host.backup("shop", &TO_STORE);
        if by_variable {
            backup.env("HTTPS_PROXY", &url);
        } else {
            backup.args(["--proxy", &url]);
        }
        let serving = serve(listener);
        let told = told(&output(&mut backup));
        let (connect, len) = serving.join().unwrap();
        assert_eq!(connect, "CONNECT store.test:80 HTTP/1.1");
        assert_eq!(told["size_bytes"], len);
    }

    let host = Host::new();
    fs::write(host.path("url"), "http://store.test/o?X-Sig=TOPSECRET").unwrap();
    let (listener, _) = proxy();
    listener.set_nonblocking(true).unwrap();
    configure(
        &host,
        &format!(
            "[server]\nallow_insecure = true\nproxy = \"http://{}\"\nno_proxy = [\"store.test\"]",
            listener.local_addr().unwrap()
        ),
    );
    let direct = output(host.backup("shop", &TO_STORE).args(["--timeout", "2"]));
    assert_eq!(code(&direct), 69, "{direct:?}");
    assert!(listener.accept().is_err(), "the proxy was asked");
}

#[test]
fn dump_tools_are_as_nice_as_the_settings_say() {
    let host = Host::new();
    fs::create_dir(host.path("bin")).unwrap();
    let tool = host.path("bin/mongodump");
    fs::write(&tool, "#!/bin/sh\necho \"I am nice $(nice), $(ionice)\" >&2\nexit 3\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    configure(
        &host,
        "[backup]\nnice = 7\nidle_io = true\n[targets.docs]\ntype = \"mongodb\"\npassword_ref = \"literal:hunter22\"",
    );
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    let own: i32 = text(&output(&mut Command::new("nice")).stdout).trim().parse().unwrap();
    let flags = ["--out", "x", "--key-out", "k"];
    let failed = output(host.backup("docs", &flags).env("PATH", &path));
    assert_eq!(code(&failed), 69, "{failed:?}");
    let said = text(&failed.stderr);
    let nice = (own + 7).min(19);
    assert!(said.contains(&format!("exit status 3: I am nice {nice}, idle")), "{said}");
    assert!(said.contains("holds a password and is readable by others"), "{said}");
    let flagged =
        output(host.backup("docs", &flags).args(["--nice=0", "--idle-io=false"]).env("PATH", &path));
    assert!(text(&flagged.stderr).contains(&format!("I am nice {own}, none")), "{flagged:?}");
}

#[test]
fn rates_and_levels_of_the_settings_are_kept() {
    let host = Host::new();
    let size = fs::metadata(host.path("shop.db")).unwrap().len();
    let made = |number: u32, flags: &[&str], adjust: &dyn Fn(&mut Command)| {
        let (out, key) = (format!("{number}.bkpy"), format!("{number}.key"));
        let mut backup = host.backup("shop", &["--json", "--out", &out, "--key-out", &key]);
        adjust(backup.args(flags));
        let told = told(&output(&mut backup));
        (told["size_bytes"].as_u64().unwrap(), told["duration_ms"].as_u64().unwrap())
    };
    let zstd = ["1", "19"].map(|level| made(level.parse().unwrap(), &["--zstd-level", level], &|_| ()).0);
    assert!(zstd[0] > zstd[1], "{zstd:?}");
    let gzip = |number, level: &'static str| {
        made(number, &["--compression", "gzip"], &|backup| {
            backup.env("BACKUPY_BACKUP_GZIP_LEVEL", level);
        })
    };
    let gzip = [gzip(31, "1").0, gzip(39, "9").0];
    assert!(gzip[0] > gzip[1], "{gzip:?}");

    configure(&host, "[backup]\nmax_read_bytes_per_sec = \"256 KiB\"");
    let (_, took_ms) = made(40, &[], &|_| ());
    // A tenth of a second's worth may come at once.
    let least_ms = (size / 256).saturating_sub(200);
    assert!(least_ms > 500 && took_ms >= least_ms, "{took_ms} ms for {size} bytes");

    let wrong =
        output(&mut host.backup("shop", &["--out", "y", "--key-out", "z", "--zstd-level=99", "--nice=20"]));
    assert_eq!(code(&wrong), 78, "{wrong:?}");
    for fault in [
        "backup.zstd_level (--zstd-level): 99 is not in 1 to 22",
        "backup.nice (--nice): 20 is not in 0 to 19",
    ] {
        assert!(text(&wrong.stderr).contains(fault), "{wrong:?}");
    }
}

#[test]
fn zstd_has_as_many_workers_as_the_settings_say() {
    for threads in [1, 3] {
        let host = Host::new();
        let count = threads.to_string();
        let flags =
            ["--out", "x", "--key-out", "k", "--threads", &count, "--max-read-bytes-per-sec", "128 KiB"];
        let going = Agent::spawn(host.backup("shop", &flags));
        // Workers have the name of the thread that made them.
        let packing = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", going.pid())).unwrap().flatten();
            let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            names.filter(|name| name == "run-pack\n").count()
        };
        eventually("the workers are there", SOON, || (packing() == threads + 1).then_some(()));
    }
}
