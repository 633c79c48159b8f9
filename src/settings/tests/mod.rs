//! The settings as an operator meets them: every row of the table, every layer, every fault.

mod faults;
mod layering;

use super::{Faults, Flag, KEYS, Kind, Loaded, Sources, load};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// A valid key that must never be seen again.
const AGENT_KEY: &str = "bkpy_live_0123456789abcdefghijABCDEFGHIJ01";

/// Sources in a directory of their own; a valid agent key stands in the environment.
struct Case {
    dir: TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        let case = Self::without_key();
        case.env("BACKUPY_AGENT_KEY", AGENT_KEY)
    }

    fn without_key() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let default_file = dir.path().join("missing.toml");
        let sources = Sources { file: None, default_file, environment: BTreeMap::new(), flags: Vec::new() };
        Self { dir, sources }
    }

    /// Writes a file, private, and gives its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn file(mut self, text: &str) -> Self {
        self.sources.file = Some(self.write("agent.toml", text));
        self
    }

    fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.sources.environment.insert(name.to_owned(), value.into());
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.sources.flags.push(Flag { key, value: value.to_owned() });
        self
    }

    fn load(&self) -> Result<Loaded, Faults> {
        load(&self.sources)
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap()
    }

    /// The faults as an operator reads them; none may show the agent key.
    #[track_caller]
    fn faults(&self) -> Vec<String> {
        let faults = self.load().expect_err("there should be faults");
        assert!(!faults.to_string().contains("bkpy_live_0"), "{faults}");
        faults.iter().map(ToString::to_string).collect()
    }

    /// The only fault.
    #[track_caller]
    fn fault(&self) -> String {
        let mut faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(!faults[0].contains('\n'), "more than a line: {}", faults[0]);
        faults.remove(0)
    }
}

#[track_caller]
fn row<'a>(loaded: &'a Loaded, key: &str) -> (&'a str, &'a str) {
    let row = loaded.rows.iter().find(|row| row.key == key).unwrap();
    (&row.value, &row.source)
}

/// A value for each key that differs from its default, as it is typed in a variable or flag, and
/// as `check-config` shows it. Paths of files that must exist are made in the case's directory.
fn other_value(case: &Case, name: &str) -> (String, String) {
    let same = |text: &str| (text.to_owned(), text.to_owned());
    match name {
        "server.url" => same("https://backup.example.org:8443/base"),
        "server.ca_file" => {
            let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            same(case.write("ca.pem", &certificate.cert.pem()).to_str().unwrap())
        }
        "server.pins" => {
            let pin = data_encoding::BASE64.encode(&[7; 32]);
            (format!("{pin},{pin}"), format!("{pin}, {pin}"))
        }
        "server.proxy" => ("http://me:secret@proxy:3128".into(), "http://***@proxy:3128/".into()),
        "server.no_proxy" => ("localhost,.corp".into(), "localhost, .corp".into()),
        "server.allow_insecure" | "hooks.enabled" | "backup.idle_io" => same("true"),
        "hooks.timeout" => same("2m"),
        "docker.discovery" => same("false"),
        "state.dir" | "backup.spool_dir" => same("/elsewhere/dir"),
        "state.max_queue_bytes" | "state.min_free_bytes" => same("32 MiB"),
        "log.level" => same("debug"),
        "log.format" => same("json"),
        "metrics.listen" => same("127.0.0.1:9999"),
        "docker.socket" => same("/run/podman.sock"),
        "backup.spool" => same("never"),
        "backup.zstd_level" => same("9"),
        "backup.gzip_level" => same("8"),
        "backup.threads" | "backup.nice" => same("7"),
        "backup.max_read_bytes_per_sec" | "backup.max_upload_bytes_per_sec" => same("8 MiB"),
        "update.enabled" => same("false"),
        "server.agent_key_file" | "update.public_key_file" => {
            same(case.write("key", &format!("{AGENT_KEY}\n")).to_str().unwrap())
        }
        other => panic!("{other} has no other value"),
    }
}

/// The keys that every layer can set: all but the agent key, which has tests of its own.
fn settable() -> impl Iterator<Item = &'static super::Key> {
    KEYS.iter().filter(|key| key.kind != Kind::Secret)
}

/// The value as TOML.
fn toml(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Bool | Kind::Integer => text.to_owned(),
        Kind::List => {
            format!("[{}]", text.split(',').map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", "))
        }
        Kind::Text | Kind::Secret | Kind::Size => format!("{text:?}"),
    }
}
