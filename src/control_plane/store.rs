//! The state and its journal together: a change is in memory at once, and its maker hears when it is on
//! disk.

use super::journal::{self, Job, Journal};
use super::state::{Event, State};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What the control plane remembers.
pub struct Store {
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// None once closed.
    journal: Option<Journal>,
}

/// A change in the making: the state as it is, and what was changed so far.
pub struct Change<'a> {
    state: &'a mut State,
    lines: Vec<u8>,
    failed: Option<serde_json::Error>,
}

impl Change<'_> {
    /// The state, every change before included.
    pub fn state(&self) -> &State {
        self.state
    }

    /// Takes a change in, to be on disk before the answer.
    pub fn apply(&mut self, event: Event) {
        match serde_json::to_writer(&mut self.lines, &event) {
            Ok(()) => self.lines.push(b'\n'),
            Err(error) => self.failed = Some(error),
        }
        self.state.apply(event);
    }

    /// Takes a change in that may be lost with the power: signs of life.
    pub fn note(&mut self, event: Event) {
        self.state.apply(event);
    }
}

impl Store {
    /// Opens the directory.
    ///
    /// # Errors
    /// As [`journal::open`].
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (state, journal) = journal::open(dir)?;
        Ok(Self { inner: Mutex::new(Inner { state, journal: Some(journal) }) })
    }

    /// Looks at the state. Nothing may wait inside.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock().state)
    }

    /// Changes the state, and answers once that is on disk.
    ///
    /// # Errors
    /// Where it could not be written. The change may become durable later, when there is room again.
    pub async fn change<R>(&self, change: impl FnOnce(&mut Change<'_>) -> R) -> io::Result<R> {
        let (answer, written) = self.enqueue(change)?;
        if let Some(written) = written {
            written.await.map_err(|_| closed())??;
        }
        Ok(answer)
    }

    fn enqueue<R>(&self, change: impl FnOnce(&mut Change<'_>) -> R) -> io::Result<(R, Option<Written>)> {
        let mut inner = self.lock();
        let Inner { state, journal } = &mut *inner;
        let journal = journal.as_ref().ok_or_else(closed)?;
        // Before the change: after a failed write the snapshot must come first, the lines after it.
        if journal.wants_snapshot.swap(false, Ordering::AcqRel) {
            journal.jobs.send(Job::Snapshot(Box::new(state.clone()))).map_err(|_| closed())?;
        }
        let mut making = Change { state, lines: Vec::new(), failed: None };
        let answer = change(&mut making);
        if let Some(error) = making.failed {
            return Err(error.into());
        }
        if making.lines.is_empty() {
            return Ok((answer, None));
        }
        let (done, written) = oneshot::channel();
        journal.jobs.send(Job::Append(making.lines, done)).map_err(|_| closed())?;
        Ok((answer, Some(written)))
    }

    /// Writes what waits and closes the files; changes are refused from here on.
    pub fn close(&self) {
        let journal = self.lock().journal.take();
        if let Some(Journal { jobs, thread, .. }) = journal {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the journal's writer ended by a panic: look at the lines before");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked inside left whole events applied: the state can be used.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Written = oneshot::Receiver<io::Result<()>>;

fn closed() -> io::Error {
    io::Error::other("the control plane is shutting down")
}
