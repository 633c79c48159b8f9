//! Whole runs, and what they leave.

use crate::common;
use crate::store::Store;
use backupy_agent::backup::{Job, Options, Progress, Rate, execute, hooks, upload};
use backupy_agent::drivers::{Host, Tools};
use backupy_agent::model::{
    Completed, Compression, EventLevel, JobSpec, RunOrder, RunOutcome, TargetSpec, unix_ms,
};
use backupy_agent::object::{Opener, Order};
use backupy_agent::process::{Cancel, Manners};
use backupy_agent::spool::Room;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, copy};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const KEY: [u8; 32] = [7; 32];

/// How nice dump tools are here, beside the tests.
pub const NICE: u8 = 5;

/// A cancelled run is over within this (behaviour section 4).
pub const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// How much each database holds.
pub fn megabytes() -> u64 {
    std::env::var("ENGINES_MB").map_or(6, |text| text.parse().expect("ENGINES_MB is a number"))
}

/// A host for runs: a spool, a store, and a directory with links to the tools, so that this site's children are
/// told from those of the tests beside it.
pub struct Site {
    pub dir: TempDir,
    pub options: Options,
    compression: Compression,
    store: Store,
}

/// A run that goes on.
pub struct Going {
    pub cancel: Cancel,
    /// Where it tells what happens.
    pub progress: Progress,
    thread: JoinHandle<RunOutcome>,
}

impl Site {
    pub fn new(tools: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for tool in tools {
            symlink(tool, bin.join(tool.file_name().unwrap())).unwrap();
        }
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let store = Store::start(&dir.path().join("store"));
        let tools = Tools { dirs: vec![bin], postgres_dirs: Vec::new() };
        let timing = upload::Timing { first_wait: Duration::from_millis(50), ..upload::Timing::default() };
        let options = Options {
            spool_dir: dir.path().join("spool"),
            spool: Default::default(),
            zstd_level: 1,
            gzip_level: 6,
            threads: 1,
            room: Room::default(),
            host: Host { tools, docker: Default::default(), manners: Manners { nice: NICE, idle_io: true } },
            hooks: hooks::Options::default(),
            read_rate: Rate::default(),
            upload: upload::Options {
                allow_insecure: true,
                ca_file: None,
                timing,
                rate: Rate::default(),
                connect: upload::direct(),
            },
        };
        Self { dir, options, compression: Compression::Zstd, store }
    }

    pub fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// So slow that a test gets in between, and not compressed, so that something soon is in the spool.
    pub fn slow(mut self) -> Self {
        self.options.read_rate = Rate::new(1 << 20);
        self.compression = Compression::None;
        self
    }

