//! Where a target's tools run: on this host, or inside the target's container.

use super::DumpError;
use super::container::{Access, Container};
use super::tools::Tools;
use crate::model::{Strategy, TargetSpec};
use crate::process::Cancel;
use crate::process::Manners;
use std::rc::Rc;

/// How the host's owner wants dump tools to be treated, and where they are.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Where tools are looked for.
    pub tools: Tools,
    /// `backup.nice` and `backup.idle_io`.
    pub manners: Manners,
    /// How containers are reached.
    pub docker: Access,
}

/// One of the two.
#[derive(Clone)]
pub enum Ground {
    /// The agent's own host.
    Host(Host),
    /// A running container.
    Container(Rc<Container>),
}

impl Ground {
    /// As the target's strategy says; for a container the engine is asked for it.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::Docker`], [`DumpError::Cancelled`].
    pub fn of(target: &TargetSpec, host: &Host, cancel: &Cancel) -> Result<Self, DumpError> {
        match target.connection.strategy {
            Strategy::Tcp | Strategy::UnixSocket => Ok(Self::Host(host.clone())),
            Strategy::DockerExec => {
                let container = Container::open(target, &host.docker, cancel)?;
                Ok(Self::Container(Rc::new(container)))
            }
        }
    }
}
