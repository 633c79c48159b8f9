//! Uploads through HTTP proxies, and onto a disk that fills.

use crate::common::{Agent, Secrets};
use crate::site::{PATIENCE, Site, files};
use crate::tap::What;
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

const DATABASE_BYTES: u64 = 23_000_000;
const PARTS: usize = 5;

/// An HTTP proxy that takes CONNECT and leads everything to one port of loopback, whatever name was asked for: names
/// are the proxy's business, and here nobody else knows them.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    /// It answers the next ones so, and does nothing.
    away: Arc<Mutex<Vec<&'static str>>>,
}

impl Proxy {
    /// `wants` is what `Proxy-Authorization: Basic` must carry, decoded.
    fn to(port: u16, wants: Option<&str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let away = Arc::<Mutex<Vec<_>>>::default();
        let (told, gone) = (Arc::clone(&heads), Arc::clone(&away));
        let wants = wants.map(|wants| BASE64.encode(wants.as_bytes()));
        thread::spawn(move || {
            for agent in listener.incoming() {
                let (told, wants, gone) = (Arc::clone(&told), wants.clone(), gone.lock().unwrap().pop());
                thread::spawn(move || tunnel(agent.unwrap(), port, &told, wants.as_deref(), gone));
            }
        });
        Self { port: own, heads, away }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn tunnel(
    mut agent: TcpStream,
    port: u16,
    told: &Mutex<Vec<String>>,
    wants: Option<&str>,
    away: Option<&'static str>,
) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match agent.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    told.lock().unwrap().push(head.clone());
    let allowed = wants.is_none_or(|wants| {
        let line = format!("proxy-authorization: basic {}", wants.to_lowercase());
        head.to_lowercase().lines().any(|have| have == line)
    });
    let status = match (head.starts_with("CONNECT "), allowed, away) {
        (false, _, _) => "405 Method Not Allowed",
        (true, false, _) => "407 Proxy Authentication Required",
        (true, true, Some(status)) => status,
        (true, true, None) => "200 Connection established",
    };
    if agent.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).is_err() || !status.starts_with("200")
    {
        return;
    }
    let mut store = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut from_store, mut to_agent) = (store.try_clone().unwrap(), agent.try_clone().unwrap());
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from_store, &mut to_agent);
        let _ = to_agent.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut agent, &mut store);
    let _ = store.shutdown(Shutdown::Write);
    let _ = back.join();
}

fn through(site: &Site, proxy: &Proxy, user: &str, no_proxy: &str) -> Agent {
    site.agent(|command| {
        command
            .env("HTTPS_PROXY", format!("http://{user}127.0.0.1:{}", proxy.port))
            .env("NO_PROXY", no_proxy);
    })
}

/// A name that only the proxy knows.
const STORE: &str = "store.test";

#[actix::test]
async fn parts_and_one_put_go_through_a_proxy_with_and_without_a_password() {
    let single = || json!({"multipart": false});
    for (objects, wants, user) in [
        (json!({}), None, ""),
        (single(), None, ""),
        (json!({}), Some("me:p@ss/word"), "me:p%40ss%2Fword@"),
        (single(), Some("me:p@ss/word"), "me:p%40ss%2Fword@"),
    ] {
        let parts = objects.get("multipart").is_none();
        let site = Site::start(DATABASE_BYTES, objects, Some(STORE));
        let proxy = Proxy::to(site.tap.port, wants);
        let agent = through(&site, &proxy, user, "");
        let id = site.order().await;
        site.assert_good(&id).await;
        let requests = if parts { PARTS + 1 } else { 1 };
        assert_eq!(site.tap.seen().len(), requests);
        let connect = format!("CONNECT {STORE}:{} HTTP/1.1\r\n", site.tap.port);
        let heads = proxy.heads();
        // The control plane itself is on loopback, which no proxy is asked for.
        assert_eq!(heads.iter().filter(|head| head.starts_with(&connect)).count(), requests, "{heads:?}");
        assert_eq!(heads.len(), requests, "{heads:?}");
        if wants.is_some() {
            let encoded = BASE64.encode(b"me:p@ss/word");
            Secrets::new([("the password", "p@ss/word"), ("its base64", &encoded)]).assert_not_seen(&agent);
        }
    }
}

#[actix::test]
async fn hosts_of_no_proxy_are_reached_without_it() {
    // Every host's address of its own that is not loopback to the eye: what connects to it reaches this host.
    const HERE: &str = "0.0.0.0";
    for (no_proxy, proxied) in [(HERE, false), ("elsewhere.test", true)] {
        let site = Site::start(DATABASE_BYTES, json!({}), Some(HERE));
        let proxy = Proxy::to(site.tap.port, None);
        let _agent = through(&site, &proxy, "", no_proxy);
        let id = site.order().await;
        site.assert_good(&id).await;
        assert_eq!(site.tap.parts().len(), PARTS);
        assert_eq!(proxy.heads().len(), if proxied { PARTS + 1 } else { 0 }, "{no_proxy}");
    }
}

