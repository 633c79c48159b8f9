//! Start and end of a control plane.

use super::config::{AgentKey, AgentSeed, Config, Tls};
use super::error::StartError;
use super::hub::Goodbye;
use super::keys::{self, Keys};
use super::object_parts::{MAX_PART_BYTES, MAX_PARTS, MIN_PART_BYTES};
use super::object_store::ObjectStore;
use super::plane::{Limits, Plane};
use super::store::Store;
use super::{files, offer, rest, tls};
use crate::model::Secret;
use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, HttpServer, web};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections are a handful, work on them is short: more threads would only idle.
const WORKERS: usize = 2;
/// Uploads that run when the end is asked for may take this long to finish, seconds.
const SHUTDOWN_S: u64 = 5;
/// Time for a TLS handshake and a request's head: what is slower is no agent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A control plane that serves. Ends when it is stopped or dropped.
pub struct Running {
    base_url: String,
    ca_file: Option<PathBuf>,
    admin_token_file: PathBuf,
    plane: Arc<Plane>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
    /// Held as long as this control plane works on the data directory.
    _lock: Flock<File>,
}

impl Running {
    /// `https://host:port`, as loopback sees it.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The certificate that agents must trust; None where it is not of our own making.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Where the token of the REST face lies.
    pub fn admin_token_file(&self) -> &Path {
        &self.admin_token_file
    }

    /// The token of the REST face.
    pub fn admin_token(&self) -> &Secret {
        &self.plane.admin_token
    }

    /// Waits until the server has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends in order: agents hear it, uploads may finish for a few seconds, the state is closed.
    pub fn stop(mut self) {
        self.end(true);
    }

    /// Ends at once: connections break, as if the host had gone.
    pub fn abort(mut self) {
        self.end(false);
    }

    fn end(&mut self, graceful: bool) {
        let Some(thread) = self.thread.take() else { return };
        if graceful {
            self.plane.hub.dismiss_all(Goodbye::ShuttingDown);
        }
        // The order is on its way when `stop` returns; the thread's end tells that it was followed.
        drop(self.handle.stop(graceful));
        if thread.join().is_err() {
            tracing::error!("the control plane's thread ended by a panic: look at the lines before");
        }
        self.plane.store.close();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// Starts a control plane on threads of its own, and returns when it listens.
///
/// # Errors
/// [`StartError`], with nothing left running.
pub fn serve(config: Config) -> Result<Running, StartError> {
    let lock = lock(&config.data_dir)?;
    let plane = Arc::new(open(&config)?);
    let listen = resolve(&config.listen)?;
    let ready = tls::prepare(&config.tls, &config.data_dir, named_ip(listen))?;
    let (told, started) = std::sync::mpsc::channel();
    let (shared, server_tls) = (Arc::clone(&plane), ready.server);
    let seeds = config.agents.clone();
    let thread = std::thread::Builder::new().name("control-plane".into()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let begun = match seed(&shared, seeds).await {
                Ok(()) => bind(&shared, listen, server_tls),
                Err(error) => Err(error),
            };
            match begun {
                Ok((server, address)) => {
                    for run_id in shared.unverified() {
                        actix_web::rt::spawn(Arc::clone(&shared).verify(run_id));
                    }
                    actix_web::rt::spawn(sweep_regularly(Arc::clone(&shared)));
                    drop(shared);
                    // Whoever asked has gone: nobody could ever stop it.
                    if told.send(Ok((server.handle(), address))).is_ok()
                        && let Err(error) = server.await
                    {
                        tracing::error!(%error, "the control plane's server ended");
                    }
                }
                Err(error) => drop(told.send(Err(error))),
            }
        });
    });
    let data_dir_error = |error| StartError::DataDir { path: config.data_dir.clone(), error };
    let thread = thread.map_err(data_dir_error)?;
    let gone = |_| data_dir_error(io::Error::other("the control plane's thread ended early"));
    let (handle, address) = started.recv().map_err(gone)??;
    let scheme = if matches!(config.tls, Tls::Insecure) { "http" } else { "https" };
    let base_url = format!("{scheme}://{}", reachable(address));
    tracing::info!(base_url, data_dir = %config.data_dir.display(), "control plane listens");
    Ok(Running {
        base_url,
        ca_file: ready.ca_file,
        admin_token_file: token_path(&config.data_dir),
        plane,
        handle,
        thread: Some(thread),
        _lock: lock,
    })
}

/// At start what the last life left behind, and then what agents that never came back left.
async fn sweep_regularly(plane: Arc<Plane>) {
    let mut every = tokio::time::interval(offer::SWEEP_EVERY);
    loop {
        every.tick().await;
        Arc::clone(&plane).sweep_uploads().await;
    }
}

/// Makes an agent without serving, and answers its key: the only time that it is seen.
///
/// # Errors
/// [`StartError`]; also where there is an agent of that name.
pub fn create_agent(config: &Config, name: &str) -> Result<Secret, StartError> {
    let _lock = lock(&config.data_dir)?;
    let plane = open(config)?;
    let state = |error| StartError::State { path: config.data_dir.clone(), error };
    let key = plane.new_agent_key().map_err(state)?;
    let created = actix_web::rt::System::new().block_on(plane.create_agent(name, &key));
    plane.store.close();
    created.map_err(|error| StartError::Config(error.to_string()))?;
    Ok(key)
}

fn token_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

