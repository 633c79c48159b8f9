//! One contract for every engine, held with the real servers: whole runs from a database to a store, the object
//! opened again and restored into a second server.
//!
//! The servers come with `make deps`, so these tests are ignored by a plain `cargo test`; `make test` and
//! `make engines` run them. `make engines-long` does the same with 300 MB a database (`ENGINES_MB`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;

mod contract;
mod docker;
mod docker_engine;
mod mariadb;
mod mongodb;
mod postgres;
mod redis;
mod restored;
mod run;
mod server;
mod sqlite;
mod store;
