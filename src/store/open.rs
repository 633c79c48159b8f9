//! Making, opening and reopening the state file.

use super::backend::StateFile;
use super::disk::{Access, Disk, HostDisk, Medium, copy, write_again};
use super::fault::{Fault, contained};
use super::live::{Live, begin, builder};
use super::lock::DirLock;
use super::read::read_all;
use super::schema;
use super::seal::Sealer;
use super::{FIRST_SEQ, Options, Recovered, Store, StoreError, panics};
use crate::model::StoreStatus;
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
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
        Self::open_on(Arc::new(HostDisk), dir, agent_key, options, access)
    }

    /// On whatever disk.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        agent_key: &SecretString,
        options: Options,
        access: Access,
    ) -> Result<(Self, Recovered), StoreError> {
        let path = dir.join(STATE_FILE);
        let unusable = |cause: io::Error| Fault::Unusable(cause.to_string()).at(&path);
        if access == Access::Read && !disk.exists(&path).map_err(unusable)? {
            return Err(unusable(ErrorKind::NotFound.into()));
        }
        let lock = DirLock::acquire(dir)?;
        let mut store = Self {
            live: None,
            sealer: None,
            agent_key: agent_key.clone(),
            disk,
            path,
            options,
            access,
            status: StoreStatus::default(),
            finished: BTreeSet::new(),
            content_bytes: 0,
            unproven: false,
            orphan: None,
            lock,
        };
        let recovered = store.first_opening()?;
        Ok((store, recovered))
    }

    /// The opening of a file that this store has not opened yet; made where it is missing. On a disk
    /// without room for a new file there is nothing of an earlier life, and that is what is answered: the
    /// file is made as soon as there is room.
    pub(super) fn first_opening(&mut self) -> Result<Recovered, StoreError> {
        // Everything is read once before anything is written: damage is found while the file is whole.
        match self.open_file(read_all) {
            Ok(found) => Ok(self.take_in(found)),
            Err(error @ StoreError::NoSpace { .. }) if matches!(self.disk.exists(&self.path), Ok(false)) => {
                self.status.write_error = Some(error.to_string());
                Ok(Recovered { next_seq: FIRST_SEQ, ..Recovered::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the state file. Nothing is written to it before its key, its head and what `read` reads
    /// proved right.
    pub(super) fn open_file<T>(
        &mut self,
        read: impl FnOnce(&Live, &Sealer) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut unproven = false;
        panics::working_on(&self.path);
        let opened = contained(|| {
            if self.sealer.is_none() && self.access == Access::Write && !self.disk.exists(&self.path)? {
                self.make()?;
            }
            if !self.disk.is_file(&self.path)? {
                return Err(Fault::Damaged("it is no file".into()));
            }
            let file = self.disk.open(&self.path, self.access);
            let file = file.map_err(|error| Fault::Unusable(error.to_string()))?;
            if file.len()? == 0 {
                return Err(Fault::Damaged("it is empty".into()));
            }
            if self.unproven && self.access == Access::Write {
                write_again(&*file)?;
            }
            let file = StateFile::held(file)?;
            file.set_max_bytes(self.options.max_file_bytes);
            let db = builder(&self.options).create_with_backend(file.clone())?;
            let live = Live { db, file };
            match contained(|| self.prove(&live, read)) {
                Ok((sealer, found)) => Ok((live, sealer, found)),
                Err(fault) => {
                    unproven |= live.file.is_unproven();
                    live.abandon();
                    Err(fault)
                }
            }
        });
        self.unproven = unproven || (self.unproven && opened.is_err());
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

impl Store {
    /// A new state file, under its name only when it is whole.
    fn make(&self) -> Result<(), Fault> {
        let new = self.path.with_file_name(NEW_FILE);
        let file = self.disk.create(&new).map_err(unusable_unless_full)?;
        let file = StateFile::live(file);
        file.set_max_bytes(self.options.max_file_bytes);
        let db = builder(&self.options).create_with_backend(file)?;
        let txn = begin(&db)?;
        schema::create(&txn, &self.agent_key)?;
        txn.commit()?;
        db.close()?;
        self.name(&new)?;
        tracing::info!(path = %self.path.display(), "made a new state file");
        Ok(())
    }

    /// Gives the new, synced file its name, durably.
    fn name(&self, new: &Path) -> Result<(), Fault> {
        self.disk.rename(new, &self.path)?;
        let dir = self.dir();
        self.disk.sync_dir(dir)?;
        // The directory may be new as well, and so may be those above it. What is not ours to open was
        // not ours to make.
        for above in dir.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            if let Err(error) = self.disk.sync_dir(above) {
                tracing::debug!(dir = %above.display(), %error, "a directory was not synced");
            }
        }
        Ok(())
    }

    /// Sees to it that the file is where it was. One that was deleted while it was open is written anew
    /// out of the open one: what was acknowledged must be there for the next life.
    ///
    /// # Errors
    /// Why it could not be brought back; it is tried again the next time.
    pub fn look_after(&mut self) -> Result<(), StoreError> {
        if self.access == Access::Write
            && self.live.as_ref().is_some_and(|live| !live.file.is_linked())
            && let Some(live) = self.live.take()
        {
            tracing::error!(
                path = %self.path.display(),
                "the state file was deleted under the agent: it is written anew out of the open one. Stop the agent before its directory is removed"
            );
            self.orphan = Some(live.file.medium());
            live.abandon();
        }
        let Some(orphan) = self.orphan.clone() else { return Ok(()) };
        let brought = contained(|| self.bring_back(&*orphan)).map_err(|fault| fault.at(&self.path));
        let brought = brought.and_then(|()| {
            self.orphan = None;
            // At once: should it be deleted again, there is an open file again.
            self.open_file(|_, _| Ok(()))
        });
        match &brought {
            Ok(()) => {
                self.status.write_error = None;
                tracing::info!(path = %self.path.display(), "the state file is back, with all that was in it");
            }
            Err(error) => self.status.write_error = Some(error.to_string()),
        }
        brought
    }

    fn bring_back(&mut self, orphan: &dyn Medium) -> Result<(), Fault> {
        if !self.lock.is_in_place() {
            let dir = self.dir().to_path_buf();
            self.lock = DirLock::acquire(&dir).map_err(|error| Fault::Unusable(error.to_string()))?;
        }
        if self.disk.exists(&self.path)? {
            return Err(Fault::Unusable(
                "the state file was replaced under the agent, which does not touch the other one: stop the agent, and start it on the file that is to be used".into(),
            ));
        }
        let new = self.path.with_file_name(NEW_FILE);
        let file = self.disk.create(&new)?;
        copy(orphan, &*file)?;
        self.name(&new)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

fn unusable_unless_full(error: io::Error) -> Fault {
    match Fault::from(error) {
        full @ Fault::NoSpace(_) => full,
        Fault::Io(cause) => Fault::Unusable(cause),
        other @ (Fault::WrongKey | Fault::Damaged(_) | Fault::Unusable(_) | Fault::Refused(_)) => other,
    }
}
