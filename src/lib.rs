//! `backupy-agent`: the daemon beside your databases.
//!
//! The map of the crate; who may use whom stands in `ARCHITECTURE.md` and is held by
//! `tests/architecture.rs`.
//!
//! | room | what lives there |
//! |---|---|
//! | [`model`] | pure types of the domain, no I/O |
//! | [`wire`] | the messages of the contract, limits, conversions to the model |
//! | [`channel`] | backoff, session, dial |
//! | [`store`] | the state file: sealing, outbox, runs |
//! | [`object`] | the backup object format, decryption tokens |
//! | [`process`] | child processes, and the switch that stops a run |
//! | [`spool`] | ciphertext on the disk, and the room that it leaves |
//! | [`drivers`] | how the database of each engine becomes a stream of bytes |
//! | [`backup`] | a run: dump, compress, seal, spool, upload, verify |
//! | [`docker`] | the Docker engine's API over its socket |
//! | [`http`] | answers of HTTP/1.1 servers taken apart, no I/O |
//! | [`trust`] | TLS towards servers that are not the control plane |
//! | [`probe`] | what the host looks like, and what health checks see |
//! | [`actors`] | Supervisor, Connection, Heartbeat, Queue, StateStore, Dispatcher, Runner, Health |
//! | [`settings`] | file, environment and flags, one validated value |
//! | [`telemetry`] | logs and metrics |
//! | [`daemon`] | boot order, init system, local control socket |
//! | [`cli`] | one file a subcommand |
//! | `control_plane` | the embedded control plane (feature `control-plane`) |

pub mod actors;
pub mod backup;
pub mod channel;
pub mod cli;
#[cfg(feature = "control-plane")]
pub mod control_plane;
pub mod daemon;
pub mod docker;
pub mod drivers;
pub mod http;
pub mod model;
pub mod object;
pub mod probe;
pub mod process;
pub mod settings;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod trust;
pub mod wire;
