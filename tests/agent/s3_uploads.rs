//! Uploads into s3s, by URLs that rusty-s3 signed: accepted, refused, too old, given up. `tests/plane` has the same
//! with rclone's server and boto3.

use crate::common::{Agent, Secrets, agent_key, eventually, process};
use crate::s3_store::{ALIVE, DEAD, S3};
use crate::scripted::Scripted;
use backupy_agent::model::unix_ms;
use backupy_agent::wire::{Payload, v1};
use data_encoding::HEXLOWER;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const DEK: [u8; 32] = [0x4d; 32];
const PART_BYTES: u64 = 5 * 1024 * 1024;
const PARTS: u16 = 12;
const OCTETS: &str = "application/octet-stream";
const SOON: Duration = Duration::from_secs(30);

struct Scene {
    dir: TempDir,
    database: PathBuf,
    store: S3,
    plane: Scripted,
    agent: Agent,
}

impl Scene {
    /// A database of about so many MB that do not compress.
    fn new(megabytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("shop.db");
        let source = rusqlite::Connection::open(&database).unwrap();
        let rows = format!(
            "create table t (id integer primary key, noise blob);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < {})
             insert into t select i, randomblob(10000) from n",
            megabytes * 100
        );
        source.execute_batch(&rows).unwrap();
        let connection = v1::ConnectionConfig { database: text(&database), ..Default::default() };
        let target = v1::Target {
            id: "t".into(),
            r#type: v1::DbType::Sqlite.into(),
            connection: Some(connection),
            ..Default::default()
        };
        let job = v1::BackupJobSpec { id: "j".into(), target_id: "t".into(), ..Default::default() };
        let config =
            v1::AgentConfig { version: 1, targets: vec![target], jobs: vec![job], ..Default::default() };
        let plane = Scripted::start(config);
        let url = format!("http://127.0.0.1:{}", plane.port);
        let agent = Agent::run(&dir.path().join("state"), &url, &agent_key('s'), |_| {});
        let store = S3::start(&dir.path().join("s3"));
        Self { dir, database, store, plane, agent }
    }

    fn order(&self, run: &str, creds: v1::S3UploadCreds) {
        self.order_until(run, creds, unix_ms() + 600_000);
    }

    fn order_until(&self, run: &str, creds: v1::S3UploadCreds, expires_at_ms: u64) {
        let creds = v1::S3UploadCreds { final_s3_key: run.into(), expires_at_ms, ..creds };
        let order = v1::RunBackup {
            job_id: "j".into(),
            run_id: run.into(),
            manual_trigger: true,
            upload_creds: Some(creds),
            encrypted_dek: DEK.to_vec(),
        };
        self.plane.say(run, Payload::RunBackup(order));
    }

    fn put(&self, run: &str, url: String) {
        self.order(run, v1::S3UploadCreds { presigned_put_url: url, ..Default::default() });
    }

    /// Offers an upload in parts; those from `dead_from` on have URLs that are too old.
    fn offer(&self, run: &str, upload: &str, dead_from: u16) {
        let life = |number| if number < dead_from { ALIVE } else { DEAD };
        let creds = v1::S3UploadCreds {
            presigned_put_url: self.store.put_url(run, OCTETS, ALIVE),
            part_size_bytes: PART_BYTES,
            presigned_part_urls: (1..=PARTS)
                .map(|number| self.store.part_url(run, upload, number, life(number)))
                .collect(),
            presigned_complete_url: self.store.complete_url(run, upload),
            presigned_abort_url: self.store.abort_url(run, upload),
            multipart_upload_id: upload.into(),
            ..Default::default()
        };
        self.order(run, creds);
    }

    fn completed(&self, run: &str) -> v1::BackupCompleted {
        let result = self.plane.hear(&format!("the result of {run}"), |payload| {
            if let Payload::BackupCompleted(done) = payload {
                return (done.run_id == run).then(|| Ok(done.clone()));
            }
            failure(payload, run).map(Err)
        });
        result.unwrap_or_else(|error| panic!("{error}"))
    }

    fn failed(&self, run: &str) -> String {
        self.plane.hear(&format!("the failure of {run}"), |payload| failure(payload, run))
    }

    /// The failure of a run whose question for fresh URLs is answered with some that are over. A server that says
    /// nothing is waited for much longer.
    fn failed_without_help(&self, run: &str) -> String {
        self.asked(run);
        let acks = || {
            let of_run =
                |payload: &Payload| matches!(payload, Payload::Ack(ack) if ack.correlation_id == run);
            self.plane.count(of_run)
        };
        for expires_at_ms in 1..=5 {
            let (url, before) = ("http://over.test/".into(), acks());
            let creds = v1::S3UploadCreds { presigned_put_url: url, ..Default::default() };
            self.order_until(run, creds, expires_at_ms);
            eventually("its ack", SOON, || (acks() > before).then_some(()));
        }
        self.failed(run)
    }

    fn asked(&self, run: &str) -> v1::UploadUrlsRequest {
        self.plane.hear(&format!("the question of {run}"), |payload| {
            let Payload::UploadUrlsRequest(question) = payload else { return None };
            (question.run_id == run).then(|| question.clone())
        })
    }

