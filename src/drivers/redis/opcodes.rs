//! Opcodes of an RDB, from the highest down. What is below them is a kind of value.

pub const EOF: u8 = 255;
pub const SELECT_DB: u8 = 254;
pub const EXPIRES_S: u8 = 253;
pub const EXPIRES_MS: u8 = 252;
pub const RESIZE_DB: u8 = 251;
pub const AUX: u8 = 250;
pub const FREQUENCY: u8 = 249;
pub const IDLE: u8 = 248;
pub const MODULE_AUX: u8 = 247;
pub const FUNCTION: u8 = 245;
pub const SLOT_INFO: u8 = 244;
/// Valkey's alone: Redis has this number for something else.
pub const SLOT_IMPORT: u8 = 243;

/// The largest number of a kind of value; what is above and no opcode is of a later version.
pub const LAST_KIND: u8 = 25;
