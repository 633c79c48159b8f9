//! What must hold for every input.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

mod object;
mod session;
mod settings;
mod wire;
mod wire_values;
