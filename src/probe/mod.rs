//! What the host looks like: numbers for the heartbeat.

pub mod host;
