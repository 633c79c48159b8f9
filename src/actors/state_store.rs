//! Owns the state file, on a thread of its own, and commits in groups.
//!
//! What waits in the mailbox goes into one transaction: the first change that arrives asks for a
//! `Flush`, which comes after everything that was already there. Every sender hears after the commit
//! that made its changes durable, or why there was none.

mod upkeep;

pub use upkeep::{ROOM_INTERVAL, StateStoreNeighbours, TIDY_DELAY};

use super::life::Life;
use super::messages::{
    AreYouThere, ChildExit, Commit, GetStoreStatus, InspectState, Quit, ReadOutbox, Recover,
};
use crate::model::{StoreStatus, SysExit};
use crate::store::{Change, Inspection, OutboxPage, Recovered, Store, StoreError};
use actix::prelude::*;
use metrics::{Unit, describe_gauge, gauge};
use std::time::Duration;
use tokio::sync::oneshot;
use upkeep::Upkeep;

/// Senders in one transaction. A larger group gains nothing over the sync that it shares, and would keep
/// its first sender waiting.
const MAX_GROUP: usize = 1_024;

/// Waiting messages before senders are pushed back; two groups' worth, so that one can fill while the
/// other is committed.
const MAILBOX: usize = 2 * MAX_GROUP;

/// After so many lists of a failed group have failed alone because of the disk, the others are told the
/// same: each attempt opens the file anew.
const MAX_ALONE_FAILURES: usize = 16;

/// An earlier life lets go of the file within milliseconds of its end.
const REOPEN_DELAY: Duration = Duration::from_millis(20);

/// So often the file is asked for while the earlier life, on its own thread, still holds it: 20 s in all.
/// Longer than that no call to a disk takes that comes back at all, and an init system can do more about
/// it than this process.
const REOPEN_ATTEMPTS: u32 = 1_000;

/// Until this attempt, after half a second, whoever asks waits; from then on it is told that the store is
/// gone, and the Supervisor that this life is well, however often it asks.
const QUIET_ATTEMPTS: u32 = 25;

const FILE_BYTES: &str = "backupy_agent_state_file_bytes";
const QUARANTINED: &str = "backupy_agent_state_quarantined_records";
const WRITE_FAILING: &str = "backupy_agent_state_write_failing";

/// Says what the metrics of this actor mean.
pub fn describe() {
    describe_gauge!(FILE_BYTES, Unit::Bytes, "Size of the state file");
    describe_gauge!(QUARANTINED, "Records of the state file set aside since the start");
    upkeep::describe();
    describe_gauge!(WRITE_FAILING, "1 while the state file takes no changes, for example on a full disk");
}

/// Opens the state file, on the actor's thread. For the first life it can hand out an open one.
pub type Opener = Box<dyn FnMut() -> Result<Store, StoreError> + Send>;

/// What a StateStore is made of.
pub struct StateStoreDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// Gives it the file.
    pub opener: Opener,
}

/// A sender that waits for the commit of its changes.
struct Waiting {
    changes: Vec<Change>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Waiting {
    fn is_new_work(&self) -> bool {
        self.changes.iter().any(Change::is_new_work)
    }
}

/// Commit what waits.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Flush;

/// Try again to open the file.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Open {
    attempt: u32,
}

/// The actor.
pub struct StateStore {
    life: Life,
    opener: Opener,
    /// None before it is open and after `Quit`.
    store: Option<Store>,
    group: Vec<Waiting>,
    upkeep: Upkeep,
}

impl StateStore {
    /// Opens the file when it starts, so that this happens on its own thread.
    pub fn new(deps: StateStoreDeps) -> Self {
        Self {
            life: deps.life,
            opener: deps.opener,
            store: None,
            group: Vec::new(),
            upkeep: Upkeep::default(),
        }
    }

