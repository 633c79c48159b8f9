//! What the host looks like: numbers for the heartbeat, tools that are installed.

pub mod host;
pub mod tools;