fn lock(data_dir: &Path) -> Result<Flock<File>, StartError> {
    let path = data_dir.to_owned();
    let unusable = |error| StartError::DataDir { path: path.clone(), error };
    files::make_private_dir(data_dir).map_err(unusable)?;
    let lock_path = data_dir.join("control-plane.lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(files::FILE_MODE);
    let file = options.open(&lock_path).map_err(unusable)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).map_err(unusable)?;
            write!(lock, "{}", std::process::id()).map_err(unusable)?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let pid = fs::read_to_string(&lock_path).unwrap_or_default();
            Err(StartError::InUse { path, pid })
        }
        Err((_, errno)) => Err(unusable(errno.into())),
    }
}

fn open(config: &Config) -> Result<Plane, StartError> {
    let dir = &config.data_dir;
    let unusable = |error| StartError::State { path: dir.clone(), error };
    let heartbeat_interval_s = u32::try_from(config.heartbeat_interval.as_secs()).unwrap_or(0);
    if heartbeat_interval_s == 0 || config.heartbeat_interval.subsec_nanos() != 0 {
        return Err(StartError::Config("heartbeat interval: must be whole seconds, at least 1s".into()));
    }
    let limits = limits(config, heartbeat_interval_s)?;
    let token = files::read_or_create(&token_path(dir), || {
        Ok(format!("{}\n", keys::random_hex::<32>()?).into_bytes())
    });
    let token = String::from_utf8(token.map_err(unusable)?).unwrap_or_default();
    if token.trim().is_empty() {
        return Err(StartError::Config(format!("{} holds no token", token_path(dir).display())));
    }
    let keys = Keys::open(dir).map_err(unusable)?;
    let objects = ObjectStore::open(dir.join("objects")).map_err(unusable)?;
    let store = Store::open(&dir.join("state")).map_err(unusable)?;
    Ok(Plane::new(store, keys, objects, Secret::from(token.trim()), limits))
}

fn limits(config: &Config, heartbeat_interval_s: u32) -> Result<Limits, StartError> {
    if !(MIN_PART_BYTES..=MAX_PART_BYTES).contains(&config.part_size_bytes) {
        let what = "objects.part_size_bytes: must be 5242880 (5 MiB) to 5368709120 (5 GiB)";
        return Err(StartError::Config(what.into()));
    }
    if !(1..=MAX_PARTS).contains(&config.part_urls) {
        return Err(StartError::Config("objects.part_urls: must be 1 to 10000".into()));
    }
    Ok(Limits {
        heartbeat_interval_s,
        url_lifetime_ms: u64::try_from(config.url_lifetime.as_millis()).unwrap_or(u64::MAX / 2),
        max_object_bytes: config.max_object_bytes,
        multipart: config.multipart,
        part_size_bytes: config.part_size_bytes,
        part_urls: config.part_urls,
        max_upload_bytes_per_sec: config.max_upload_bytes_per_sec,
        acks: config.end_to_end_acks,
        public_url: config.public_url.clone(),
    })
}

/// Makes the agents that the configuration names, and their configuration where it changed.
async fn seed(plane: &Plane, seeds: Vec<AgentSeed>) -> Result<(), StartError> {
    for AgentSeed { name, key, config } in seeds {
        let wrong = |error: &dyn std::fmt::Display| StartError::Config(format!("agent {name:?}: {error}"));
        let key = match key {
            AgentKey::Given(key) => key,
            AgentKey::File(path) => {
                let make = || Ok(format!("{}\n", keys::new_agent_key()?.expose()).into_bytes());
                let bytes = files::read_or_create(&path, make)
                    .map_err(|error| wrong(&format!("{}: {error}", path.display())))?;
                Secret::from(String::from_utf8_lossy(&bytes).trim())
            }
        };
        if !keys::is_agent_key(key.expose()) {
            return Err(wrong(&"its key has not the form of an agent key"));
        }
        let known =
            plane.store.read(|state| state.agent_named(&name).map(|a| (a.id.clone(), a.key_sha256.clone())));
        let agent_id = match known {
            None => plane.create_agent(&name, &key).await.map_err(|error| wrong(&error))?,
            Some((id, hash)) => {
                if hash != keys::sha256_hex(key.expose().as_bytes()) {
                    plane.set_key(&id, &key).await.map_err(|error| wrong(&error))?;
                }
                id
            }
        };
        let Some(config) = config else { continue };
        let text = serde_json::to_vec(&config).map_err(|error| wrong(&error))?;
        let file_sha256 = keys::sha256_hex(&text);
        let seeded_before = plane.store.read(|state| {
            let agent = state.agents.get(&agent_id);
            agent.is_some_and(|agent| agent.file_config_sha256.as_ref() == Some(&file_sha256))
        });
        if !seeded_before {
            let changed = plane.change_config(&agent_id, Some(file_sha256), |_| Ok(config)).await;
            changed.map_err(|error| wrong(&error))?;
        }
    }
    Ok(())
}

fn resolve(listen: &str) -> Result<SocketAddr, StartError> {
    let failed = |error| StartError::Bind { listen: listen.to_owned(), error };
    let mut addresses = listen.to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::Error::other("the name has no address")))
}

fn named_ip(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_unspecified()).then(|| listen.ip().to_string())
}

/// The address to dial from this host.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

fn bind(
    plane: &Arc<Plane>,
    listen: SocketAddr,
    tls: Option<rustls::ServerConfig>,
) -> Result<(Server, SocketAddr), StartError> {
    let failed = |error| StartError::Bind { listen: listen.to_string(), error };
    let data = web::Data::from(Arc::clone(plane));
    let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(rest::routes))
        .workers(WORKERS)
        .client_request_timeout(HEAD_TIMEOUT)
        .tls_handshake_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(SHUTDOWN_S)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.bind_rustls_0_23(listen, tls),
        None => server.bind(listen),
    };
    let server = server.map_err(failed)?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    Ok((server.run(), address))
}
