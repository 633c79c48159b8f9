//! The embedded control plane. It proves the wire: it never imports the agent's inside.
//!
//! | part | files |
//! |---|---|
//! | start and end | `server`, `config`, `tls`, `files` |
//! | what is remembered | `state` (a fold over events), `journal` and `store` (on disk), `records`, `seen` |
//! | agents | `link` (one connection), `hub` (all of them), `inbound` (what they say), `acks` (what they are told), `frame_guard` |
//! | configuration of agents | `agent_config`, `config_rules` |
//! | runs | `runs`, `offer` (what they upload with), `token`, `keys` |
//! | objects on the disk | `object_store`, `object_parts` (in parts), `object_incoming` (on their way in) |
//! | objects over HTTP | `object_http`, `object_parts_http`, `object_receive`, `object_refusal`, `presign` |
//! | REST | `rest`, `error`, `describe` |

mod acks;
mod agent_config;
mod config;
mod config_rules;
mod describe;
mod error;
mod files;
mod frame_guard;
mod hub;
mod inbound;
mod journal;
mod keys;
mod link;
mod object_http;
mod object_incoming;
mod object_parts;
mod object_parts_http;
mod object_receive;
mod object_refusal;
mod object_store;
mod offer;
mod plane;
mod presign;
mod records;
mod rest;
mod runs;
mod seen;
mod server;
mod state;
mod store;
mod time;
mod tls;
mod token;

pub use agent_config::{
    Advanced, AgentConfig, CheckType, Connection, Engine, HealthCheck, Job, Maintenance, Strategy, Target,
};
pub use config::{AgentKey, AgentSeed, Config, DEFAULT_DATA_DIR, DEFAULT_LISTEN, Tls};
pub use error::StartError;
pub use server::{Running, create_agent, serve};
