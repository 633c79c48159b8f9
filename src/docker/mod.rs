//! The Docker engine's API over its unix socket, as far as the agent needs it. Podman's socket speaks the same.
//!
//! - One request, one connection. The version is asked for (`/_ping`) and then named in every path, the newest one
//!   that both sides know: an engine refuses what is too old for it, and bare paths are going away.
//! - The engine is trusted with much, and still nothing here grows with what it says: heads, JSON and error texts are
//!   bounded, the output of a program is handed on frame by frame and never collected.
//! - A silent engine is waited for a bounded time; whoever calls drops the future to stop earlier.
//!
//! What is asked lives here; what an answer means for a backup is the drivers' business.

mod client;
mod containers;
mod error;
mod exec;
mod frames;
mod line;

pub use client::Client;
pub use containers::{Container, Name, NameError};
pub use error::Error;
pub use exec::{Attached, Exec, ExecId, Program};
pub use frames::{Demux, FrameError, Stream};
pub use line::Timing;

/// Where an engine listens that nobody moved.
pub const SOCKET: &str = "/var/run/docker.sock";

/// What is read of an answer that is an error: a line for people.
const MAX_MESSAGE_LEN: usize = 512;

/// An engine's own words, fit for one line of a log.
fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(body.get(..MAX_MESSAGE_LEN).unwrap_or(body)).into_owned(),
    };
    let clean = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_MESSAGE_LEN).collect()
}

/// An engine's JSON as it is read, errors included; for the fuzzer, which holds that nothing of it panics.
#[doc(hidden)]
pub fn read_json(body: &[u8]) {
    let _ = serde_json::from_slice::<Container>(body);
    let _ = serde_json::from_slice::<Exec>(body);
    let _ = serde_json::from_slice::<ExecId>(body);
    let message = message_of(body);
    assert!(
        message.chars().count() <= MAX_MESSAGE_LEN && !message.contains('\n'),
        "a message of more than a line"
    );
}
