//! The open database over its file, and how transactions on it begin.

use super::Options;
use super::backend::StateFile;
use super::fault::{Fault, contained};
use redb::{Builder, Database, WriteTransaction};

/// redb over our file.
pub(super) struct Live {
    pub(super) db: Database,
    pub(super) file: StateFile,
}

impl Live {
    /// Lets go of a database that redb is not sure of any more: as a crash would, so that opening it
    /// again finds the last commit.
    pub(super) fn abandon(mut self) {
        self.file.give_up();
        // A database that is dropped commits once more, out of its cache. Over damaged pages that panics,
        // and panics again while it unwinds, which ends the process. So redb is shown first that its file
        // has failed, by the sync that a check begins with: then it is dropped without a commit.
        let _ = contained(|| Ok(self.db.check_integrity().map(drop)));
        // Nothing can be done about what redb says while it is dropped, and nothing reaches the file.
        let _ = contained(|| {
            drop(self.db);
            Ok(())
        });
    }
}

/// redb with our cache.
pub(super) fn builder(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// A transaction with the promises of the module's head.
pub(super) fn begin(db: &Database) -> Result<WriteTransaction, Fault> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}
