//! What keeps new work out, for how long, and who is told; and the file's size. Nothing here wakes up an
//! agent that is well: room is looked at when it is asked for, and at intervals only while it is short.

use super::StateStore;
use crate::actors::messages::RoomChanged;
use crate::store::StoreError;
use actix::prelude::*;
use metrics::{Unit, describe_gauge, describe_histogram, gauge, histogram};
use std::time::{Duration, Instant};

/// While new work is refused, whether it still must be is looked at so often.
pub const ROOM_INTERVAL: Duration = Duration::from_secs(10);

/// The file is looked at so long after something was removed from it: by then a queue that drains has
/// drained.
pub const TIDY_DELAY: Duration = Duration::from_secs(30);

/// After a compaction that failed, the disk is left alone for so long.
const TIDY_RETRY: Duration = Duration::from_secs(600);

const REFUSING: &str = "backupy_agent_state_refusing_new_work";
const COMPACTION: &str = "backupy_agent_state_compaction_seconds";

pub(super) fn describe() {
    describe_gauge!(REFUSING, "1 while new work is refused because of the disk of the state directory");
    describe_histogram!(COMPACTION, Unit::Seconds, "How long compactions of the state file held up commits");
}

/// Whom the StateStore tells; given at start and after one of them was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct StateStoreNeighbours {
    /// The Queue.
    pub room_changed: Recipient<RoomChanged>,
}

/// Look whether there is room again.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct LookForRoom;

/// Look whether the file is worth a compaction.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Tidy;

/// Of the upkeep between two messages.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub(super) neighbours: Option<StateStoreNeighbours>,
    /// What keeps new work out, as it was last told.
    trouble: Option<StoreError>,
    looking: bool,
    tidying: bool,
    tidy_not_before: Option<Instant>,
}

impl Upkeep {
    pub(super) fn in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// What is wrong, where it is more than that the disk is nearly full.
    pub(super) fn write_trouble(&self) -> Option<&StoreError> {
        self.trouble.as_ref().filter(|trouble| !matches!(trouble, StoreError::LowSpace { .. }))
    }
}

impl StateStore {
    /// This is what keeps new work out now; None where nothing does. Said once, when it changes.
    pub(super) fn note(&mut self, trouble: Option<StoreError>, ctx: &mut Context<Self>) {
        if trouble.is_some() && !self.upkeep.looking {
            self.upkeep.looking = true;
            ctx.notify_later(LookForRoom, ROOM_INTERVAL);
        }
        let kind = |trouble: &Option<StoreError>| trouble.as_ref().map(std::mem::discriminant);
        if kind(&trouble) == kind(&self.upkeep.trouble) {
            return;
        }
        match &trouble {
            Some(error @ StoreError::LowSpace { .. }) => {
                tracing::error!(%error, "new work is refused: the disk is nearly full");
            }
            Some(error) => tracing::error!(
                %error,
                "the state file takes no changes: new durable work is refused until this is mended"
            ),
            None => tracing::info!("the state file takes changes again, and new work is taken on"),
        }
        gauge!(REFUSING).set(f64::from(u8::from(trouble.is_some())));
        self.upkeep.trouble = trouble;
        self.tell_room();
    }

    /// Whether what keeps new work out is over: asked at intervals, after a write that went well, and when a failed
    /// one keeps out work that is asked for now.
    pub(super) fn look_for_room(&mut self, ctx: &mut Context<Self>) {
        let unsure = self.upkeep.write_trouble().is_some();
        let Some(store) = self.store.as_mut().filter(|_| self.upkeep.trouble.is_some()) else { return };
        // A change that changes nothing finds out whether the file takes changes.
        let written = if unsure { store.try_writing() } else { Ok(()) };
        let trouble = written.and_then(|()| store.check_room()).err();
        self.note(trouble, ctx);
    }

    fn tell_room(&self) {
        if let Some(neighbours) = &self.upkeep.neighbours {
            neighbours.room_changed.do_send(RoomChanged(self.upkeep.trouble.clone()));
        }
    }

    /// Something left the file: look at its size later, once.
    pub(super) fn tidy_later(&mut self, ctx: &mut Context<Self>) {
        let waits = self.upkeep.tidy_not_before.is_some_and(|at| Instant::now() < at);
        if !self.upkeep.tidying && !waits && self.store.as_ref().is_some_and(|store| store.compaction_pays())
        {
            self.upkeep.tidying = true;
            ctx.notify_later(Tidy, TIDY_DELAY);
        }
    }
}

impl Handler<LookForRoom> for StateStore {
    type Result = ();

    fn handle(&mut self, _: LookForRoom, ctx: &mut Self::Context) {
        self.upkeep.looking = false;
        self.look_for_room(ctx);
    }
}

impl Handler<Tidy> for StateStore {
    type Result = ();

    fn handle(&mut self, _: Tidy, _: &mut Self::Context) {
        self.upkeep.tidying = false;
        let Some(store) = self.store.as_mut().filter(|store| store.compaction_pays()) else { return };
        let (start, before) = (Instant::now(), store.status().file_bytes);
        match store.compact() {
            Ok(_) => {
                let (took, after) = (start.elapsed(), store.status().file_bytes);
                histogram!(COMPACTION).record(took);
                tracing::info!(before, after, took_ms = took.as_millis(), "the state file was compacted");
                super::report(&store.status());
                if after >= before {
                    self.upkeep.tidy_not_before = Some(Instant::now() + TIDY_RETRY);
                }
            }
            Err(error) => {
                self.upkeep.tidy_not_before = Some(Instant::now() + TIDY_RETRY);
                tracing::warn!(%error, "the state file could not be compacted; it is as it was");
            }
        }
    }
}

impl Handler<StateStoreNeighbours> for StateStore {
    type Result = ();

    fn handle(&mut self, neighbours: StateStoreNeighbours, _: &mut Self::Context) {
        self.upkeep.neighbours = Some(neighbours);
        if self.upkeep.in_trouble() {
            self.tell_room();
        }
    }
}
