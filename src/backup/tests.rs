//! Whole runs, from a real database to a store.

use super::pack::pack;
use super::pipe::{PipeWriter, pipe};
use super::test_store::{Act, OK, Store, options};
use super::*;
use crate::model::{Connection as Place, Engine, Space};
use crate::object::{Opener, Order};
use crate::spool::SpoolError;
use ring::digest::{SHA256, digest};
use rusqlite::Connection;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const KEY: [u8; 32] = [9; 32];
const MARK: &str = "this row must never be seen in the clear";
const ALL: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];
const LONG: Duration = Duration::from_secs(600);

struct Site {
    dir: TempDir,
    options: Options,
    job: Job,
}

impl Site {
    fn new(store: &Store, compression: Compression, rows: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        make(&path, rows);
        let target = TargetSpec {
            id: "t1".into(),
            engine: Some(Engine::Sqlite),
            display_name: "main".into(),
            connection: Place { database: path.display().to_string(), ..Place::default() },
        };
        let job = JobSpec {
            id: "j1".into(),
            target_id: "t1".into(),
            compression: Some(compression),
            pre_hooks: Vec::new(),
            post_hooks: Vec::new(),
            timeout: None,
        };
        let options = Options {
            spool_dir: dir.path().join("spool"),
            spool: Default::default(),
            zstd_level: 3,
            gzip_level: 6,
            threads: 2,
            room: Room::default(),
            host: drivers::Host::default(),
            read_rate: Rate::default(),
            upload: options(),
            hooks: Default::default(),
        };
        Self { dir, options, job: Job { order: store.order(LONG), job, target } }
    }

    async fn run(&self) -> RunOutcome {
        self.run_with(&Progress::new(), &Cancel::new()).await
    }

    async fn run_with(&self, progress: &Progress, cancel: &Cancel) -> RunOutcome {
        let outcome = execute(&self.job, &self.options, progress, cancel).await;
        let left: Vec<_> = std::fs::read_dir(&self.options.spool_dir)
            .map(|dir| dir.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left in the spool: {left:?}");
        outcome
    }

    async fn failure(&self) -> String {
        match self.run().await {
            RunOutcome::Failed { error } => {
                assert!(!error.contains("TOPSECRET"), "{error}");
                error
            }
            RunOutcome::Completed(_) | RunOutcome::Cancelled => panic!("the run did not fail"),
        }
    }

    fn database(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("a.db")).unwrap()
    }
}

fn make(path: &Path, rows: u32) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, text TEXT); BEGIN").unwrap();
    for n in 0..rows {
        db.execute(
            "INSERT INTO a(text) VALUES(?1)",
            [format!("{MARK} {n} {}", n.wrapping_mul(2_654_435_761))],
        )
        .unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
}

/// What a user would do with the object.
fn open(object: &[u8], compression: Compression) -> Vec<u8> {
    let mut opener = Opener::new(object, &KEY, Order::Strict).unwrap();
    let mut plain = Vec::new();
    match compression {
        Compression::Zstd => {
            zstd::stream::read::Decoder::new(opener).unwrap().read_to_end(&mut plain).unwrap();
        }
        Compression::Gzip => {
            flate2::read::GzDecoder::new(opener).read_to_end(&mut plain).unwrap();
        }
        Compression::None => {
            opener.read_to_end(&mut plain).unwrap();
        }
    }
    plain
}

#[actix::test]
async fn a_backup_opens_to_the_same_database_with_every_compression() {
    for compression in ALL {
        let store = Store::new(vec![Act::AnswerSha]).await;
        let site = Site::new(&store, compression, 30_000);
        let progress = Progress::new();
        let outcome = site.run_with(&progress, &Cancel::new()).await;
        let RunOutcome::Completed(completed) = outcome else { panic!("{outcome:?}") };
        let object = store.requests().remove(0).body;
        assert!(open(&object, compression) == site.database());
        assert_eq!(completed.size_bytes, object.len() as u64);
        let sha256 = data_encoding::HEXLOWER.encode(digest(&SHA256, &object).as_ref());
        assert_eq!((completed.sha256, completed.compression), (sha256, compression));
        assert!(completed.engine_version.starts_with("SQLite 3."));
        assert_eq!(progress.now(), (crate::model::Step::Verifying, 99));
    }
}

fn space(free: u64) -> Space {
    Space { free, total: u64::MAX }
}

