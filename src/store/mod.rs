//! The only user of redb: schema, sealing, outbox, runs, meta.

mod change;
mod error;

pub use change::{Change, OutboxRecord, OutboxTotals, Recovered};
pub use error::StoreError;
