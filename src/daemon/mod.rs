//! Boot order, init system, local control socket.

pub mod client;
pub mod control;
mod dump;
pub mod socket;

pub use dump::dump;
