//! The channel to the control plane, without an actor: backoff, session, dial.
//!
//! | file | what lives there |
//! |---|---|
//! | [`limits`] | every timing and bound, with its reason |
//! | [`backoff`] | how long to wait before the next dial |
//! | [`url`] | which URL is dialled |
//! | [`dial`] | one dial: DNS, TCP, proxy, TLS, upgrade |
//! | [`frame`], [`guard`], [`assemble`] | frames, judged by their headers; messages made of them |
//! | [`session`] | a registered connection as a pure state machine |

mod action;
pub mod assemble;
pub mod backoff;
mod command;
pub mod dial;
mod exit;
pub mod frame;
pub mod guard;
mod inbound;
pub mod limits;
pub mod session;
pub mod url;

pub use command::Command;
pub use exit::{DialError, LinkDown};