    /// The object is what was told, and a user's `decrypt` makes the database of it again.
    fn assert_opens(&self, run: &str, done: &v1::BackupCompleted) {
        let object = self.store.object(run);
        assert_eq!(std::fs::metadata(&object).unwrap().len(), done.size_bytes);
        let bytes = std::fs::read(&object).unwrap();
        let sha256 = ring::digest::digest(&ring::digest::SHA256, &bytes);
        assert_eq!(HEXLOWER.encode(sha256.as_ref()), done.sha256);
        let (key, out) = (self.dir.path().join("key"), self.dir.path().join(format!("{run}.db")));
        std::fs::write(&key, HEXLOWER.encode(&DEK)).unwrap();
        let mut decrypt = process::command();
        decrypt.args(["decrypt", "--key-file", &text(&key), "--in", &text(&object), "--out", &text(&out)]);
        let ended = decrypt.output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&self.database).unwrap(), "another database");
    }

    /// Nothing is left at the store, on the disk, or of a signature in the log.
    fn assert_clean(&self) {
        assert_eq!(self.store.unfinished(), Vec::<String>::new());
        let spool = std::fs::read_dir(self.dir.path().join("state/spool")).into_iter().flatten();
        // The agent's own directory in it.
        assert!(spool.flatten().all(|own| own.path().read_dir().unwrap().next().is_none()));
        Secrets::new([("a signature", "X-Amz-Signature="), ("the key", &HEXLOWER.encode(&DEK))])
            .assert_not_seen(&self.agent);
    }
}

/// Why the run failed, where this says it.
fn failure(payload: &Payload, run: &str) -> Option<String> {
    let Payload::JobUpdate(update) = payload else { return None };
    let failed = update.run_id == run && update.status == i32::from(v1::JobStatus::Failed);
    failed.then(|| update.error_message.clone())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn s3s_takes_one_put_and_the_object_opens() {
    let scene = Scene::new(4);
    scene.put("one", scene.store.put_url("one", OCTETS, ALIVE));
    let done = scene.completed("one");
    assert!(done.size_bytes > 2 << 20, "so small that the store is not asked before the body");
    scene.assert_opens("one", &done);
    scene.assert_clean();
}

#[actix::test]
async fn s3s_takes_parts_and_fresh_urls_for_those_that_are_too_old() {
    let scene = Scene::new(24);
    for (run, dead_from) in [("all-at-once", PARTS + 1), ("renewed", 3)] {
        let upload = scene.store.begin(run).await;
        scene.offer(run, &upload, dead_from);
        if dead_from <= PARTS {
            let question = scene.asked(run);
            assert_eq!((question.multipart_upload_id.as_str(), question.s3_key.as_str()), (&*upload, run));
            assert!(question.first_part_number >= 3, "{question:?}");
            scene.offer(run, &upload, PARTS + 1);
        }
        let done = scene.completed(run);
        assert!(done.size_bytes > 4 * PART_BYTES);
        scene.assert_opens(run, &done);
        scene.assert_clean();
    }
}

#[test]
fn s3s_refuses_a_url_that_does_not_fit_and_the_run_says_why_at_once() {
    let scene = Scene::new(2);
    let right = scene.store.put_url("signature", OCTETS, ALIVE);
    let last = if right.ends_with('0') { "1" } else { "0" };
    for (run, url) in [
        ("signature", format!("{}{last}", &right[..right.len() - 1])),
        ("type", scene.store.put_url("type", "text/plain", ALIVE)),
        (
            "another-key",
            scene.store.put_url("yet-another", OCTETS, ALIVE).replace("yet-another", "another-key"),
        ),
    ] {
        scene.put(run, url);
        let error = scene.failed(run);
        assert!(error.contains("403 SignatureDoesNotMatch") && error.contains(OCTETS), "{error}");
        assert!(!error.contains('?') && !scene.store.object(run).exists(), "{error}");
    }
    assert!(!scene.agent.output().iter().any(|line| line.contains("trying again")));
    scene.assert_clean();
}

#[actix::test]
async fn urls_that_s3s_finds_too_old_fail_the_run_in_words_where_nobody_renews_them() {
    let scene = Scene::new(24);
    scene.put("one", scene.store.put_url("one", OCTETS, DEAD));
    let error = scene.failed_without_help("one");
    assert!(error.contains("its URL is too old (it was signed until"), "{error}");
    let upload = scene.store.begin("parts").await;
    scene.offer("parts", &upload, 3);
    let error = scene.failed_without_help("parts");
    assert!(error.contains("its URL is too old (it was signed until"), "{error}");
    assert!(!scene.store.object("parts").exists());
    scene.assert_clean();
}

#[actix::test]
async fn a_cancelled_upload_in_parts_is_given_up_at_s3s() {
    let scene = Scene::new(24);
    let upload = scene.store.begin("parts").await;
    scene.offer("parts", &upload, 3);
    scene.asked("parts");
    assert!(!scene.store.unfinished().is_empty());
    scene.plane.say("cancel", Payload::CancelJob(v1::CancelJob { job_id: "j".into() }));
    scene.plane.hear("CANCELLED", |payload| {
        let Payload::JobUpdate(update) = payload else { return None };
        (update.status == i32::from(v1::JobStatus::Cancelled)).then_some(())
    });
    eventually("nothing left", SOON, || scene.store.unfinished().is_empty().then_some(()));
    assert_eq!(scene.plane.count(|payload| matches!(payload, Payload::BackupCompleted(_))), 0);
    scene.assert_clean();
}
