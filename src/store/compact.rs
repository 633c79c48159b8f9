//! Gives back what a drained queue leaves: redb uses the pages of removed records again, and lets the
//! file shrink only where its end is free.

use super::fault::Fault;
use super::live::begin;
use super::{Store, StoreError};

/// Less than this is not worth the syncs of a compaction.
pub const COMPACT_MIN_WASTE_BYTES: u64 = 16 * 1024 * 1024;

/// The file is compacted where it is more than so many times its content.
const COMPACT_RATIO: u64 = 2;

/// What is moved while everybody waits: more is left until the queue has drained further, so that no
/// commit waits longer than a part of a second.
pub const COMPACT_MAX_CONTENT_BYTES: u64 = 4 * 1024 * 1024;

impl Store {
    /// Whether a compaction gives back enough, and is done soon enough, to be worth it.
    pub fn compaction_pays(&self) -> bool {
        let file = self.status().file_bytes;
        let content = self.content_bytes;
        content <= COMPACT_MAX_CONTENT_BYTES
            && file > content.saturating_mul(COMPACT_RATIO)
            && file - content > COMPACT_MIN_WASTE_BYTES
    }

    /// Gives pages that are no longer used back to the file system. Answers whether there were any. A
    /// power cut in the middle costs nothing; neither does a full disk: it works inside the file.
    ///
    /// # Errors
    /// [`StoreError`]; the content is whole after each.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.work(|live, _| {
            let compacted = live.db.compact()?;
            // redb compacts without the allocator's state: this puts it back, so that the next opening
            // takes the same few milliseconds as ever.
            begin(&live.db)?.commit().map_err(Fault::from)?;
            Ok(compacted)
        })
    }
}
