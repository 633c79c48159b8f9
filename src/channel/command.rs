//! What a control plane can ask for.

use crate::wire::v1;

/// What a server can ask, apart from Ping, which the connection answers itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `RegisterAck.config` or `ConfigUpdate.config`.
    Configure(v1::AgentConfig),
    /// Start a run.
    RunBackup(v1::RunBackup),
    /// Stop a job's run.
    CancelJob(v1::CancelJob),
    /// Run a check now.
    RunHealthCheck(v1::RunHealthCheck),
    /// Replace the binary.
    SelfUpdate(v1::SelfUpdate),
}
