//! The actors: one file an actor, one struct a message.

pub mod connection;
pub mod dispatcher;
pub mod health;
pub mod heartbeat;
pub mod life;
pub mod messages;
pub mod queue;
mod refusal;
pub mod runner;
pub mod state_store;
pub mod supervisor;
