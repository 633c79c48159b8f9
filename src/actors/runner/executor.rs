//! Who does a run's work.

use crate::backup::upload::parts::{self, ABORT_LIMIT_FAILED};
use crate::backup::{self, Job, Progress};
use crate::drivers;
use crate::model::{JobSpec, RunId, RunOrder, RunOutcome, TargetSpec};
use crate::process::{Cancel, CancelOnDrop};
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Does runs. Behind a trait, so that the Runner's tests need no database.
pub trait Executor {
    /// Begins the run; the future is its end. Dropping the future stops the run, and so does `cancel`.
    fn run(&self, job: Job, progress: Progress, cancel: Cancel) -> LocalBoxFuture<'static, RunOutcome>;

    /// Whether this host would do such a run at all.
    ///
    /// # Errors
    /// The reason why not, for people.
    fn acceptable(&self, job: &JobSpec, target: &TargetSpec) -> Result<(), String>;

    /// Removes what runs of an earlier life left behind, but for what lets the runs in `keep` go on where they were, and
    /// ends what those that it had begun on `targets` left running. Called once, before the first run.
    fn clear_leftovers(&self, keep: &[RunId], targets: Vec<TargetSpec>);

    /// A run is over that this life of the agent did not begin: what an earlier one left of it, here and at the store,
    /// is of no use any more.
    fn forget(&self, _order: &RunOrder) {}
}

/// Does each run on a thread of its own with a runtime of its own, so that nobody else, the heartbeats least of all,
/// feels a run that computes.
pub struct ThreadExecutor {
    options: Arc<backup::Options>,
}

impl ThreadExecutor {
    /// Every run with these options.
    pub fn new(options: backup::Options) -> Self {
        Self { options: Arc::new(options) }
    }
}

impl Executor for ThreadExecutor {
    fn run(&self, job: Job, progress: Progress, cancel: Cancel) -> LocalBoxFuture<'static, RunOutcome> {
        let options = Arc::clone(&self.options);
        let stop = CancelOnDrop(cancel.clone());
        let (done, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("run".into()).spawn(move || {
            let outcome = match actix_rt::Runtime::new() {
                Ok(runtime) => runtime.block_on(backup::execute(&job, &options, &progress, &cancel)),
                Err(error) => failed(&format!("no runtime could be started: {error}")),
            };
            // The Runner may have given the run up.
            let _ = done.send(outcome);
        });
        Box::pin(async move {
            let _stop = stop;
            if let Err(error) = thread {
                return failed(&format!("no thread could be started: {error}"));
            }
            // A thread that ends without a word panicked; its report stands in the log.
            ended.await.unwrap_or_else(|_| failed("its thread panicked; the agent's log has the place"))
        })
    }

    fn acceptable(&self, job: &JobSpec, target: &TargetSpec) -> Result<(), String> {
        backup::acceptable(job, target, &self.options.hooks).map_err(|error| error.to_string())
    }

    fn forget(&self, order: &RunOrder) {
        crate::spool::remove_of(&self.options.spool_dir, &order.run_id);
        if order.multipart.is_none() {
            return;
        }
        let (order, options) = (order.clone(), Arc::clone(&self.options));
        let give_up = move || match actix_rt::Runtime::new() {
            Ok(runtime) => runtime.block_on(parts::give_up(&order, &options.upload, ABORT_LIMIT_FAILED)),
            Err(error) => {
                tracing::warn!(run_id = %order.run_id, %error, "an upload in parts was not given up")
            }
        };
        // Nobody waits for it: a store may be slow, or gone.
        if let Err(error) = std::thread::Builder::new().name("run-abort".into()).spawn(give_up) {
            tracing::warn!(%error, "an upload in parts was not given up: no thread could be started");
        }
    }

    fn clear_leftovers(&self, keep: &[RunId], targets: Vec<TargetSpec>) {
        match backup::remove_leftovers(&self.options.spool_dir, keep) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "leftovers of interrupted runs removed"),
            Err(error) => tracing::warn!(%error, "leftovers of interrupted runs could not be removed"),
        }
        if targets.is_empty() {
            return;
        }
        let options = Arc::clone(&self.options);
        let end = move || drivers::end_tools_of_earlier_lives(&targets, &options.host.docker);
        // Nobody waits for it: an engine may be slow, and what begins meanwhile is spared.
        if let Err(error) = std::thread::Builder::new().name("leftovers".into()).spawn(end) {
            tracing::warn!(%error, "dump tools of interrupted runs were not looked for: no thread could be started");
        }
    }
}

