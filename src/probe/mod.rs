//! What the host looks like: numbers for the heartbeat, endpoints that are looked at.

pub mod health;
pub mod host;
