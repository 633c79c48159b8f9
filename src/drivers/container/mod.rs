//! The target's container: found by the Docker engine's API, and rid of what the agent started in it ([`end`]), which it
//! knows by its [`mark`].
//!
//! The engine is spoken to by the run's reading thread, in a small runtime of its own, so that a driver's calls block
//! as they do for a tool of the host.

mod end;
mod mark;

pub use mark::{Mark, Owner};

use super::patience::Patience;
use super::{DumpError, place};
use crate::docker::{self, Client};
use crate::model::{Strategy, TargetSpec};
use crate::process::Cancel;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How containers are reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// `docker.socket`
    pub socket: PathBuf,
    /// Whose tools these are: what is left of them in the target's container is ended before the next run. None where several
    /// may back up the same target.
    pub owner: Option<Owner>,
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
    /// Since when it runs: another time is another life of it.
    pub(super) started_at: String,
    /// Of the tools that are started in it.
    pub(super) mark: Mark,
    found: RefCell<HashMap<String, bool>>,
}

impl Container {
    /// Asks the engine for the target's container, and ends what is left of the owner's tools in it.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::Docker`], [`DumpError::Cancelled`].
    pub fn open(target: &TargetSpec, access: &Access, cancel: &Cancel) -> Result<Self, DumpError> {
        let container = Self::find(target, access, cancel)?;
        if access.owner.is_some() {
            container.end_left(container.mark.of_every_life());
        }
        Ok(container)
    }

    fn find(target: &TargetSpec, access: &Access, cancel: &Cancel) -> Result<Self, DumpError> {
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
        let mark = match &access.owner {
            Some(owner) => owner.mark(target.id.as_str()),
            None => Mark::of_nobody(target.id.as_str()),
        };
        let (id, started_at) = (found.id, found.state.started_at);
        let (name, found) = (name.to_string(), RefCell::default());
        Ok(Self { runtime, client, id, name, started_at, mark, found })
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

/// Ends what earlier lives of the owner left running for these targets inside their containers; what goes on of this life
/// is spared. Takes as long as the engine does, seconds for each container that it says nothing of.
pub fn end_tools_of_earlier_lives(targets: &[TargetSpec], access: &Access) {
    for target in targets.iter().filter(|target| target.connection.strategy == Strategy::DockerExec) {
        match Container::find(target, access, &Cancel::new()) {
            Ok(container) => container.end_left(container.mark.of_earlier_lives()),
            Err(error) => {
                tracing::warn!(%error, "dump tools that an earlier life may have left inside a container were not ended");
            }
        }
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
