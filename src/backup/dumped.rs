//! What is known of a dump that was made.

use crate::model::Manifest;

/// A sealed object in its spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Of the object, framing included.
    pub size_bytes: u64,
    /// Of the object: raw, as stores give it in base64 and the server gets it in hex.
    pub sha256: [u8; 32],
}

/// What a dump made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// The object.
    pub packed: Packed,
    /// Of the database.
    pub engine_version: String,
    /// What the engine gave, before compression.
    pub plain_bytes: u64,
    /// What it had as it went by; None where that was not counted.
    pub manifest: Option<Manifest>,
}
