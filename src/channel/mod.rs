//! The channel to the control plane, without an actor: backoff, session, dial.
//!
//! | file | what lives there |
//! |---|---|
//! | [`limits`] | every timing and bound, with its reason |
//! | [`backoff`] | how long to wait before the next dial |
//! | [`url`] | which URL is dialled |
//! | [`dial`] | the door between a dial and a connection |
//! | [`websocket`], [`tls`], [`pins`] | one dial: DNS, TCP (every address), proxy, TLS, upgrade |
//! | [`frame`], [`guard`], [`assemble`] | frames, judged by their headers; messages made of them |
//! | [`session`] | a registered connection as a pure state machine |

mod action;
mod address;
pub mod assemble;
mod awaited;
pub mod backoff;
mod command;
pub mod dial;
mod exit;
pub mod frame;
mod goodbye;
pub mod guard;
mod inbound;
pub mod limits;
pub mod pins;
mod proxy;
mod routes;
pub mod session;
mod tcp;
pub mod tls;
mod upgrade;
pub mod url;
pub mod websocket;

pub use command::Command;
pub use exit::{DialError, LinkDown};
pub use routes::Routes;
