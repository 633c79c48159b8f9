//! The target's container: found by the Docker engine's API, and rid of what the agent started in it ([`end`]).
//!
//! The engine is spoken to by the run's reading thread, in a small runtime of its own, so that a driver's calls block
//! as they do for a tool of the host.

mod end;

use super::patience::Patience;
use super::{DumpError, place};
use crate::docker::{self, Client};
use crate::model::TargetSpec;
use crate::process::Cancel;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The variable that marks a tool as the agent's own.
const MARK: &str = "BACKUPY_EXEC";

/// How containers are reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// `docker.socket`
    pub socket: PathBuf,
    /// Whose tools these are, the same in every life: what an earlier life left running in the target's container is ended
    /// before the next run. None where several may back up the same target.
    pub owner: Option<String>,
    /// How long the engine may take.
    pub timing: docker::Timing,
}

impl Default for Access {
    fn default() -> Self {
        Self { socket: docker::SOCKET.into(), owner: None, timing: docker::Timing::default() }
    }
}

/// A running container.
pub struct Container {
    pub(super) runtime: Runtime,
    pub(super) client: Client,
    /// Docker's own, so that no other one of the same name is meant later.
    pub(super) id: String,
    /// As the target calls it.
    pub(super) name: String,
    pub(super) mark: String,
    found: RefCell<HashMap<String, bool>>,
}

impl Container {
    /// Asks the engine for the target's container.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::Docker`], [`DumpError::Cancelled`].
    pub fn open(target: &TargetSpec, access: &Access, cancel: &Cancel) -> Result<Self, DumpError> {
        let name = place::container(target)?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime =
            runtime.map_err(|cause| DumpError::ToolStart { tool: "the Docker client".into(), cause })?;
        let failed = |cause| DumpError::Docker { container: name.to_string(), cause };
        let asked = async {
            let client = Client::connect(access.socket.clone(), access.timing).await?;
            let container = client.container(&name).await?;
            Ok((client, container))
        };
        let (client, found) = match until(&runtime, cancel.into(), asked) {
            Waited::Done(done) => done.map_err(failed)?,
            Waited::Cancelled | Waited::Overdue(_) => return Err(DumpError::Cancelled),
        };
        if let Some(hindrance) = found.hindrance() {
            return Err(place::problem(target, &format!("its container \"{name}\" {hindrance}")));
        }
        let left = found.has_programs() && access.owner.is_some();
        let mark = format!("{MARK}={}", mark(access.owner.as_deref(), target.id.as_str()));
        let name = name.to_string();
        let container = Self { runtime, client, id: found.id, name, mark, found: RefCell::default() };
        if left {
            container.end_what_was_left();
        }
        Ok(container)
    }

    /// As the target calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has that tool, where that is known.
    pub fn has(&self, tool: &str) -> Option<bool> {
        self.found.borrow().get(tool).copied()
    }

    /// Keeps whether it has that tool.
    pub fn remember(&self, tool: &str, is_there: bool) {
        self.found.borrow_mut().insert(tool.to_owned(), is_there);
    }

    /// What the engine failed at, of this container.
    pub fn failed(&self, cause: docker::Error) -> DumpError {
        DumpError::Docker { container: self.name.clone(), cause }
    }

    /// Waits for the work, so long at most.
    pub fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        // Inside: a clock needs the runtime that it belongs to.
        self.runtime.block_on(async { tokio::time::timeout(limit, work).await.ok() })
    }

    /// Waits for the work, within the patience.
    pub fn until<T>(&self, patience: Patience<'_>, work: impl Future<Output = T>) -> Waited<T> {
        until(&self.runtime, patience, work)
    }
}

/// What came first.
pub enum Waited<T> {
    /// The work.
    Done(T),
    /// The run was stopped.
    Cancelled,
    /// What to say of the tool.
    Overdue(String),
}

fn until<T>(runtime: &Runtime, patience: Patience<'_>, work: impl Future<Output = T>) -> Waited<T> {
    let over = async {
        match patience.limit {
            Some((end, _)) => tokio::time::sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = patience.cancel.cancelled() => Waited::Cancelled,
            done = work => Waited::Done(done),
            () = over => Waited::Overdue(patience.overdue().unwrap_or_default()),
        }
    })
}

/// What marks a tool as the agent's own: the same for every tool of that owner and target, different for every other;
/// without an owner never the same.
pub fn mark(owner: Option<&str>, target: &str) -> String {
    let mut text = match owner {
        Some(owner) => format!("{owner}\0{target}").into_bytes(),
        None => [std::process::id().to_le_bytes().to_vec(), target.into()].concat(),
    };
    if owner.is_none() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        text.extend_from_slice(&now.as_nanos().to_le_bytes());
    }
    // Long enough that no two are the same, short enough for a variable.
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    let half = digest.as_ref().get(..16).unwrap_or_default();
    data_encoding::HEXLOWER.encode(half)
}