    /// Commits the group, and tells each of its senders. New work is refused where the disk is nearly
    /// full: the room that is left belongs to what was accepted before.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        let mut group = std::mem::take(&mut self.group);
        let new_work = group.iter().any(Waiting::is_new_work);
        if new_work && self.upkeep.write_trouble().is_some() {
            self.look_for_room(ctx);
        }
        let Some(store) = self.store.as_mut().filter(|_| !group.is_empty()) else {
            return; // Dropping an answer tells its sender that the store is gone.
        };
        let asks = self.upkeep.in_trouble() || new_work;
        let room = if asks { store.check_room().err() } else { None };
        // On a full disk a small change still finds its place where the one before it did not: what one write
        // proved wrong is proved right at the next look, not by whatever comes first.
        let mut trouble = self.upkeep.write_trouble().cloned().or(room);
        if let Some(low) = &trouble {
            let (refused, rest): (Vec<_>, _) = group.into_iter().partition(Waiting::is_new_work);
            refused.into_iter().for_each(|waiting| tell(waiting, Err(low.clone())));
            group = rest;
        }
        if group.is_empty() {
            return self.note(trouble, ctx);
        }
        let removes = group.iter().any(|waiting| waiting.changes.iter().any(Change::removes));
        let lists: Vec<_> = group.iter().map(|waiting| waiting.changes.as_slice()).collect();
        let failed = match store.commit_group(&lists) {
            Ok(()) => {
                group.into_iter().for_each(|waiting| tell(waiting, Ok(())));
                None
            }
            Err(error) => commit_alone(store, group, error),
        };
        let status = store.status();
        report(&status);
        let written = failed.is_none();
        if status.write_error.is_some() {
            trouble = failed.or(trouble);
        }
        self.note(trouble, ctx);
        if written {
            self.look_for_room(ctx);
        }
        if removes {
            self.tidy_later(ctx);
        }
    }

    /// Says what is wrong with the disk, if anything, as soon as the file is open.
    fn opened(&mut self, ctx: &mut Context<Self>) {
        let trouble = self.store.as_mut().and_then(|store| {
            // A file that could not be made yet is tried once more, for the reason.
            let written = match store.status().write_error {
                Some(_) => store.commit(&[Change::ReserveSeq(0)]),
                None => Ok(()),
            };
            written.and_then(|()| store.check_room()).err()
        });
        self.note(trouble, ctx);
        self.tidy_later(ctx);
    }

    fn store(&mut self) -> Result<&mut Store, StoreError> {
        self.store.as_mut().ok_or_else(gone)
    }
}

/// One list that cannot be committed must not fail its neighbours. Answers the last error that was the
/// disk's.
fn commit_alone(store: &mut Store, group: Vec<Waiting>, error: StoreError) -> Option<StoreError> {
    let of_the_disk = |error: &StoreError| !matches!(error, StoreError::Refused { .. });
    if group.len() == 1 {
        group.into_iter().for_each(|waiting| tell(waiting, Err(error.clone())));
        return Some(error).filter(of_the_disk);
    }
    let mut failures = 0;
    let mut last = Some(error).filter(of_the_disk);
    for waiting in group {
        if failures >= MAX_ALONE_FAILURES
            && let Some(last) = &last
        {
            tell(waiting, Err(last.clone()));
            continue;
        }
        let result = store.commit(&waiting.changes);
        if let Err(error) = &result
            && of_the_disk(error)
        {
            failures += 1;
            last = Some(error.clone());
        }
        tell(waiting, result);
    }
    last
}

/// A sender that is gone asked for nothing more.
fn tell(waiting: Waiting, result: Result<(), StoreError>) {
    let _ = waiting.answer.send(result);
}

