//! What the demo plays on: a directory, a control plane and an agent as processes of their own, a link between them.

use super::link::Link;
use super::processes::{Process, this_binary};
use super::rest::Rest;
use anyhow::{Context, Result, bail};
use nix::libc::O_CLOEXEC;
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names in the control plane.
pub const JOB: &str = "shop-nightly";
const AGENT: &str = "demo-host";
/// How often something is waited for.
pub const POLL: Duration = Duration::from_millis(40);
/// A control plane listens after some 100 ms; a busy machine takes longer.
const PLANE_WITHIN: Duration = Duration::from_secs(30);
/// Signs of life that somebody who watches can see.
const HEARTBEAT: &str = "5s";
/// The smallest that S3 knows: the demo's object is to have several parts.
const PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;

/// Where everything lies.
pub struct Files {
    /// The demo's directory.
    pub dir: PathBuf,
    /// The shop's database.
    pub database: PathBuf,
    /// The object as it was fetched.
    pub object: PathBuf,
    /// The decryption token.
    pub token: PathBuf,
    /// The database out of the object.
    pub restored: PathBuf,
    /// The agent's state directory.
    pub state: PathBuf,
    /// The control plane's data directory.
    pub plane: PathBuf,
}

impl Files {
    /// A new directory; `dir` must be empty where it is there.
    ///
    /// # Errors
    /// When it cannot be made, or has something in it.
    pub fn lay_out(dir: Option<PathBuf>) -> Result<Self> {
        let dir = match dir {
            None => tempfile::Builder::new().prefix("backupy-demo-").tempdir()?.keep(),
            Some(dir) => {
                let named = || dir.display().to_string();
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(named)?;
                if fs::read_dir(&dir).with_context(named)?.next().is_some() {
                    bail!("{}: is not empty; choose another directory with --dir", dir.display());
                }
                fs::canonicalize(dir)?
            }
        };
        let at = |name: &str| dir.join(name);
        Ok(Self {
            database: at("shop.db"),
            object: at("object.bkpy"),
            token: at("token"),
            restored: at("restored.db"),
            state: at("state"),
            plane: at("plane"),
            dir,
        })
    }

    /// A file for its owner's eyes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_private(path: &Path, text: &str) -> Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(O_CLOEXEC);
        let mut file = options.open(path).with_context(|| path.display().to_string())?;
        file.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Bytes of the object that is being made: the largest file in the spool.
    pub fn spooled(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.state.join("spool")) else { return 0 };
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).max().unwrap_or(0)
    }

    /// Parts of objects that wait in the control plane's store to be put together: how many, and their bytes.
    pub fn waiting_parts(&self) -> (usize, u64) {
        let Ok(uploads) = fs::read_dir(self.plane.join("objects/.uploads")) else { return (0, 0) };
        let parts = uploads.filter_map(|upload| fs::read_dir(upload.ok()?.path()).ok()).flatten();
        let sizes = parts.filter_map(|part| Some(part.ok()?.metadata().ok()?.len()));
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Objects in the control plane's store, uploads that are not whole left out.
    pub fn stored_objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.plane.join("objects")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
                if path.is_dir() && !hidden {
                    folders.push(path);
                } else if path.is_file() {
                    found.push(path);
                }
            }
        }
        found
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn config(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.toml"))
    }
}

/// A control plane that serves, and the link to it.
pub struct Plane {
    process: Process,
    /// Its REST face.
    pub rest: Rest,
    /// What the agent dials.
    pub link: Link,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Plane {
    /// Writes its configuration, starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(files: &Files) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = json!({
            "listen": address.to_string(),
            "data_dir": files.plane,
            "heartbeat_interval": HEARTBEAT,
            "objects": {"part_size_bytes": PART_SIZE_BYTES},
            "agents": [{
                "name": AGENT,
                "agent_key_file": files.dir.join("agent.key"),
                "config": {
                    "targets": [{
                        "id": "shop", "type": "sqlite", "display_name": "Shop",
                        "connection": {"database": files.database},
                    }],
                    "jobs": [{"id": JOB, "target_id": "shop", "compression": "zstd", "timeout_sec": 3600}],
                },
            }],
        });
        let path = files.config("control-plane");
        Files::write_private(&path, &toml::to_string(&config)?)?;
        let mut command = this_binary()?;
        command.arg("control-plane").arg("--config").arg(path);
        let mut process = Process::start("control plane", command, &files.log("control-plane"))?;

        let start = Instant::now();
        let rest = loop {
            process.must_run()?;
            // The CA and the token are there before it listens.
            if let Ok(rest) = Rest::new(format!("https://{address}"), &files.plane)
                && rest.get("/healthz").await.is_ok()
            {
                break rest;
            }
            if start.elapsed() > PLANE_WITHIN {
                bail!("the control plane does not answer on {address}:\n{}", process.tail());
            }
            actix_rt::time::sleep(POLL).await;
        };
        Ok(Self { process, rest, link: Link::lay(address).await?, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// See above.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    /// What it says of the one agent; None before it has connected.
    ///
    /// # Errors
    /// Of the REST face.
    pub async fn agent(&self) -> Result<Option<Value>> {
        let agents = self.rest.get("/v1/agents").await?;
        Ok(agents["items"]
            .as_array()
            .and_then(|items| items.iter().find(|agent| agent["name"] == AGENT))
            .cloned())
    }
}

/// Writes the agent's configuration; every later life of it uses the same.
///
/// # Errors
/// When it cannot be written.
pub fn configure_agent(files: &Files, link: &Link) -> Result<()> {
    let config = json!({
        "server": {
            "url": format!("https://127.0.0.1:{}", link.port()),
            "agent_key_file": files.dir.join("agent.key"),
            "ca_file": files.plane.join("tls/ca.pem"),
        },
        "state": {"dir": files.state},
        // Spooled, so that a restarted agent goes on with the upload, and does not dump again.
        "backup": {"spool": "always"},
        "log": {"format": "text"},
        "metrics": {"listen": ""},
        "docker": {"discovery": false},
    });
    Files::write_private(&files.config("agent"), &toml::to_string(&config)?)
}

/// Starts the agent.
///
/// # Errors
/// When it cannot be started.
pub fn start_agent(files: &Files) -> Result<Process> {
    Process::start("agent", agent_command(files, "run")?, &files.log("agent"))
}

/// A subcommand of this binary with the agent's configuration.
///
/// # Errors
/// As [`this_binary`].
pub fn agent_command(files: &Files, subcommand: &str) -> Result<Command> {
    let mut command = this_binary()?;
    command.arg(subcommand).arg("--config").arg(files.config("agent"));
    Ok(command)
}
