//! The daemon: boot order, init system, signals, local control socket.

mod boot;
pub mod client;
pub mod control;
mod dump;
mod error;
mod notify;
pub mod report;
mod signals;
pub mod socket;

pub use boot::{keep_memory_private, run};
pub use dump::dump;
pub use error::DaemonError;
pub use signals::Reload;