fn gone() -> StoreError {
    StoreError::Io { path: crate::store::STATE_FILE.into(), cause: "the state store has stopped".into() }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point; 2^53 bytes are far")]
fn report(status: &StoreStatus) {
    gauge!(FILE_BYTES).set(status.file_bytes as f64);
    gauge!(QUARANTINED).set(status.quarantined as f64);
    gauge!(WRITE_FAILING).set(f64::from(u8::from(status.write_error.is_some())));
}

impl Actor for StateStore {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.handle(Open { attempt: 1 }, ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // The next life may be made as soon as the Supervisor hears of this one's end.
        self.store = None;
        self.life.tell();
    }
}

impl Handler<Open> for StateStore {
    type Result = ();

    fn handle(&mut self, Open { attempt }: Open, ctx: &mut Self::Context) {
        match (self.opener)() {
            Ok(store) => {
                report(&store.status());
                self.store = Some(store);
                self.opened(ctx);
            }
            // The life before this one, in the same process, has not let go yet.
            Err(StoreError::InUse { dir, pid }) if pid == Some(std::process::id()) => {
                let next = Open { attempt: attempt + 1 };
                if attempt < QUIET_ATTEMPTS {
                    // What is asked meanwhile waits in the mailbox.
                    let again = actix::clock::sleep(REOPEN_DELAY).into_actor(self);
                    ctx.wait(again.map(move |(), act, ctx| act.handle(next, ctx)));
                    return;
                }
                if attempt < REOPEN_ATTEMPTS {
                    ctx.notify_later(next, REOPEN_DELAY);
                    return;
                }
                let reason = format!(
                    "{}: the disk does not answer: a call of this agent to it has not come back for {} s and more. Look at the kernel's log and at the disk or the network file system below that directory. What was acknowledged is on the disk; the agent ends, to be started anew by the init system",
                    dir.display(),
                    (REOPEN_DELAY * REOPEN_ATTEMPTS).as_secs()
                );
                self.life.ends_as(ChildExit::Hopeless(SysExit::Io, reason));
                ctx.stop();
            }
            Err(error) => {
                tracing::error!(%error, "the state file cannot be opened");
                self.life.ends_as(ChildExit::Failed(error.to_string()));
                ctx.stop();
            }
        }
    }
}

impl Handler<Commit> for StateStore {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(&mut self, Commit(changes): Commit, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.group.push(Waiting { changes, answer });
        if self.group.len() >= MAX_GROUP {
            self.flush(ctx);
        } else if self.group.len() == 1 {
            ctx.notify(Flush);
        }
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(gone())) })
    }
}

impl Handler<Flush> for StateStore {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush(ctx);
    }
}

impl Handler<ReadOutbox> for StateStore {
    type Result = Result<OutboxPage, StoreError>;

    fn handle(&mut self, read: ReadOutbox, _: &mut Self::Context) -> Self::Result {
        let store = self.store()?;
        let page = store.read_outbox(read.kind, read.after, read.max_count, read.max_bytes)?;
        if !page.set_aside.is_empty() {
            report(&store.status());
        }
        Ok(page)
    }
}

impl Handler<Recover> for StateStore {
    type Result = Result<Recovered, StoreError>;

    /// What waits to be committed belongs to what is recovered.
    fn handle(&mut self, _: Recover, ctx: &mut Self::Context) -> Self::Result {
        self.flush(ctx);
        let store = self.store()?;
        let recovered = store.recover()?;
        report(&store.status());
        Ok(recovered)
    }
}

impl Handler<InspectState> for StateStore {
    type Result = Result<Inspection, StoreError>;

    fn handle(&mut self, _: InspectState, ctx: &mut Self::Context) -> Self::Result {
        self.flush(ctx);
        self.store()?.inspect()
    }
}

impl Handler<GetStoreStatus> for StateStore {
    type Result = MessageResult<GetStoreStatus>;

    fn handle(&mut self, _: GetStoreStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.store.as_ref().map(Store::status).unwrap_or_default())
    }
}

impl Handler<AreYouThere> for StateStore {
    type Result = ();

    /// The one moment at which an idle agent finds out that its file was deleted.
    fn handle(&mut self, _: AreYouThere, ctx: &mut Self::Context) {
        if let Some(Err(error)) = self.store.as_mut().map(Store::look_after) {
            self.note(Some(error), ctx);
        }
    }
}

impl Handler<Quit> for StateStore {
    type Result = ();

    /// Answered when what waited is committed and the file is closed.
    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) {
        self.flush(ctx);
        self.store = None;
        self.life.ends_as(ChildExit::Stopped);
        ctx.stop();
    }
}
