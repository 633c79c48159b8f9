//! What every tool asks of a target's connection.

use super::DumpError;
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
        Strategy::DockerExec => Err(problem(
            target,
            "this version cannot dump inside a container: publish the server's port on loopback and use the strategy TCP",
        )),
    }
}

/// Something that is wrong with the target.
pub fn problem(target: &TargetSpec, problem: &str) -> DumpError {
    DumpError::Target { target: target.id.to_string(), problem: problem.to_owned() }
}
