//! The daemon: boot order, init system, signals, local control socket.

mod boot;
pub mod client;
pub mod control;
mod dump;
mod error;
mod memory;
mod notify;
pub mod report;
mod signals;
pub mod socket;

pub use boot::run;
pub use dump::dump;
pub use error::DaemonError;
pub use memory::keep_memory_private;
pub use signals::Reload;
