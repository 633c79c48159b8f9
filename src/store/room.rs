//! Refuses new work before the disk is full, so that what was accepted already has room to end well.
//!
//! | uses the reserve | why |
//! |---|---|
//! | the end of a run and its result, QUEUED and other news of accepted runs, the start of one | accepted already: the promise holds |
//! | Acks, of refusals too | a server that hears nothing sends the order again |
//! | removals (confirmed, evicted) | they make room |
//! | seq reservations, the session, the configuration | small, each replaces what was there; the configuration may be the remedy |
//!
//! | refused below `state.min_free_bytes` | |
//! |---|---|
//! | a new run | its spool and its result need room as well |
//! | HealthCheckResults, LogEvents | telemetry, and what would fill the reserve |

use super::{Change, Store, StoreError};
use crate::model::{MessageKind, RunPhase, Space};

impl Change {
    /// Whether it takes on something new, which may be refused while the disk is nearly full.
    pub fn is_new_work(&self) -> bool {
        match self {
            Self::Append(record) => is_new_work(record.kind),
            Self::PutRun(record) => matches!(record.phase, RunPhase::Accepted),
            Self::Remove(_)
            | Self::SetAside(_)
            | Self::PutDropped(_)
            | Self::ForgetRun(_)
            | Self::PutConfig { .. }
            | Self::PutSession(_)
            | Self::ReserveSeq(_) => false,
        }
    }
}

/// Whether a message of that kind is new work by itself.
pub fn is_new_work(kind: MessageKind) -> bool {
    match kind {
        MessageKind::HealthResult | MessageKind::Log => true,
        MessageKind::Run => false,
    }
}

/// On a disk with less than this, that one small change found its place says nothing about the next.
const TRY_BYTES: u64 = 256 * 1024;

impl Store {
    /// Whether the file takes changes again after a write failed: a change that changes nothing finds out.
    ///
    /// # Errors
    /// Those of [`Store::commit`]; [`StoreError::NoSpace`] where it is not worth a try.
    pub fn try_writing(&mut self) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(&self.path);
        match (self.options.space)(dir) {
            Ok(Space { free, .. }) if free < TRY_BYTES => Err(StoreError::NoSpace {
                path: self.path.clone(),
                cause: format!("{free} bytes are free on its file system"),
            }),
            Ok(_) | Err(_) => self.commit(&[Change::ReserveSeq(0)]),
        }
    }

    /// Whether new work can be taken on.
    ///
    /// # Errors
    /// [`StoreError::LowSpace`] with the figures.
    pub fn check_room(&mut self) -> Result<(), StoreError> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let room = match (self.options.space)(dir) {
            Ok(space) => {
                let keep = space.to_keep(self.options.min_free_bytes);
                if space.free >= keep {
                    Ok(())
                } else {
                    Err(StoreError::LowSpace { dir: dir.to_path_buf(), free: space.free, keep })
                }
            }
            // The write itself will tell what is wrong.
            Err(_) => Ok(()),
        };
        self.status.low_space = room.as_ref().err().map(ToString::to_string);
        room
    }
}
