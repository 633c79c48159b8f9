//! Pure types of the domain: ids, runs, plans, delivery classes, what can be observed. No I/O.

mod delivery;
mod event;
mod health;
mod ids;
mod manifest;
mod plan;
mod run;
mod secret;
mod space;
mod spool;
mod status;
mod sysexit;

pub use delivery::{DeliveryClass, MessageKind, Slot};
pub use event::{EventLevel, RunEvent};
pub use health::{CheckKind, CheckOutcome, FailingCheck, HealthCheck, HealthStatus};
pub use ids::{CheckId, JobId, RunId, TargetId};
pub use manifest::{Manifest, TableRows};
pub use plan::{Compression, Connection, Engine, JobSpec, MaintenanceWindow, Plan, Strategy, TargetSpec};
pub use run::{Completed, Dek, Multipart, RunOrder, RunOutcome, RunPhase, RunRecord, Step};
pub use secret::Secret;
pub use space::Space;
pub use spool::SpoolUse;
pub use status::{AgentStatus, ChildStatus, LinkState, LinkStatus, QueueStatus, RunStatus, StoreStatus};
pub use sysexit::SysExit;

use std::time::{SystemTime, UNIX_EPOCH};

/// The host's clock in unix milliseconds; 0 for a clock before 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
