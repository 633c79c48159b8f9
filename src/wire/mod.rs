//! The wire contract: generated messages, envelope helpers, limits, conversions to the model.

mod class;
pub mod convert;
mod convert_health;
mod envelope;
mod fields;
mod names;
mod weight;

/// The generated messages; their documentation stands in `proto/backupv1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/backup.v1.rs"));
}

pub use class::{class_of, ended_run};
pub use envelope::{ACK_SUBPROTOCOL, EnvelopeError, MAX_MESSAGE_BYTES, decode, encode, size_bound};
pub use fields::correlation_id_of;
pub use v1::{Envelope, envelope::Payload};
pub use weight::{MAX_DECODED_BYTES, decoded_bytes, held_bytes};
