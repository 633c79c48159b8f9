//! What every part of the control plane shares: the state, the keys, the objects, the links. Here: agents
//! and their configuration.

use super::agent_config::AgentConfig;
use super::error::{ApiError, Code};
use super::hub::{Goodbye, Hub};
use super::keys::{self, Keys};
use super::object_store::ObjectStore;
use super::records::Agent;
use super::state::Event;
use super::store::Store;
use super::{config_rules, hub};
use crate::model::{Secret, unix_ms};
use crate::wire::{Payload, v1};
use serde_json::json;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Envelopes per millisecond that the first seq leaves room for: a restarted control plane goes on above
/// every seq that it ever used, without writing one down.
const SEQS_PER_MS: u64 = 1024;

/// The control plane.
pub struct Plane {
    /// What is remembered.
    pub store: Store,
    /// Secrets.
    pub keys: Keys,
    /// Uploaded backups.
    pub objects: ObjectStore,
    /// Connected agents.
    pub hub: Hub,
    /// For the REST face.
    pub admin_token: Secret,
    /// How it works.
    pub limits: Limits,
    seq: AtomicU64,
}

/// Settings that handlers need.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Told to agents, seconds.
    pub heartbeat_interval_s: u32,
    /// Of upload and download URLs.
    pub url_lifetime_ms: u64,
    /// Of one object.
    pub max_object_bytes: u64,
    /// Uploads in parts are offered.
    pub multipart: bool,
    /// Of each part but the last, as offered.
    pub part_size_bytes: u64,
    /// URLs of parts in one message.
    pub part_urls: u32,
    /// Of each PUT.
    pub max_upload_bytes_per_sec: Option<u64>,
    /// `backupy.ack.v1` is selected where an agent offers it.
    pub acks: bool,
    /// Base of the URLs of objects, where it is not the caller's address.
    pub public_url: Option<String>,
}

impl Plane {
    /// Puts the parts together.
    pub fn new(store: Store, keys: Keys, objects: ObjectStore, admin_token: Secret, limits: Limits) -> Self {
        let seq = AtomicU64::new(unix_ms().saturating_mul(SEQS_PER_MS));
        Self { store, keys, objects, hub: Hub::default(), admin_token, limits, seq }
    }

    /// The seq of the next envelope to any agent (protocol section 2).
    pub fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    /// The id of the agent with this key. Takes as long whichever agent it is.
    pub fn agent_of_key(&self, key: &str) -> Option<String> {
        if !keys::is_agent_key(key) {
            return None;
        }
        let hash = keys::sha256_hex(key.as_bytes());
        self.store.read(|state| {
            let mut found = None;
            for agent in state.agents.values() {
                if keys::same_secret(hash.as_bytes(), agent.key_sha256.as_bytes()) {
                    found = Some(agent.id.clone());
                }
            }
            found
        })
    }

    /// Makes an agent and answers its id. `key` must have the form of an agent key.
    pub async fn create_agent(&self, name: &str, key: &Secret) -> Result<String, ApiError> {
        const MAX_NAME_CHARS: usize = 128;
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            let message = format!("name: must have 1 to {MAX_NAME_CHARS} printable characters");
            return Err(ApiError::invalid(message));
        }
        let agent_id = keys::random_hex::<8>()?;
        let key_sha256 = keys::sha256_hex(key.expose().as_bytes());
        self.store
            .change(|change| {
                if change.state().agent_named(name).is_some() {
                    let message = format!("there is an agent named {name:?} already");
                    return Err(ApiError::new(Code::Conflict, message));
                }
                if change.state().agents.values().any(|agent| agent.key_sha256 == key_sha256) {
                    let message = "another agent has this key; give each its own";
                    return Err(ApiError::new(Code::Conflict, message));
                }
                change.apply(Event::AgentNamed {
                    agent_id: agent_id.clone(),
                    name: name.to_owned(),
                    key_sha256,
                    at_ms: unix_ms(),
                });
                Ok(agent_id)
            })
            .await?
    }

    /// Gives an agent another key; a connection made with the old one ends.
    pub async fn set_key(&self, agent_id: &str, key: &Secret) -> Result<(), ApiError> {
        let key_sha256 = keys::sha256_hex(key.expose().as_bytes());
        self.store
            .change(|change| {
                let agent = find(change.state().agents.get(agent_id), agent_id)?;
                let (name, at_ms) = (agent.name.clone(), agent.created_at_ms);
                let agent_id = agent_id.to_owned();
                change.apply(Event::AgentNamed { agent_id, name, key_sha256, at_ms });
                Ok::<_, ApiError>(())
            })
            .await??;
        self.hub.dismiss(agent_id, Goodbye::KeyChanged);
        Ok(())
    }

    /// Replaces an agent's configuration by what `edit` makes of it, and tells the agent. Answers the
    /// version, which is a new one only where something changed.
    pub async fn change_config(
        &self,
        agent_id: &str,
        file_sha256: Option<String>,
        edit: impl FnOnce(&AgentConfig) -> Result<AgentConfig, ApiError>,
    ) -> Result<u64, ApiError> {
        let version = self
            .store
            .change(|change| {
                let agent = find(change.state().agents.get(agent_id), agent_id)?;
                let config = config_rules::unmask(edit(&agent.config)?, &agent.config);
                let faults = config_rules::faults(&config);
                if !faults.is_empty() {
                    return Err(ApiError::invalid(faults.join("; ")).with_details(json!(faults)));
                }
                let unchanged = config == agent.config && agent.config_version > 0;
                let same_file = file_sha256.is_none() || file_sha256 == agent.file_config_sha256;
                let version = agent.config_version + u64::from(!unchanged);
                if !unchanged || !same_file {
                    let agent_id = agent_id.to_owned();
                    change.apply(Event::ConfigChanged { agent_id, version, config, file_sha256 });
                }
                Ok(version)
            })
            .await??;
        self.push_config(agent_id);
        Ok(version)
    }

    /// Sends the configuration to the agent, if it is connected; else it comes with the next RegisterAck.
    pub fn push_config(&self, agent_id: &str) {
        let Some(config) = self.wire_config(agent_id) else { return };
        let correlation_id = format!("config:{}", config.version);
        let update = Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(config) });
        match self.hub.send(agent_id, &correlation_id, update) {
            Ok(()) => tracing::info!(agent_id, correlation_id, "configuration sent"),
            Err(hub::NotReached) => tracing::debug!(agent_id, "the configuration waits for the agent"),
        }
    }

    /// The configuration as the agent gets it; None where there has never been one.
    pub fn wire_config(&self, agent_id: &str) -> Option<v1::AgentConfig> {
        self.store.read(|state| {
            let agent = state.agents.get(agent_id).filter(|agent| agent.config_version > 0)?;
            Some(agent.config.to_wire(agent.config_version))
        })
    }

    /// The base of an agent's upload URLs.
    pub fn object_base(&self, caller_base: &str) -> String {
        let base = self.limits.public_url.as_deref().unwrap_or(caller_base);
        base.trim_end_matches('/').to_owned()
    }

    /// A new key of the contract's form.
    pub fn new_agent_key(&self) -> io::Result<Secret> {
        keys::new_agent_key()
    }
}

/// The agent, or the error that says that there is none.
pub fn find<'a>(agent: Option<&'a Agent>, id: &str) -> Result<&'a Agent, ApiError> {
    agent.ok_or_else(|| ApiError::not_found("agent", id))
}
