//! Answers of HTTP/1.1 servers taken apart (RFC 9112): heads and bodies out of bytes, whoever read them. No I/O.
//!
//! awc is for the control plane. A store that must be heard while it is sent to, and a Docker engine whose
//! connection stops being HTTP in the middle, need the bytes themselves.

mod body;
mod head;

pub use body::BodyReader;
pub use head::{Answer, parse};

/// The bytes are no HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not HTTP")]
pub struct NotHttp;
