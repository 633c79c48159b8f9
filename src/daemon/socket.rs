//! The local control socket: `status`, `health-check` and `dump-state` ask the running agent here.
//! Whoever asks cannot disturb it: requests are short, connections few, and each ends after 5 s.

use super::control::{Answer, Health, MAX_REQUEST_BYTES, Request, SOCKET_FILE};
use super::dump::dump;
use super::report::StateReport;
use crate::actors::messages::{GetStatus, InspectState, Recover};
use crate::model::{AgentStatus, LinkState, unix_ms};
use crate::store::StoreError;
use actix::{MailboxError, Recipient};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The socket is made under this name and renamed when it is private. Not longer than the name it
/// gets: the length of a socket's path is bounded.
const NEW_SOCKET_FILE: &str = "agent.new";

/// Only the agent's user asks.
const PRIVATE: u32 = 0o600;

/// Some people and some monitoring at once.
const MAX_CONNECTIONS: usize = 16;

/// One connection, from the first byte to the last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);

/// The actors answer within this, or the answer says that they do not. Clients wait for 2 s.
const ACTORS_LIMIT: Duration = Duration::from_millis(1500);

/// The store may be in the middle of a commit to a slow disk; a little less than a connection has.
const STORE_LIMIT: Duration = Duration::from_secs(4);

/// After a failed accept (out of descriptors): as long as it takes others to end.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who knows the answers. Both live as long as the agent: the Supervisor.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Everything that can be observed.
    pub status: Recipient<GetStatus>,
    /// What the store keeps.
    pub recover: Recipient<Recover>,
    /// What the state file holds, in numbers.
    pub inspect: Recipient<InspectState>,
}

/// Why there is no socket. The agent goes on without: that is a warning.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("{}: another agent answers on this socket", .0.display())]
    InUse(PathBuf),
    /// Something else has its name.
    #[error("{}: is there already and is no socket: move it away", .0.display())]
    NotASocket(PathBuf),
    /// The kernel bounds the path of a socket to 107 bytes.
    #[error(
        "{}: the path is too long for a socket (107 bytes at most): status, health-check and dump-state cannot \
         reach this agent; a shorter state.dir can",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// Anything else.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// The socket while it is served: it goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        // What stays is stale, and is replaced by the next agent.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens `<state>/agent.sock` (0600) and serves it on the current thread's runtime. A socket that a
/// dead agent left is replaced, one on which somebody answers never is.
///
/// # Errors
/// [`SocketError`].
pub fn serve(state_dir: &Path, doors: Doors) -> Result<ControlSocket, SocketError> {
    let path = state_dir.join(SOCKET_FILE);
    let listener = bind(state_dir, &path)?;
    let task = actix_rt::spawn(accept(listener, doors));
    Ok(ControlSocket { path, task })
}

fn bind(state_dir: &Path, path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |error: io::Error| SocketError::Io(path.to_path_buf(), error);
    match try_connect(path) {
        // EAGAIN: somebody listens and is behind with accepting.
        Ok(()) | Err(Errno::EAGAIN) => return Err(SocketError::InUse(path.to_path_buf())),
        Err(Errno::ENOENT) => {}
        Err(Errno::ECONNREFUSED) if is_socket(path) => {}
        Err(Errno::ECONNREFUSED) => return Err(SocketError::NotASocket(path.to_path_buf())),
        Err(Errno::ENAMETOOLONG) => return Err(SocketError::PathTooLong(path.to_path_buf())),
        Err(errno) => return Err(failed(errno.into())),
    }
    let new = state_dir.join(NEW_SOCKET_FILE);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    std::fs::set_permissions(&new, Permissions::from_mode(PRIVATE)).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    Ok(listener)
}

/// Whether somebody listens, without waiting.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

async fn accept(listener: UnixListener, doors: Doors) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&seats).try_acquire_owned() {
                Ok(seat) => {
                    let doors = doors.clone();
                    actix_rt::spawn(async move {
                        // A client that is too slow, or gone, has no answer coming.
                        let _ = timeout(CONNECTION_LIMIT, converse(stream, &doors)).await;
                        drop(seat);
                    });
                }
                Err(_) => drop(stream),
            },
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request, one answer.
async fn converse(stream: UnixStream, doors: &Doors) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let limit = MAX_REQUEST_BYTES as u64 + 1;
    BufReader::new(reader.take(limit)).read_until(b'\n', &mut line).await?;
    let answer = if line.len() > MAX_REQUEST_BYTES {
        Answer::Error(format!("a request has at most {MAX_REQUEST_BYTES} bytes"))
    } else {
        match serde_json::from_slice(&line) {
            Ok(request) => answer(request, doors).await,
            Err(error) => Answer::Error(format!("not a request: {error}")),
        }
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.shutdown().await
}

async fn answer(request: Request, doors: &Doors) -> Answer {
    match request {
        Request::Status => match status(doors).await {
            Ok(status) => value(&status),
            Err(error) => Answer::Error(error),
        },
        Request::Health => match status(doors).await {
            Ok(status) => value(&health(&status, unix_ms())),
            Err(error) => Answer::Error(error),
        },
        Request::DumpState { allow_secrets } => match asked(doors.recover.send(Recover)).await {
            Ok(recovered) => Answer::Ok(dump(&recovered, allow_secrets)),
            Err(error) => Answer::Error(error),
        },
        Request::InspectState => match asked(doors.inspect.send(InspectState)).await {
            Ok(inspection) => value(&StateReport::of(&inspection)),
            Err(error) => Answer::Error(error),
        },
    }
}

/// What the store answers, or why it does not.
async fn asked<T>(
    question: impl Future<Output = Result<Result<T, StoreError>, MailboxError>>,
) -> Result<T, String> {
    match timeout(STORE_LIMIT, question).await {
        Ok(Ok(Ok(found))) => Ok(found),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("the agent is ending".to_owned()),
        Err(_) => Err("the state store does not answer".to_owned()),
    }
}

async fn status(doors: &Doors) -> Result<AgentStatus, String> {
    match timeout(ACTORS_LIMIT, doors.status.send(GetStatus)).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(_)) => Err("the agent is ending".to_owned()),
        Err(_) => Err("the agent's supervisor does not answer".to_owned()),
    }
}

fn value(answer: &impl serde::Serialize) -> Answer {
    serde_json::to_value(answer).map_or_else(|error| Answer::Error(error.to_string()), Answer::Ok)
}

/// What monitoring wants to know of a status.
fn health(status: &AgentStatus, now_ms: u64) -> Health {
    let connected = status.link.state == LinkState::Established;
    let since_ms = status.link.last_established_ms.unwrap_or(status.started_at_ms);
    Health {
        pid: status.pid,
        silent: status.children.iter().filter(|child| !child.alive).map(|child| child.name.clone()).collect(),
        connected,
        disconnected_s: if connected { 0 } else { now_ms.saturating_sub(since_ms) / 1000 },
        write_error: status.store.write_error.clone().or_else(|| status.store.low_space.clone()),
    }
}
