//! `verify --restore` over real backups: back into a throwaway server of the engine, counted, compared, and gone.

use crate::common::process::{BINARY, command};
use crate::common::{self, Agent};
use crate::contract::Engine;
use crate::run::{Site, command_lines, megabytes, timed};
use backupy_agent::model::{Completed, Manifest};
use data_encoding::BASE64;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What ends with its command does so within this.
const SOON: Duration = Duration::from_secs(20);

/// An engine whose backups are restored for a look.
pub trait Restorable: Engine {
    /// Takes rows away.
    fn delete_rows(&self);
    /// Tables (of Redis, databases) and all rows that the filled source has.
    fn size(&self) -> (u64, u64);
    /// A program without which nothing can be restored, where a `PATH` can hide it; and its package.
    const NEEDED: Option<(&'static str, &'static str)>;
}

/// A backup of a site, and what is needed to look at it.
struct Look<'a> {
    site: &'a Site,
    completed: Completed,
    place: PathBuf,
}

impl<'a> Look<'a> {
    fn new(site: &'a Site, completed: Completed) -> Self {
        let place = site.dir.path().join("restored here");
        fs::create_dir_all(&place).unwrap();
        fs::write(site.dir.path().join("key"), BASE64.encode(&crate::run::KEY)).unwrap();
        let look = Self { site, completed, place };
        look.note("manifest");
        look
    }

    /// As `backup --json` tells it.
    fn note(&self, name: &str) {
        // Of a dump that was not counted there is none.
        let none = Manifest { tables: 0, rows: 0, digest: String::new(), largest: Vec::new() };
        let manifest = self.completed.manifest.clone().unwrap_or(none);
        let told = serde_json::json!({ "ok": true, "manifest": manifest });
        fs::write(self.site.dir.path().join(name), told.to_string()).unwrap();
    }

    fn verify(&self, manifest: &str) -> Command {
        let dir = self.site.dir.path();
        let mut command = command();
        command.args(["verify", "--restore", "--json", "--key-file"]).arg(dir.join("key"));
        command.arg("--in").arg(self.site.object()).arg("--restore-dir").arg(&self.place);
        command.arg("--manifest").arg(dir.join(manifest));
        command
    }

    #[track_caller]
    fn run(&self, command: &mut Command) -> (i32, Value, String) {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        self.nothing_is_left();
        (output.status.code().unwrap(), told, said)
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let mark = self.place.display().to_string();
        common::eventually("nothing is left of a look", SOON, || {
            let empty = fs::read_dir(&self.place).unwrap().count() == 0;
            (empty && !command_lines().any(|(_, line)| line.contains(&mark) && !line.starts_with(BINARY)))
                .then_some(())
        });
    }
}

/// One good look at a run's object; gives what was told.
#[track_caller]
pub fn look_at(site: &Site, completed: Completed, version: &str) -> Value {
    let look = Look::new(site, completed);
    let rows = look.completed.manifest.clone().expect("the run counted").rows;
    let ((code, told, said), took) = timed(|| look.run(&mut look.verify("manifest")));
    println!("{version} looked at in {took:.1?}: {rows} rows, {} bytes of dump", told["content_bytes"]);
    assert_eq!((code, &told["ok"]), (0, &true.into()), "{said}");
    assert_eq!(told["restored"]["rows"], rows, "{told}");
    assert!(told["restored"]["engine"].as_str().unwrap().starts_with(version), "{told}");
    assert!(told["manifest"].as_str().unwrap().ends_with("manifest"), "{told}");
    told
}

/// A look that ends otherwise: the exit code, what was told, and what was said.
pub fn look_fails(site: &Site, completed: Completed) -> (i32, Value, String) {
    look_with(site, completed, |_| {})
}

/// The same of any look, after `adjust`.
pub fn look_with(
    site: &Site,
    completed: Completed,
    adjust: impl FnOnce(&mut Command),
) -> (i32, Value, String) {
    let look = Look::new(site, completed);
    let mut verify = look.verify("manifest");
    adjust(&mut verify);
    look.run(&mut verify)
}

/// Good, and each way of being bad.
pub fn a_backup_is_restored_for_a_look_and_compared<E: Restorable>() {
    let source = E::start();
    source.fill(megabytes() << 20);
    let site = Site::new(&E::tools());
    let look = Look::new(&site, site.success(&source.target()));
    let (tables, rows) = source.size();
    let noted = look.completed.manifest.clone().expect("the run counted");
    assert_eq!((noted.tables, noted.rows), (tables, rows), "{noted:?}");
    let told = look_at(&site, look.completed.clone(), E::VERSION);
    assert_eq!(told["restored"]["tables"].as_object().unwrap().len() as u64, tables, "{told}");

    if let Some((program, package)) = E::NEEDED {
        let mut without = look.verify("manifest");
        without.env("PATH", &look.place);
        let (code, told, said) = look.run(&mut without);
        assert_eq!((code, &told["error"]), (69, &"server_missing".into()), "{said}");
        assert!(said.contains(program) && said.contains(package), "{said}");
    }

    // The same key, the same database, and fewer rows than the run noted.
    source.delete_rows();
    let fewer = Look { completed: site.success(&source.target()), place: look.place.clone(), site: &site };
    let (code, told, said) = fewer.run(&mut fewer.verify("manifest"));
    assert_eq!((code, &told["error"]), (65, &"manifest_differs".into()), "{said}");
    assert!(said.contains("rows in the manifest") && said.contains("in the object"), "{said}");
    fewer.note("manifest");
    assert_eq!(fewer.run(&mut fewer.verify("manifest")).0, 0);
}

/// Whatever ends the command, its servers and its plaintext go.
pub fn a_look_that_is_ended_leaves_nothing<E: Restorable>() {
    let source = E::start();
    source.fill(16 << 20);
    let site = Site::new(&E::tools());
    let look = Look::new(&site, site.success(&source.target()));
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut going = Agent::spawn(look.verify("manifest"));
        let mark = look.place.display().to_string();
        common::eventually("a program of the look runs", SOON, || {
            let mut lines = command_lines().filter(|(pid, _)| *pid as u32 != going.pid());
            lines.find(|(_, line)| line.contains(&mark) && !line.contains("rm -rf"))
        });
        going.signal(signal);
        assert!(!going.wait(SOON).success());
        look.nothing_is_left();
    }
}

/// The looks of one engine.
#[macro_export]
macro_rules! restored {
    ($engine:ty) => {
        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn a_backup_is_restored_for_a_look_and_compared() {
            $crate::restored::a_backup_is_restored_for_a_look_and_compared::<$engine>();
        }

        #[test]
        #[ignore = "needs the engines' servers: make engines"]
        fn a_look_that_is_ended_leaves_nothing() {
            $crate::restored::a_look_that_is_ended_leaves_nothing::<$engine>();
        }
    };
}