fn failed(what: &str) -> RunOutcome {
    RunOutcome::Failed { error: format!("the agent could not go on with the run: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Compression, Connection, Engine, RunOrder, unix_ms};

    fn executor(dir: &std::path::Path) -> ThreadExecutor {
        let upload = backup::upload::Options {
            allow_insecure: true,
            ca_file: None,
            timing: Default::default(),
            rate: Default::default(),
            connect: backup::upload::direct(),
        };
        ThreadExecutor::new(backup::Options {
            spool_dir: dir.to_owned(),
            spool: Default::default(),
            zstd_level: 3,
            gzip_level: 6,
            threads: 1,
            room: crate::spool::Room::default(),
            host: drivers::Host::default(),
            read_rate: backup::Rate::default(),
            upload,
            hooks: backup::hooks::Options::default(),
        })
    }

    fn job(database: String) -> Job {
        let order = RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: true,
            put_url: "http://127.0.0.1:1/o?TOPSECRET".into(),
            expires_at_ms: unix_ms() + 600_000,
            multipart: None,
            s3_key: "o".into(),
            dek: vec![1; 32].into(),
        };
        let job = JobSpec {
            id: "j1".into(),
            target_id: "t1".into(),
            compression: Some(Compression::Zstd),
            pre_hooks: Vec::new(),
            post_hooks: Vec::new(),
            timeout: None,
        };
        let target = TargetSpec {
            id: "t1".into(),
            engine: Some(Engine::Sqlite),
            display_name: "main".into(),
            connection: Connection { database, ..Connection::default() },
        };
        Job { order, job, target }
    }

    #[actix::test]
    async fn a_run_happens_on_its_own_thread_and_its_end_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.db").display().to_string();
        let going = executor(dir.path()).run(job(missing), Progress::new(), Cancel::new());
        let outcome = going.await;
        let RunOutcome::Failed { error } = outcome else { panic!("{outcome:?}") };
        assert!(error.contains("none.db: does not exist"), "{error}");
    }

    #[actix::test]
    async fn a_run_that_nobody_waits_for_any_more_stops_and_clears_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE a(b)").unwrap();
        let spools = dir.path().join("spool");
        // Nobody listens at the upload's address: without a stop, the run would try for ten minutes.
        let cancel = Cancel::new();
        let going = executor(&spools).run(job(path.display().to_string()), Progress::new(), cancel.clone());
        let begun = || spools.join("r1.part").exists();
        let wait_for = async |condition: &dyn Fn() -> bool| {
            for _ in 0..2_000 {
                if condition() {
                    return true;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            false
        };
        assert!(wait_for(&begun).await, "the run began");
        drop(going);
        assert!(cancel.is_cancelled());
        assert!(wait_for(&|| !begun()).await, "its spool is gone");
    }

    /// A store, and an order whose upload in parts is begun there.
    fn parted(database: String) -> (std::net::TcpListener, Job) {
        let store = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = store.local_addr().unwrap().port();
        let url = |what: &str| format!("http://127.0.0.1:{port}/o?{what}&TOPSECRET").into();
        let mut job = job(database);
        job.order.multipart = Some(crate::model::Multipart {
            part_urls: vec![url("part"), "ftp://127.0.0.1/o?TOPSECRET".into()],
            complete_url: url("complete"),
            abort_url: url("abort"),
            ..Default::default()
        });
        (store, job)
    }

    /// The first line of what the store is asked; it says yes.
    fn asked(store: &std::net::TcpListener) -> String {
        use std::io::{BufRead, BufReader, Write};
        let (mut socket, _) = store.accept().unwrap();
        let lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        head[0].clone()
    }

    #[test]
    fn a_run_that_this_life_never_began_gives_its_upload_up() {
        let dir = tempfile::tempdir().unwrap();
        let (store, job) = parted(String::new());
        let mut expired = job.order;
        expired.expires_at_ms = 1;
        executor(dir.path()).forget(&expired);
        assert_eq!(asked(&store), "DELETE /o?abort&TOPSECRET HTTP/1.1");
    }

    #[actix::test]
    async fn a_run_that_cannot_begin_gives_its_upload_up() {
        let dir = tempfile::tempdir().unwrap();
        let (store, job) = parted("none.db".into());
        let going = executor(dir.path()).run(job, Progress::new(), Cancel::new());
        let seen = tokio::task::spawn_blocking(move || asked(&store));
        let RunOutcome::Failed { error } = going.await else { panic!("it ran") };
        assert!(error.contains("its scheme is not https"), "{error}");
        assert_eq!(seen.await.unwrap(), "DELETE /o?abort&TOPSECRET HTTP/1.1");
    }

    #[actix::test]
    async fn a_run_that_is_cancelled_before_its_password_is_read_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, job) = parted("none.db".into());
        let spool = dir.path().join("r1.part");
        for (interrupted, kept) in [(true, true), (false, false)] {
            std::fs::write(&spool, "of an earlier life").unwrap();
            let cancel = Cancel::new();
            if interrupted {
                cancel.interrupt();
            } else {
                cancel.cancel();
            }
            let going = executor(dir.path()).run(job.clone(), Progress::new(), cancel);
            let (tell, told) = std::sync::mpsc::channel();
            if !interrupted {
                let store = store.try_clone().unwrap();
                std::thread::spawn(move || tell.send(asked(&store)));
            }
            assert_eq!(going.await, RunOutcome::Cancelled);
            assert_eq!(spool.exists(), kept, "the next life goes on with it, or nobody");
            if !interrupted {
                let asked = told.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
                assert_eq!(asked, "DELETE /o?abort&TOPSECRET HTTP/1.1");
            }
        }
    }

    #[test]
    fn spools_of_an_earlier_life_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("old.part"), "x").unwrap();
        executor(dir.path()).clear_leftovers(&[], Vec::new());
        assert!(!dir.path().join("old.part").exists());
    }
}