#[test]
fn every_length_around_a_frame_comes_out_as_it_went_in() {
    const FRAME: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    for compression in ALL {
        for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * FRAME + 7] {
            let data: Vec<u8> =
                (0..length as u64).map(|n| (n.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect();
            let spool = Arc::new(Spool::create(dir.path(), &"r".into()).unwrap());
            let packed = feed(&spool, compression, Room::default(), |writer| {
                writer.write_all(&data).unwrap();
                true
            });
            let packed = packed.unwrap().unwrap();
            let object = std::fs::read(spool.path()).unwrap();
            assert_eq!(packed.size_bytes, object.len() as u64);
            assert_eq!(packed.sha256, digest(&SHA256, &object).as_ref());
            assert!(open(&object, compression) == data, "{compression:?} {length}");
        }
    }
}

/// Packs what the function writes; it says whether the dump came to its end.
fn feed(
    spool: &Arc<Spool>,
    compression: Compression,
    room: Room,
    write: impl FnOnce(&mut PipeWriter) -> bool + Send,
) -> Result<Option<Packed>, RunError> {
    let packing =
        Packing { compression, zstd_level: 3, gzip_level: 6, threads: 2, key: KEY.to_vec().into(), room };
    let (mut writer, reader) = pipe(Cancel::new());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if write(&mut writer) {
                let _ = writer.finish();
            }
        });
        pack(reader, &Outlet::Spool(Arc::clone(spool)), &packing)
    })
}

/// Rows as a script or an archive has them.
fn rows(count: u32) -> Vec<u8> {
    let mut rows = Vec::new();
    for n in 0..count {
        let hash = digest(&SHA256, &n.to_le_bytes());
        let (id, rest) = hash.as_ref().split_at(8);
        let state = ["created", "paid", "shipped", "refunded"][usize::from(rest[0] % 4)];
        let at = format!("2026-0{}-1{} 12:{:02}:07", 1 + rest[1] % 9, rest[2] % 9, rest[3] % 60);
        writeln!(rows, "{n}\t{id:02x?}\t{state}\t{at}\t{{\"amount\": {}.{}}}", rest[4], rest[5]).unwrap();
    }
    rows
}

#[test]
fn at_the_level_for_dumps_rows_pack_as_small_as_by_zstds_own() {
    let rows = rows(100_000);
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::create(dir.path(), &"r".into()).unwrap());
    let packed = feed(&spool, Compression::Zstd, Room::default(), |writer| writer.write_all(&rows).is_ok());
    let (ours, theirs) = (packed.unwrap().unwrap().size_bytes, zstd::encode_all(&rows[..], 3).unwrap().len());
    assert!(ours * 100 < theirs as u64 * 102, "{ours} beside {theirs} of {}", rows.len());
    let object = std::fs::read(spool.path()).unwrap();
    assert!(open(&object, Compression::Zstd) == rows);
}

#[test]
fn a_dump_that_dies_half_way_is_never_an_object() {
    let dir = tempfile::tempdir().unwrap();
    for compression in ALL {
        let spool = Arc::new(Spool::create(dir.path(), &"r".into()).unwrap());
        let packed = feed(&spool, compression, Room::default(), |writer| {
            writer.write_all(&[1; 3_000_000]).unwrap();
            writer.flush().unwrap();
            false
        });
        assert!(packed.unwrap().is_none());
        let object = std::fs::read(spool.path()).unwrap();
        let mut opener = Opener::new(&object[..], &KEY, Order::Strict).unwrap();
        assert!(std::io::copy(&mut opener, &mut std::io::sink()).is_err(), "what is there does not open");
    }
}

#[actix::test]
async fn a_damaged_database_fails_before_the_store_hears_of_it() {
    let store = Store::new(vec![]).await;
    let site = Site::new(&store, Compression::Zstd, 30_000);
    let size = site.database().len() as u64;
    let path = site.dir.path().join("a.db");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size - 8192).unwrap();
    assert!(site.failure().await.contains("damaged"));
    assert!(store.requests().is_empty());
}

#[actix::test]
async fn what_this_agent_cannot_do_is_failed_with_what_to_do() {
    let store = Store::new(vec![]).await;
    let mut site = Site::new(&store, Compression::Zstd, 10);
    site.job.order.dek = vec![1; 60].into();
    assert!(site.failure().await.starts_with(
        "the key of this run is wrapped (60 bytes) and no key provider is configured on this agent"
    ));
    let mut site = Site::new(&store, Compression::Zstd, 10);
    site.job.job.post_hooks = vec!["true".into()];
    assert_eq!(site.failure().await, "hooks are disabled on this agent");
    let mut site = Site::new(&store, Compression::Zstd, 10);
    site.job.job.compression = None;
    assert!(site.failure().await.contains("use zstd, gzip or none"));
    let mut site = Site::new(&store, Compression::Zstd, 10);
    site.options.upload.allow_insecure = false;
    assert!(site.failure().await.contains("is http"));
    let mut site = Site::new(&store, Compression::Zstd, 10);
    site.job.target.connection.database = "/none/x.db".into();
    assert_eq!(site.failure().await, "/none/x.db: does not exist; correct the target's path");
    assert!(store.requests().is_empty());
}

