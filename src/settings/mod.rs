//! File, environment and flags, merged and validated into one value.
//!
//! | file | what it does |
//! |---|---|
//! | `types` | the validated values |
//! | `keys` | the table: key, variable, flag, kind, default |
//! | `layers` | each layer as a source of the `config` crate; every value remembers where it came from |
//! | `file` | the TOML file with line and column of every key, unknown keys |
//! | `raw` | the merged layers typed by serde, wrong types kept as such |
//! | `check` | what the validation reads and fills |
//! | `validate` | raw -> valid, every fault at once |
//! | `agent_key` | where the key comes from, and its pattern |
//! | `rekey` | the old and the new key of `rekey` |
//! | `state_dir` | makes and probes the directories that are written to |
//! | `shown`, `fault` | what may be shown of a value; what is wrong with one |

mod agent_key;
mod check;
mod fault;
mod file;
mod keys;
mod layers;
mod load;
mod network;
mod raw;
mod rekey;
mod shown;
mod size;
mod state_dir;
mod targets;
#[cfg(test)]
mod tests;
mod types;
mod validate;

pub use fault::{Fault, Faults};
pub use keys::{KEYS, Key, Kind};
pub use layers::{Flag, Sources};
pub use load::{ForTarget, Loaded, Row, load, load_for_target, load_state_dir};
pub use rekey::{WhichKey, rekey_key};
pub use state_dir::prepare;
pub use types::{
    Backup, Docker, Hooks, Log, LogFormat, LogLevel, Metrics, RunSettings, Server, Settings, State, Stores,
    Update,
};

/// Where the file is when no `--config` names one.
pub const DEFAULT_FILE: &str = "/etc/backupy-agent/agent.toml";