    pub fn begin(&self, target: &TargetSpec) -> Going {
        let order = RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: true,
            put_url: self.store.url("object").as_str().into(),
            expires_at_ms: unix_ms() + 600_000,
            multipart: None,
            s3_key: "object".into(),
            dek: KEY.to_vec().into(),
        };
        let job = JobSpec {
            id: "j1".into(),
            target_id: target.id.clone(),
            compression: Some(self.compression),
            pre_hooks: Vec::new(),
            post_hooks: Vec::new(),
            timeout: None,
        };
        let job = Job { order, job, target: target.clone() };
        let (options, cancel, progress) = (self.options.clone(), Cancel::new(), Progress::new());
        let (switch, told) = (cancel.clone(), progress.clone());
        let thread = std::thread::spawn(move || {
            let runtime = actix_rt::Runtime::new().unwrap();
            runtime.block_on(execute(&job, &options, &told, &switch))
        });
        Going { cancel, progress, thread }
    }

    /// The whole run; nothing is left of it but the object.
    pub fn run(&self, target: &TargetSpec) -> RunOutcome {
        self.end(self.begin(target))
    }

    pub fn end(&self, going: Going) -> RunOutcome {
        let outcome = going.thread.join().unwrap();
        let spool = std::fs::read_dir(&self.options.spool_dir);
        let left: Vec<_> = spool.map(|dir| dir.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
        assert!(left.is_empty(), "left in the spool: {left:?}");
        common::eventually("no child is left", Duration::from_secs(5), || {
            self.children().is_empty().then_some(())
        });
        outcome
    }

    #[track_caller]
    pub fn success(&self, target: &TargetSpec) -> Completed {
        match self.run(target) {
            RunOutcome::Completed(completed) => completed,
            RunOutcome::Failed { error } => panic!("{error}"),
            RunOutcome::Cancelled => panic!("cancelled"),
        }
    }

    /// A run that succeeds, with what its owner is told of the dump.
    #[track_caller]
    pub fn remarks(&self, target: &TargetSpec) -> (Completed, Vec<String>) {
        let going = self.begin(target);
        let progress = going.progress.clone();
        let outcome = self.end(going);
        let RunOutcome::Completed(completed) = outcome else { panic!("{outcome:?}") };
        let events = progress.take_events().into_iter();
        let warnings = events.filter(|event| event.level == EventLevel::Warn);
        (completed, warnings.map(|event| event.message).collect())
    }

    #[track_caller]
    pub fn failure(&self, target: &TargetSpec) -> String {
        failed(self.run(target), target)
    }

    /// What a user would do with the object: opened and decompressed.
    pub fn opened(&self) -> PathBuf {
        let object = BufReader::new(File::open(self.object()).unwrap());
        let opener = Opener::new(object, &KEY, Order::Strict).unwrap();
        let path = self.dir.path().join("dump");
        let mut plain: Box<dyn Read> = match self.compression {
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(opener).unwrap()),
            Compression::Gzip => panic!("no site packs so"),
            Compression::None => Box::new(opener),
        };
        copy(&mut plain, &mut File::create(&path).unwrap()).unwrap();
        path
    }

    /// The stored object.
    pub fn object(&self) -> PathBuf {
        self.store.object("object")
    }

    /// The processes that run one of this site's tools.
    pub fn children(&self) -> BTreeSet<i32> {
        let mark = self.bin().display().to_string();
        command_lines().filter(|(_, line)| line.contains(&mark)).map(|(pid, _)| pid).collect()
    }

    /// Waits until something is in the spool.
    pub fn until_spooling(&self) {
        let spool = self.options.spool_dir.join("r1.part");
        common::eventually("something is in the spool", Duration::from_secs(30), || {
            spool.metadata().is_ok_and(|meta| meta.len() > 0).then_some(())
        });
    }

    /// Waits until that tool dumps: something is in the spool.
    pub fn until_dumping(&self, tool: &str) -> i32 {
        let mark = self.bin().join(tool).display().to_string();
        let spool = self.options.spool_dir.join("r1.part");
        common::eventually(&format!("{tool} dumps"), Duration::from_secs(30), || {
            let begun = spool.metadata().is_ok_and(|meta| meta.len() > 0);
            let mut dumping = command_lines().filter(|(_, line)| {
                // Not the short question that some drivers ask before, which is not a dump.
                line.contains(&mark) && !line.contains("--version") && !line.contains("INFO")
            });
            dumping.next().filter(|_| begun).map(|(pid, _)| pid)
        })
    }
}

/// The error of a run that must have failed, without the target's password.
#[track_caller]
pub fn failed(outcome: RunOutcome, target: &TargetSpec) -> String {
    let RunOutcome::Failed { error } = outcome else { panic!("{outcome:?}") };
    let password = target.connection.password_ref.expose();
    assert!(password.len() < 4 || !error.contains(password), "the password is in: {error}");
    assert!(!error.contains("TOPSECRET"), "{error}");
    error
}

/// Looks at every process's arguments until it is dropped; a secret in any fails the test.
pub struct Watch {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Watch {
    pub fn for_secret(secret: &str) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (seen, secret) = (stop.clone(), secret.to_owned());
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::SeqCst) {
                if let Some((_, line)) = command_lines().find(|(_, line)| line.contains(&secret)) {
                    return Some(line);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            None
        });
        Self { stop, thread: Some(thread) }
    }

    pub fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), None, "a secret in a command line");
    }
}

pub fn command_lines() -> impl Iterator<Item = (i32, String)> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
}

/// How long something took, with its value.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

/// A script in the site's directory of tools.
pub fn script(dir: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