#[actix::test]
async fn a_proxy_that_refuses_the_password_fails_the_run_with_what_to_do() {
    for (user, told) in [("", "put them into server.proxy"), ("me:wrong-password@", "check them")] {
        for objects in [json!({}), json!({"multipart": false})] {
            let site = Site::start(DATABASE_BYTES, objects, Some(STORE));
            let proxy = Proxy::to(site.tap.port, Some("me:right-password"));
            let agent = through(&site, &proxy, user, "");
            let id = site.order().await;
            let run = site.ended(&id).await;
            assert_eq!(run["status"], "FAILED", "{run}");
            let error = run["error_message"].as_str().unwrap();
            let named = format!("the proxy 127.0.0.1:{} ", proxy.port);
            assert!(error.contains(&named) && error.contains(told) && error.contains(STORE), "{error}");
            assert_eq!(site.tap.seen().len(), 0);
            site.assert_nothing_left();
            Secrets::new([("the password", "wrong-password")]).assert_not_seen(&agent);
        }
    }
}

#[actix::test]
async fn a_proxy_that_is_away_for_a_moment_is_asked_again() {
    for objects in [json!({}), json!({"multipart": false})] {
        let site = Site::start(DATABASE_BYTES, objects, Some(STORE));
        let proxy = Proxy::to(site.tap.port, None);
        proxy.away.lock().unwrap().extend(["502 Bad Gateway", "503 Service Unavailable"]);
        let agent = through(&site, &proxy, "", "");
        let id = site.order().await;
        site.assert_good(&id).await;
        agent.wait_for_line("refused the tunnel", PATIENCE);
        assert_eq!(proxy.heads().len(), site.tap.seen().len() + 2);
    }
}

/// A file system of its own. Needs root, as CI has it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: &Path, mib: u32) -> Self {
        std::fs::create_dir(path).unwrap();
        let size = format!("size={mib}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted (as root)");
        Self(path.to_owned())
    }

    fn used_files(&self) -> usize {
        files(&self.0).len()
    }

    fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The run fails with the figures, and what it had written is gone at once.
async fn fills(disk_mib: u32, spool: &str, objects: Value) -> Site {
    let site = Site::start(40_000_000, objects, None);
    let disk = SmallDisk::at(&site.path("disk"), disk_mib);
    let whole = disk.free();
    let _agent = site.agent(|command| {
        command.env("BACKUPY_BACKUP_SPOOL", spool).env("BACKUPY_BACKUP_SPOOL_DIR", &disk.0);
    });
    let id = site.order().await;
    let run = site.ended(&id).await;
    let error = run["error_message"].as_str().unwrap();
    assert_eq!(run["status"], "FAILED", "{run}");
    assert!(error.contains("not enough room in") && error.contains("bytes are free"), "{error}");
    assert!(error.contains(&disk.0.display().to_string()), "{error}");
    // Of a disk smaller than the guard an eighth stays free.
    let free = error.split_once(" bytes are free").and_then(|(before, _)| before.rsplit_once(' '));
    assert!(free.unwrap().1.parse::<u64>().unwrap() >= u64::from(disk_mib) << 17, "{error}");
    crate::common::eventually("an empty disk", PATIENCE, || {
        (disk.used_files() == 0 && disk.free() == whole).then_some(())
    });
    site.assert_nothing_left();
    assert_eq!(site.objects().len(), 0);
    site
}

#[actix::test]
async fn a_disk_that_fills_under_the_spool_of_an_upload_in_parts_fails_the_run_with_figures() {
    let site = fills(32, "always", json!({})).await;
    assert_eq!(site.tap.parts(), Vec::<u32>::new());
    assert_eq!(site.tap.count(What::Abort), 1, "the upload was given up");
}

#[actix::test]
async fn a_disk_that_fills_under_parts_too_large_for_memory_fails_the_run_with_figures() {
    fills(40, "auto", json!({"part_size_bytes": 18_000_000})).await;
}

#[actix::test]
async fn what_others_keep_in_the_spools_directory_stays_through_a_start_and_a_run() {
    let site = Site::start(1_000_000, json!({}), None);
    let shared = site.path("shared");
    std::fs::create_dir_all(shared.join("private-photos")).unwrap();
    for name in ["holiday.part", "books.ledger", "private-photos/a.jpg"] {
        std::fs::write(shared.join(name), "mine").unwrap();
    }
    let agent = site.agent(|command| {
        command.env("BACKUPY_BACKUP_SPOOL", "always").env("BACKUPY_BACKUP_SPOOL_DIR", &shared);
    });
    let id = site.order().await;
    site.assert_good(&id).await;
    drop(agent);
    let own = |path: &PathBuf| path.strip_prefix(&shared).unwrap().starts_with("backupy-agent-");
    let left = files(&shared);
    assert_eq!(left.iter().filter(|path| !own(path)).count(), 3, "{left:?}");
}
