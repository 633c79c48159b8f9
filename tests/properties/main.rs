//! What must hold for every input.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

mod corpus;
mod object;
mod queue;
mod schedule;
mod session;
mod settings;
mod wire;
mod wire_values;

#[path = "../actors/bench.rs"]
#[allow(dead_code, reason = "the actors' tests use all of it")]
mod bench;
#[path = "../actors/fake.rs"]
#[allow(dead_code, reason = "the actors' tests use all of it")]
mod fake;
