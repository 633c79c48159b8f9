//! The channel to the control plane, without an actor: backoff, session, dial.

mod exit;

pub use exit::{DialError, LinkDown};
