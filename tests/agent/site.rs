//! A whole site out of real processes: `backupy-agent control-plane`, `backupy-agent run`, and a tap between agent and
//! object store. One job on one SQLite database of random bytes.

use crate::common::{Agent, agent_key, eventually, eventually_async, free_port, process};
use crate::tap::Tap;
use awc::http::Method;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Nothing here takes as long on a machine that is merely busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The smallest that S3 knows.
pub const PART_BYTES: u64 = 5 * 1024 * 1024;
pub const JOB: &str = "nightly";

/// Also in the data directory: where uploads wait.
const STAGING: [&str; 2] = ["objects/.uploads", "objects/.incoming"];

pub struct Site {
    dir: TempDir,
    pub tap: Tap,
    plane: Option<Agent>,
    plane_port: u16,
    client: awc::Client,
}

impl Site {
    /// With a database of about so many bytes. `objects` goes into the control plane's section of that name,
    /// `public_host` into the URLs that it signs.
    pub fn start(database_bytes: u64, objects: Value, public_host: Option<&str>) -> Self {
        let dir = TempDir::new().unwrap();
        let plane_port = free_port();
        let tap = Tap::to(plane_port);
        let site = Self {
            plane: None,
            plane_port,
            client: awc::Client::builder().timeout(PATIENCE).finish(),
            tap,
            dir,
        };
        make_database(&site.database(), database_bytes);
        fs::DirBuilder::new().create(site.state()).unwrap();
        fs::set_permissions(site.state(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut objects = objects;
        objects["part_size_bytes"] = objects.get("part_size_bytes").cloned().unwrap_or(json!(PART_BYTES));
        let hook = format!("echo >> {}", site.dir.path().join("dumps").display());
        let config = json!({
            "listen": format!("127.0.0.1:{plane_port}"),
            "data_dir": site.plane_dir(),
            "heartbeat_interval": "1s",
            "public_url": format!("http://{}:{}", public_host.unwrap_or("127.0.0.1"), site.tap.port),
            "objects": objects,
            "agents": [{
                "name": "host",
                "agent_key": agent_key('s'),
                "config": {
                    "targets": [{"id": "db", "type": "sqlite", "connection": {"database": site.database()}}],
                    // Random bytes do not compress: the object is as long as the database.
                    "jobs": [{"id": JOB, "target_id": "db", "compression": "none", "pre_hooks": [hook]}],
                },
            }],
        });
        fs::write(site.dir.path().join("plane.toml"), toml::to_string(&config).unwrap()).unwrap();
        let mut site = site;
        site.start_plane();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("shop.db")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn spool(&self) -> PathBuf {
        self.state().join("spool")
    }

    fn plane_dir(&self) -> PathBuf {
        self.path("plane")
    }

    pub fn start_plane(&mut self) {
        let mut command = process::command();
        command.args(["control-plane", "--insecure-http", "--json", "--config"]).arg(self.path("plane.toml"));
        let plane = Agent::spawn(command);
        plane.wait_for_line("admin_token_file", PATIENCE);
        self.plane = Some(plane);
    }

    pub fn plane(&mut self) -> &mut Agent {
        self.plane.as_mut().unwrap()
    }

    /// The agent's next life.
    pub fn agent(&self, adjust: impl FnOnce(&mut Command)) -> Agent {
        let url = format!("http://127.0.0.1:{}", self.plane_port);
        Agent::run(&self.state(), &url, &agent_key('s'), |command| {
            command.env("BACKUPY_HOOKS_ENABLED", "true").env("BACKUPY_LOG_LEVEL", "info");
            adjust(command);
        })
    }

    /// How often a dump was begun: each is announced by the job's pre-hook.
    pub fn dumps(&self) -> usize {
        fs::read_to_string(self.path("dumps")).map_or(0, |text| text.lines().count())
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let token = fs::read_to_string(self.plane_dir().join("admin.token")).unwrap();
        let url = format!("http://127.0.0.1:{}{path}", self.plane_port);
        // No connection is kept: the control plane may be another one the next time.
        let request = self.client.request(method, url).bearer_auth(token.trim()).force_close();
        let mut response = request.send_body(body.to_string()).await.unwrap();
        let bytes = response.body().limit(16 << 20).await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&bytes).unwrap())
    }

    /// Orders a run once the agent is there, and answers its id.
    pub async fn order(&self) -> String {
        eventually_async("the agent", PATIENCE, || async {
            let (_, agents) = self.call(Method::GET, "/v1/agents", json!({})).await;
            (agents["items"][0]["connected"] == true).then_some(())
        })
        .await;
        let (status, run) =
            self.call(Method::POST, &format!("/v1/jobs/{JOB}/run"), json!({"manual": true})).await;
        assert_eq!(status, 202, "{run}");
        run["id"].as_str().unwrap().to_owned()
    }

    pub async fn run(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/v1/runs/{id}"), json!({})).await.1
    }

    /// The run, once it is over.
    pub async fn ended(&self, id: &str) -> Value {
        eventually_async("the end of the run", PATIENCE, || async {
            let run = self.run(id).await;
            ["SUCCESS", "FAILED", "CANCELLED"].contains(&run["status"].as_str().unwrap()).then_some(run)
        })
        .await
    }

    /// The run succeeded, and its object, fetched and opened by `decrypt`, is the database.
    pub async fn assert_good(&self, id: &str) -> Value {
        let run = self.ended(id).await;
        assert_eq!(run["status"], "SUCCESS", "{run}");
        let (_, download) = self.call(Method::GET, &format!("/v1/runs/{id}/download-url"), json!({})).await;
        // Not through the tap, which counts what the agent does.
        let url = download["url"].as_str().unwrap();
        let (_, path) = url.split_once("/objects/").unwrap();
        let url = format!("http://127.0.0.1:{}/objects/{path}", self.plane_port);
        let object =
            self.client.get(url).force_close().send().await.unwrap().body().limit(1 << 30).await.unwrap();
        fs::write(self.path("object"), &object).unwrap();
        let (_, token) = self.call(Method::POST, &format!("/v1/runs/{id}/decryption-token"), json!({})).await;
        fs::write(self.path("token"), token["token"].as_str().unwrap()).unwrap();
        let mut decrypt = process::command();
        decrypt.args(["decrypt", "--json", "--in"]).arg(self.path("object"));
        decrypt.arg("--token-file").arg(self.path("token")).arg("--out").arg(self.path("restored.db"));
        let output = decrypt.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let same = fs::read(self.path("restored.db")).unwrap() == fs::read(self.database()).unwrap();
        assert!(same, "the restored database is another one");
        fs::remove_file(self.path("restored.db")).unwrap();
        assert_eq!(self.objects().len(), 1, "one object");
        self.assert_nothing_left();
        run
    }

    /// As a store does whose rules remove what is old.
    pub fn forget_uploads(&self) {
        for upload in fs::read_dir(self.plane_dir().join(STAGING[0])).unwrap() {
            fs::remove_dir_all(upload.unwrap().path()).unwrap();
        }
    }

    /// Neither in the store's staging nor in the spool.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for place in STAGING.map(|place| self.plane_dir().join(place)) {
            eventually(&format!("nothing in {}", place.display()), PATIENCE, || {
                fs::read_dir(&place).map_or(Some(()), |mut left| left.next().is_none().then_some(()))
            });
        }
        eventually("nothing in the spool", PATIENCE, || files(&self.spool()).is_empty().then_some(()));
    }

    /// Whole objects of the store.
    pub fn objects(&self) -> Vec<PathBuf> {
        let root = self.plane_dir().join("objects");
        let waits = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().starts_with('.');
        files(&root).into_iter().filter(|path| !waits(path)).collect()
    }

    /// How much lies in the spool.
    pub fn spooled_bytes(&self) -> u64 {
        files(&self.spool()).iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum()
    }

    /// Whether an object lies on the agent's disk.
    pub fn has_spool(&self) -> bool {
        self.spool_file().is_some()
    }

    /// That object.
    pub fn spool_file(&self) -> Option<PathBuf> {
        files(&self.spool()).into_iter().find(|path| path.extension().is_some_and(|e| e == "part"))
    }

    /// Records of the spool's ledger: two, and one for each part that the agent knows to be stored.
    pub fn ledger_records(&self) -> usize {
        let ledger =
            files(&self.spool()).into_iter().find(|path| path.extension().is_some_and(|e| e == "ledger"));
        let bytes = ledger.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let (mut rest, mut count) = (bytes.as_slice(), 0);
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let Some(next) = after.get(u32::from_be_bytes(*len) as usize..) else { break };
            (rest, count) = (next, count + 1);
        }
        count
    }
}

/// Every file below a directory, which may be missing.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn make_database(path: &Path, bytes: u64) {
    const ROW_BYTES: u64 = 100_000;
    let database = rusqlite::Connection::open(path).unwrap();
    database
        .execute_batch("PRAGMA synchronous = OFF; CREATE TABLE noise (id INTEGER PRIMARY KEY, bytes BLOB)")
        .unwrap();
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                INSERT INTO noise SELECT i, randomblob(?2) FROM n";
    database.execute(rows, (i64::try_from(bytes / ROW_BYTES).unwrap(), ROW_BYTES as i64)).unwrap();
}
