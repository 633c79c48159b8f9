//! The real binary, as an operator and an init system see it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

#[path = "../common/mod.rs"]
mod common;

mod backup_cli;
mod backup_files;
mod backup_killed;
mod backup_settings;
mod bad_input;
mod config;
mod daemon;
mod damage;
mod decrypt;
mod demo;
mod desk;
mod dial;
mod killed;
mod kit;
mod memory;
#[cfg(feature = "control-plane")]
mod plane_acks;
#[cfg(feature = "control-plane")]
mod plane_cli;
#[cfg(feature = "control-plane")]
mod plane_kit;
#[cfg(feature = "control-plane")]
mod plane_objects;
#[cfg(feature = "control-plane")]
mod plane_parts;
#[cfg(feature = "control-plane")]
mod plane_rest;
#[cfg(feature = "control-plane")]
mod plane_runs;
#[cfg(feature = "control-plane")]
mod plane_wire;
mod reader;
mod replay;
mod s3_store;
mod s3_uploads;
mod scripted;
#[cfg(feature = "control-plane")]
mod site;
#[cfg(feature = "control-plane")]
mod site_kills;
#[cfg(feature = "control-plane")]
mod site_uploads;
#[cfg(feature = "control-plane")]
mod site_ways;
#[cfg(feature = "control-plane")]
mod tap;
