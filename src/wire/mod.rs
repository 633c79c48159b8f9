//! The wire contract: generated messages, envelope helpers, limits, conversions to the model.

mod class;
pub mod convert;
mod convert_health;
mod envelope;
mod names;

/// The generated messages; their documentation stands in `proto/backupv1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/backup.v1.rs"));
}

pub use class::{class_of, ended_run};
pub use envelope::{EnvelopeError, MAX_MESSAGE_BYTES, decode, encode, size_bound};
pub use v1::{Envelope, envelope::Payload};
