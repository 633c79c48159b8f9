//! The other end of the control socket, for the command line.

use super::control::{Answer, MAX_ANSWER_BYTES, Request, SOCKET_FILE};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens: no agent runs on this state directory.
    #[error("{}: no agent runs on this state directory", .0.display())]
    NotRunning(PathBuf),
    /// An agent may run, and this user may not ask it.
    #[error("{}: not allowed to ask the agent: run this as the agent's user or as root", .0.display())]
    NotAllowed(PathBuf),
    /// An agent runs and does not answer.
    #[error("{}: the agent does not answer within {} ms", path.display(), limit.as_millis())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The agent says why not.
    #[error("the agent answers: {0}")]
    Refused(String),
    /// What came is no answer.
    #[error("{}: {}", .0.display(), .1)]
    Broken(PathBuf, io::Error),
}

/// Asks the agent on a state directory, and waits at most so long for the whole answer.
///
/// # Errors
/// [`AskError`].
pub fn ask<T: DeserializeOwned>(state_dir: &Path, request: Request, limit: Duration) -> Result<T, AskError> {
    let path = state_dir.join(SOCKET_FILE);
    let broken = |error: io::Error| AskError::Broken(path.clone(), error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let answer = runtime.block_on(async {
        timeout(limit, converse(&path, request))
            .await
            .unwrap_or_else(|_| Err(AskError::Timeout { path: path.clone(), limit }))
    })?;
    match answer {
        Answer::Ok(value) => serde_json::from_value(value).map_err(|error| broken(error.into())),
        Answer::Error(reason) => Err(AskError::Refused(reason)),
    }
}

async fn converse(path: &Path, request: Request) -> Result<Answer, AskError> {
    let broken = |error: io::Error| AskError::Broken(path.to_path_buf(), error);
    let mut stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
    let mut line = serde_json::to_vec(&request).map_err(|error| broken(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES as u64).read_to_end(&mut answer).await.map_err(broken)?;
    if answer.is_empty() {
        return Err(AskError::Refused("nothing: it is asked too much at once, or is ending".to_owned()));
    }
    serde_json::from_slice(&answer).map_err(|error| broken(error.into()))
}

fn unreachable(path: &Path, error: io::Error) -> AskError {
    let path = path.to_path_buf();
    let nobody = [ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::NotADirectory];
    if nobody.contains(&error.kind()) {
        AskError::NotRunning(path)
    } else if error.kind() == ErrorKind::PermissionDenied {
        AskError::NotAllowed(path)
    } else {
        AskError::Broken(path, error)
    }
}
