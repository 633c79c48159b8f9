//! The only user of redb: the state file, its sealing, outbox, runs and meta.
//!
//! A [`Store`] belongs to one owner on one thread and is synchronous; `actors::state_store` gives it
//! both. What a commit answered is on the disk: every transaction is synced, in two phases, with redb's
//! allocator state in it (`quick_repair`). That costs half the rate of single commits, which grouping
//! gives back many times, and it buys that a start after a crash takes the same few milliseconds for
//! any size of queue, and that one damaged record does not make redb refuse the whole file.
//!
//! | file | what |
//! |---|---|
//! | `schema` | tables, head, key check |
//! | `seal` | AES-256-GCM under HKDF of the agent key |
//! | `lock` | one agent a directory |
//! | `disk` | what is asked of a file system; the host's own |
//! | `backend` | the file under redb, held until it proved right |
//! | `room` | refuses new work before the disk is full |
//! | `compact` | gives back what a drained queue leaves |
//! | `fault` | redb's errors and panics, told apart |
//! | `live` | the open database, and how a transaction begins |
//! | `finished` | which finished runs are kept |
//! | `panics` | redb's panics, contained |
//! | `open`, `commit`, `read`, `quarantine`, `inspect` | what a [`Store`] does |
//! | `renewal` | a new file beside the old one, written whole and proved |
//! | `sweep`, `leaf`, `scan` | what a damaged file still holds: through its tables, in its raw bytes |
//! | `salvage`, `repair`, `rekey` | what an operator does with the state of a stopped agent |

mod backend;
mod change;
mod commit;
mod compact;
mod disk;
mod error;
mod fault;
mod finished;
mod inspect;
mod leaf;
mod live;
mod lock;
mod open;
mod panics;
mod quarantine;
mod read;
mod rekey;
mod renewal;
mod repair;
mod room;
mod salvage;
mod scan;
mod schema;
mod seal;
mod sweep;
#[cfg(test)]
mod tests;

pub use change::{Change, Dropped, OutboxPage, OutboxRecord, OutboxTotals, Recovered, SetAside};
pub use compact::{COMPACT_MAX_CONTENT_BYTES, COMPACT_MIN_WASTE_BYTES};
pub use error::StoreError;
pub use inspect::{Inspection, RunCounts, Unsealed, inspect_without_key};
pub use open::STATE_FILE;
pub use quarantine::{Quarantined, Why};
pub use rekey::{Rekeyed, rekey};
pub use repair::{RepairReport, repair};
pub use room::is_new_work;
pub use salvage::{Lost, LostMessage, Saved};
pub use schema::MESSAGE_OVERHEAD_BYTES;

use crate::model::{RunId, Space, StoreStatus};
use disk::Access;
use disk::Disk;
use fault::{Fault, contained};
use live::Live;
use seal::Sealer;
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// redb's cache. Its default of 1 GiB is what a full queue would grow to; with this, scanning a million
/// rows stays under 12 MB of memory.
pub const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Finished runs that are kept, so that a repeated order gets its result again: more than a server can
/// still be asking about.
pub const MAX_FINISHED_RUNS: usize = 1_000;

/// Records in the quarantine: enough to find out what happened, too few to fill a disk.
pub const MAX_QUARANTINED: u64 = 1_000;

/// The first seq of a new file: 0 is what a peer reads where there is none.
const FIRST_SEQ: u64 = 1;

/// Bounds of a store; tests make them small to reach their edges.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of redb's cache.
    pub cache_bytes: usize,
    /// The oldest go beyond it.
    pub max_finished_runs: usize,
    /// Further ones are counted and dropped.
    pub max_quarantined: u64,
    /// The file may not grow past it: answered as a full disk.
    pub max_file_bytes: u64,
    /// Below so many free bytes new work is refused; 0 switches that off.
    pub min_free_bytes: u64,
    /// Tells what the file system of a path has.
    pub space: fn(&Path) -> io::Result<Space>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            max_finished_runs: MAX_FINISHED_RUNS,
            max_quarantined: MAX_QUARANTINED,
            max_file_bytes: u64::MAX,
            min_free_bytes: 0,
            space: disk::host_space,
        }
    }
}

/// The state file of one agent.
pub struct Store {
    /// None after an error that redb does not survive: the next use opens the file again.
    live: Option<Live>,
    /// None only before the first opening.
    sealer: Option<Arc<Sealer>>,
    agent_key: SecretString,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: Options,
    access: Access,
    status: StoreStatus,
    /// When each finished run ended, the oldest first.
    finished: BTreeSet<(u64, RunId)>,
    /// Bytes of everything that is kept: what the file would need at least.
    content_bytes: u64,
    /// A sync failed: the file is written again before anything of it is trusted.
    unproven: bool,
    /// The open file, after it was deleted and until it is back.
    orphan: Option<Arc<dyn disk::Medium>>,
    /// The last to go: nobody else may open the file before redb has closed it.
    lock: lock::DirLock,
}

impl Store {
    /// What the store looks like now.
    pub fn status(&self) -> StoreStatus {
        let file_bytes = self.live.as_ref().map_or(self.status.file_bytes, |live| live.file.file_bytes());
        StoreStatus { file_bytes, ..self.status.clone() }
    }

    /// The state file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the file may not grow past that: beyond it commits answer
    /// [`StoreError::NoSpace`], as on a full disk.
    pub fn set_max_file_bytes(&mut self, bytes: u64) {
        self.options.max_file_bytes = bytes;
        if let Some(live) = &self.live {
            live.file.set_max_bytes(bytes);
        }
    }

    /// Does the work on the open database. After an error that redb does not survive it is opened anew
    /// by the next work.
    fn work<T>(
        &mut self,
        work: impl FnOnce(&mut Live, &Sealer) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.look_after()?;
        if self.live.is_none() {
            self.open_file(|_, _| Ok(()))?;
        }
        let (Some(mut live), Some(sealer)) = (self.live.take(), self.sealer.clone()) else {
            return Err(Fault::Io("it is not open".into()).at(&self.path));
        };
        panics::working_on(&self.path);
        match contained(|| work(&mut live, &sealer)) {
            Ok(done) => {
                self.live = Some(live);
                Ok(done)
            }
            Err(fault) => {
                if fault.spares_the_database() {
                    self.live = Some(live);
                } else {
                    self.status.file_bytes = live.file.file_bytes();
                    self.unproven |= live.file.is_unproven();
                    live.abandon();
                }
                Err(fault.at(&self.path))
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(Live { db, file: _ }) = self.live.take() {
            panics::working_on(&self.path);
            let closed = contained(|| Ok(db.close()?));
            if let Err(fault) = closed {
                tracing::warn!(error = %fault.at(&self.path), "the state file was not closed cleanly");
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
