//! The only user of redb: schema, sealing, outbox, runs, meta.

mod change;
mod error;

pub use change::{Change, OutboxPage, OutboxRecord, OutboxTotals, Recovered, SetAside};
pub use error::StoreError;
