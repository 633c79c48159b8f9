//! What every tool asks of a target's connection.

use super::DumpError;
use crate::docker::Name;
use crate::model::{Connection, Strategy, TargetSpec};

/// The host of a target that names none.
pub const LOOPBACK: &str = "127.0.0.1";

/// Whether a tool of this host can be led there.
///
/// # Errors
/// [`DumpError::Target`]
pub fn check(target: &TargetSpec) -> Result<(), DumpError> {
    let Connection { host, database, username, strategy, .. } = &target.connection;
    if [host, database, username].iter().any(|value| value.contains('\0')) {
        return Err(problem(target, "its host, user or database has a zero byte"));
    }
    match strategy {
        Strategy::Tcp => Ok(()),
        Strategy::UnixSocket if host.is_empty() || host.starts_with(['/', '@']) => Ok(()),
        Strategy::UnixSocket => {
            Err(problem(target, "its host must be the absolute path of the server's socket"))
        }
        Strategy::DockerExec => container(target).map(drop),
    }
}

/// The server's socket, where the connection names one by its path. Inside a container an empty host is the tool's own
/// default, and a path is one of the container.
pub fn socket(connection: &Connection) -> Option<&str> {
    let Connection { host, strategy, .. } = connection;
    match strategy {
        Strategy::UnixSocket => Some(host),
        Strategy::DockerExec if host.starts_with('/') => Some(host),
        Strategy::Tcp | Strategy::DockerExec => None,
    }
}

/// The container that the target names.
///
/// # Errors
/// [`DumpError::Target`]
pub fn container(target: &TargetSpec) -> Result<Name, DumpError> {
    Name::parse(&target.connection.container_id).map_err(|what| {
        problem(target, &format!("connection.container_id must name the container to dump in: {what}"))
    })
}

/// Something that is wrong with the target.
pub fn problem(target: &TargetSpec, problem: &str) -> DumpError {
    DumpError::Target { target: target.id.to_string(), problem: problem.to_owned() }
}
