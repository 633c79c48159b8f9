//! Making, opening and reopening the state file.

use super::backend::StateFile;
use super::fault::{Fault, contained};
use super::live::{Access, Live, begin, builder};
use super::lock::DirLock;
use super::read::read_all;
use super::schema;
use super::seal::Sealer;
use super::{Options, Recovered, Store, StoreError};
use crate::model::StoreStatus;
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The name of the state file in the state directory.
pub const STATE_FILE: &str = "state.redb";

/// A state file is made under this name and renamed when it is whole.
const NEW_FILE: &str = "state.redb.new";

impl Store {
    /// Takes the directory and opens its state file; makes both where they are missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] for a second agent, [`StoreError::WrongKey`] and [`StoreError::Damaged`]
    /// with the file left byte for byte as it was, [`StoreError::NoSpace`], [`StoreError::Unusable`].
    pub fn open(
        dir: &Path,
        agent_key: &SecretString,
        options: Options,
    ) -> Result<(Self, Recovered), StoreError> {
        Self::open_as(dir, agent_key, options, Access::Write)
    }

    /// Opens the state file to look at it: nothing of it changes, and every commit is refused.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::Unusable`] where there is no state file.
    pub fn open_read_only(dir: &Path, agent_key: &SecretString) -> Result<(Self, Recovered), StoreError> {
        Self::open_as(dir, agent_key, Options::default(), Access::Read)
    }

    fn open_as(
        dir: &Path,
        agent_key: &SecretString,
        options: Options,
        access: Access,
    ) -> Result<(Self, Recovered), StoreError> {
        let path = dir.join(STATE_FILE);
        let unusable = |cause: io::Error| Fault::Unusable(cause.to_string()).at(&path);
        if access == Access::Read && !path.try_exists().map_err(unusable)? {
            return Err(unusable(ErrorKind::NotFound.into()));
        }
        let lock = DirLock::acquire(dir)?;
        if !path.try_exists().map_err(unusable)? {
            contained(|| create(dir, agent_key, &options)).map_err(|fault| fault.at(&path))?;
            tracing::info!(path = %path.display(), "made a new state file");
        }
        let mut store = Self {
            live: None,
            sealer: None,
            agent_key: agent_key.clone(),
            path,
            options,
            access,
            status: StoreStatus::default(),
            finished: BTreeSet::new(),
            _lock: lock,
        };
        // Everything is read once before anything is written: damage is found while the file is whole.
        let found = store.open_file(read_all)?;
        let recovered = store.take_in(found);
        Ok((store, recovered))
    }

    /// Opens the state file. Nothing is written to it before its key, its head and what `read` reads
    /// proved right.
    pub(super) fn open_file<T>(
        &mut self,
        read: impl FnOnce(&Live, &Sealer) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let opened = contained(|| {
            if !self.path.metadata()?.is_file() {
                return Err(Fault::Damaged("it is no file".into()));
            }
            let file = OpenOptions::new().read(true).write(self.access == Access::Write).open(&self.path);
            let file = file.map_err(|error| Fault::Unusable(error.to_string()))?;
            if file.metadata()?.len() == 0 {
                return Err(Fault::Damaged("it is empty".into()));
            }
            let file = StateFile::held(file)?;
            file.set_max_bytes(self.options.max_file_bytes);
            let db = builder(&self.options).create_with_backend(file.clone())?;
            let live = Live { db, file };
            match contained(|| self.prove(&live, read)) {
                Ok((sealer, found)) => Ok((live, sealer, found)),
                Err(fault) => {
                    live.abandon();
                    Err(fault)
                }
            }
        });
        let (live, sealer, found) = opened.map_err(|fault| fault.at(&self.path))?;
        self.sealer = Some(Arc::new(sealer));
        self.live = Some(live);
        Ok(found)
    }

    fn prove<T>(
        &self,
        live: &Live,
        read: impl FnOnce(&Live, &Sealer) -> Result<T, Fault>,
    ) -> Result<(Sealer, T), Fault> {
        let sealer = schema::unlock(&live.db, &self.agent_key)?;
        let found = read(live, &sealer)?;
        if self.access == Access::Write {
            live.file.release()?;
        }
        Ok((sealer, found))
    }
}

/// A new state file, under its name only when it is whole.
fn create(dir: &Path, agent_key: &SecretString, options: &Options) -> Result<(), Fault> {
    let (new, path) = (dir.join(NEW_FILE), dir.join(STATE_FILE));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Fault::Unusable(error.to_string())),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
    let file = StateFile::live(file.map_err(|error| Fault::Unusable(error.to_string()))?);
    file.set_max_bytes(options.max_file_bytes);
    let db = builder(options).create_with_backend(file)?;
    let txn = begin(&db)?;
    schema::create(&txn, agent_key)?;
    txn.commit()?;
    db.close()?;
    fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(())
}
