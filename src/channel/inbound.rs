//! The payloads of a server, sorted by what an agent does with them.

use super::Command;
use crate::wire::{Payload, v1};

/// A server's payload.
#[derive(Debug)]
pub(super) enum Inbound {
    RegisterAck(v1::RegisterAck),
    Command(Command),
    Ping,
    /// End-to-end confirmation.
    Ack(v1::Ack),
    /// Nothing that this version can do; why, for people.
    Unusable(&'static str),
    /// What only agents send.
    OfAgents(&'static str),
}

impl From<Option<Payload>> for Inbound {
    fn from(payload: Option<Payload>) -> Self {
        let Some(payload) = payload else {
            return Self::Unusable("not supported by this agent version");
        };
        match payload {
            Payload::RegisterAck(ack) => Self::RegisterAck(ack),
            Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(config) }) => {
                Self::Command(Command::Configure(config))
            }
            Payload::ConfigUpdate(_) => Self::Unusable("a ConfigUpdate without a config"),
            Payload::RunBackup(order) => Self::Command(Command::RunBackup(order)),
            Payload::CancelJob(order) => Self::Command(Command::CancelJob(order)),
            Payload::RunHealthCheck(order) => Self::Command(Command::RunHealthCheck(order)),
            Payload::SelfUpdate(order) => Self::Command(Command::SelfUpdate(order)),
            Payload::Ping(_) => Self::Ping,
            Payload::Ack(ack) => Self::Ack(ack),
            Payload::Register(_) => Self::OfAgents("a Register, which only agents send"),
            Payload::Heartbeat(_) => Self::OfAgents("a Heartbeat, which only agents send"),
            Payload::Discovery(_) => Self::OfAgents("a DiscoveryReport, which only agents send"),
            Payload::JobUpdate(_) => Self::OfAgents("a JobUpdate, which only agents send"),
            Payload::BackupCompleted(_) => Self::OfAgents("a BackupCompleted, which only agents send"),
            Payload::HealthResult(_) => Self::OfAgents("a HealthCheckResult, which only agents send"),
            Payload::Log(_) => Self::OfAgents("a LogEvent, which only agents send"),
            Payload::UploadUrlsRequest(_) => Self::OfAgents("an UploadUrlsRequest, which only agents send"),
            Payload::RestoreUpdate(_) => Self::OfAgents("a RestoreUpdate, which only agents send"),
        }
    }
}

impl Inbound {
    /// For people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::RegisterAck(_) => "a RegisterAck",
            Self::Command(Command::Configure(_)) => "a ConfigUpdate",
            Self::Command(Command::RunBackup(_)) => "a RunBackup",
            Self::Command(Command::CancelJob(_)) => "a CancelJob",
            Self::Command(Command::RunHealthCheck(_)) => "a RunHealthCheck",
            Self::Command(Command::SelfUpdate(_)) => "a SelfUpdate",
            Self::Ping => "a Ping",
            Self::Ack(_) => "an Ack",
            Self::Unusable(_) => "an empty payload, or one of a newer contract",
            Self::OfAgents(what) => what,
        }
    }
}
