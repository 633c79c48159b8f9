//! The kit that the test binaries share: waiting for conditions, running the real binary, looking
//! for secrets. Each binary takes it by `#[path = "../common/mod.rs"] mod common;`.
#![allow(dead_code, reason = "every test binary uses another part of the kit")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

pub mod process;
pub mod secrets;

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

pub use process::Agent;
#[allow(unused_imports, reason = "every test binary uses another part of the kit")]
pub use secrets::Secrets;

/// How often a condition is looked at: often enough that waiting costs nothing, seldom enough that
/// two cores still do the work that is waited for.
const POLL: Duration = Duration::from_millis(10);

/// Waits in real time until `condition` gives a value; fails the test when `timeout` is over.
#[track_caller]
pub fn eventually<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < timeout, "not within {timeout:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// The same on tokio's clock, paused or not: virtual time passes between two looks.
pub async fn eventually_async<T, F>(what: &str, timeout: Duration, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = tokio::time::Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < timeout, "not within {timeout:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A loopback port that nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// An agent key of the contract's form; `fill` tells keys apart.
pub fn agent_key(fill: char) -> String {
    format!("bkpy_test_{}", String::from(fill).repeat(32))
}
