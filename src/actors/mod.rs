//! The actors: one file an actor, one struct a message.

pub mod messages;