#[actix::test]
async fn a_run_that_would_fill_the_disk_is_not_begun_or_ends_with_the_figures() {
    let store = Store::new(vec![]).await;
    let mut site = Site::new(&store, Compression::None, 30_000);
    let needed = site.database().len();
    site.options.room.free = Arc::new(|_| Ok(space(1_000_000)));
    let text = site.failure().await;
    assert!(
        text.contains("1000000 bytes are free") && text.contains(&format!("needs {needed} more")),
        "{text}"
    );

    // Room at first, none once some of it is used.
    let asked = AtomicU64::new(0);
    let room = Room {
        min_free_bytes: 1000,
        free: Arc::new(move |_| {
            Ok(if asked.fetch_add(1, Ordering::SeqCst) == 0 { space(u64::MAX) } else { space(999) })
        }),
    };
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::create(dir.path(), &"r".into()).unwrap());
    let ended = feed(&spool, Compression::None, room, |writer| {
        // The packing thread ends in the middle, and the pipe says so.
        (0..64).find_map(|_| writer.write_all(&[1; 1 << 20]).err()).expect("the pipe closes");
        false
    });
    assert!(matches!(ended, Err(RunError::Spool(SpoolError::NoRoom { free: 999, .. }))), "{ended:?}");
}

#[actix::test]
async fn a_disk_that_is_really_full_is_a_failure_in_words() {
    assert!(nix::unistd::geteuid().is_root(), "run the tests as root: this one mounts a small file system");
    let store = Store::new(vec![]).await;
    let mut site = Site::new(&store, Compression::None, 60_000);
    let _mount = Tmpfs::new(&site.options.spool_dir);
    site.options.room = Room { min_free_bytes: 0, free: Arc::new(|_| Ok(space(u64::MAX))) };
    let text = site.failure().await;
    assert!(text.contains("No space left on device") && text.contains("spool"), "{text}");
}

struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at);
        assert!(mount.status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[actix::test]
async fn a_run_that_is_stopped_ends_at_once_and_leaves_nothing() {
    // In the upload, which stands still; meanwhile only ciphertext is on the disk.
    let store = Store::new(vec![Act::Stall(1)]).await;
    let mut site = Site::new(&store, Compression::None, 30_000);
    site.options.upload.timing.stall = LONG;
    site.options.upload.timing.answer = LONG;
    let cancel = Cancel::new();
    let watch = async {
        while store.requests().first().is_none_or(|request| request.body.is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let spooled = std::fs::read(site.options.spool_dir.join("r1.part")).unwrap();
        assert!(spooled.len() > site.database().len());
        assert!(find(&site.database(), MARK) && !find(&spooled, MARK));
        cancel.cancel();
        std::time::Instant::now()
    };
    let progress = Progress::new();
    let (outcome, since) = tokio::join!(site.run_with(&progress, &cancel), watch);
    assert_eq!(outcome, RunOutcome::Cancelled);
    assert!(since.elapsed() < Duration::from_secs(2));

    // Before it began.
    let outcome = site.run_with(&Progress::new(), &cancel).await;
    assert_eq!(outcome, RunOutcome::Cancelled);
}

fn find(text: &[u8], mark: &str) -> bool {
    text.windows(mark.len()).any(|window| window == mark.as_bytes())
}

#[actix::test]
async fn a_spool_that_the_disk_changed_is_no_backup() {
    let store = Store::new(vec![OK, OK]).await;
    let site = Site::new(&store, Compression::None, 10_000);
    let spool = Arc::new(Spool::create(&site.options.spool_dir, &"r9".into()).unwrap());
    let packed = feed(&spool, Compression::None, Room::default(), |writer| {
        writer.write_all(&[1; 3_000_000]).unwrap();
        true
    });
    let packed = packed.unwrap().unwrap();
    let expected = verify::Expected {
        size_bytes: packed.size_bytes,
        plain_bytes: 3_000_000,
        compression: Compression::None,
        sha256: None,
    };
    let check =
        || verify::verify_spool(&spool, &KEY.to_vec().into(), expected.clone(), &Cancel::new()).unwrap();
    check().await.unwrap();
    let mut bytes = std::fs::read(spool.path()).unwrap();
    bytes[2_000_000] ^= 1;
    std::fs::write(spool.path(), &bytes).unwrap();
    let text = check().await.unwrap_err().to_string();
    assert!(text.contains("r9.part") && text.contains("does not open again"), "{text}");
    bytes.truncate(1_048_604 + 4);
    std::fs::write(spool.path(), &bytes).unwrap();
    assert!(check().await.is_err());
}
