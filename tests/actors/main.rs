//! The actors, each alone among fakes, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

mod bench;
mod connection;
mod control_socket;
mod dispatcher;
mod dispatcher_answers;
mod fake;
mod health;
mod heartbeat;
mod house;
mod queue;
mod runner;
mod runner_bench;
mod runner_control;
mod runner_end;
mod runner_urls;
mod runner_verdict;
mod state_room;
mod state_store;
mod supervisor;
mod supervisor_link;
