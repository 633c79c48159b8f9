//! What the Supervisor knows of its children: how to make one, how to reach it, whom to introduce.
//! Behind a trait, so that tests put others in their place.

use crate::actors::messages::{
    Acked, AreYouThere, BarrierPassed, CancelRun, ChildDown, Commit, Configured, Generation,
    GetConfigVersion, GetHealth, GetQueueStatus, GetRuns, GetStoreStatus, Hangup, InspectState, LinkChanged,
    LinkLost, LinkUp, Quit, ReadOutbox, Recover, RoomChanged, RoundTrip, RunCheck, ServerCommand, StartRun,
    Submit, TakeSeq,
};
use actix::prelude::*;

/// Makes the children. Called again for each new life.
pub trait Factory {
    /// Starts a StateStore on a thread of its own.
    ///
    /// # Errors
    /// Why it could not be made, for the log.
    fn state_store(&mut self, birth: Birth) -> Result<Born<StoreDoor>, String>;

    /// Starts a Queue.
    fn queue(&mut self, birth: Birth) -> Born<QueueDoor>;

    /// Starts a Runner.
    fn runner(&mut self, birth: Birth) -> Born<RunnerDoor>;

    /// Starts a Health.
    fn health(&mut self, birth: Birth) -> Born<HealthDoor>;

    /// Starts a Dispatcher.
    fn dispatcher(&mut self, birth: Birth) -> Born<DispatcherDoor>;

    /// Starts a Heartbeat.
    fn heartbeat(&mut self, birth: Birth) -> Born<HeartbeatDoor>;

    /// Starts a Connection, which dials at once and registers with the version of the applied
    /// configuration. It is never re-used.
    fn connection(
        &mut self,
        birth: Birth,
        reports: LinkReports,
        doors: &Neighbourhood,
        config_version: u64,
    ) -> Born<ConnectionDoor>;
}

/// What every child gets.
#[derive(Debug, Clone)]
pub struct Birth {
    /// Which life.
    pub generation: Generation,
    /// Hears of its end.
    pub supervisor: Recipient<ChildDown>,
}

/// Where a Connection reports its ladder.
#[derive(Debug, Clone)]
pub struct LinkReports {
    /// Each step.
    pub changed: Recipient<LinkChanged>,
    /// Each ping's round trip.
    pub round_trip: Recipient<RoundTrip>,
}

/// A child that has just been started.
pub struct Born<D> {
    /// What others ask of it.
    pub door: D,
    /// What the Supervisor asks of it.
    pub ties: Ties,
}

/// What the Supervisor asks of any child.
pub struct Ties {
    /// Answered while it is not frozen.
    pub are_you_there: Recipient<AreYouThere>,
    /// Hands it its neighbours.
    pub introduce: Box<dyn Fn(&Neighbourhood)>,
    /// Stops it in order; a Connection is hung up instead.
    pub quit: Option<Recipient<Quit>>,
    /// The thread of its own, where it has one.
    pub arbiter: Option<ArbiterHandle>,
}

/// The StateStore, for others.
#[derive(Debug, Clone)]
pub struct StoreDoor {
    /// Changes, durable when answered.
    pub commit: Recipient<Commit>,
    /// The outbox.
    pub read: Recipient<ReadOutbox>,
    /// The earlier life.
    pub recover: Recipient<Recover>,
    /// What an operator asks.
    pub inspect: Recipient<InspectState>,
    /// Observed.
    pub status: Recipient<GetStoreStatus>,
}

/// The Queue, for others.
#[derive(Debug, Clone)]
pub struct QueueDoor {
    /// Messages out.
    pub submit: Recipient<Submit>,
    /// A seq for Register.
    pub take_seq: Recipient<TakeSeq>,
    /// A link is there.
    pub link_up: Recipient<LinkUp>,
    /// It is over.
    pub link_lost: Recipient<LinkLost>,
    /// What was written is read.
    pub barrier_passed: Recipient<BarrierPassed>,
    /// What the server answered end to end.
    pub acked: Recipient<Acked>,
    /// New work is refused, or no longer.
    pub room_changed: Recipient<RoomChanged>,
    /// Observed.
    pub status: Recipient<GetQueueStatus>,
}

/// The Runner, for others.
#[derive(Debug, Clone)]
pub struct RunnerDoor {
    /// The applied configuration.
    pub configured: Recipient<Configured>,
    /// A run to take on.
    pub start_run: Recipient<StartRun>,
    /// A run to stop.
    pub cancel_run: Recipient<CancelRun>,
    /// Observed.
    pub runs: Recipient<GetRuns>,
}

/// Health, for others.
#[derive(Debug, Clone)]
pub struct HealthDoor {
    /// The applied configuration.
    pub configured: Recipient<Configured>,
    /// A check to run now.
    pub run_check: Recipient<RunCheck>,
    /// Observed.
    pub status: Recipient<GetHealth>,
}

/// The Dispatcher, for others.
#[derive(Debug, Clone)]
pub struct DispatcherDoor {
    /// What the server asks.
    pub command: Recipient<ServerCommand>,
    /// The applied version.
    pub version: Recipient<GetConfigVersion>,
}

/// The Heartbeat, for others.
#[derive(Debug, Clone)]
pub struct HeartbeatDoor {
    /// A link is there.
    pub link_up: Recipient<LinkUp>,
    /// It is over.
    pub link_lost: Recipient<LinkLost>,
    /// The applied configuration.
    pub configured: Recipient<Configured>,
}

/// The Connection, for the Supervisor alone.
#[derive(Debug, Clone)]
pub struct ConnectionDoor {
    /// Close with 1000.
    pub hangup: Recipient<Hangup>,
}

/// Everybody that is not a Connection, as they are now.
#[derive(Debug, Clone)]
pub struct Neighbourhood {
    /// The state file.
    pub store: StoreDoor,
    /// The way out.
    pub queue: QueueDoor,
    /// Runs.
    pub runner: RunnerDoor,
    /// Health checks.
    pub health: HealthDoor,
    /// Commands.
    pub dispatcher: DispatcherDoor,
    /// Signs of life.
    pub heartbeat: HeartbeatDoor,
    /// The Supervisor, for the applied configuration.
    pub supervisor: Recipient<Configured>,
}

/// The doors as they become known; complete once every child has been started.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) store: Option<StoreDoor>,
    pub(super) queue: Option<QueueDoor>,
    pub(super) runner: Option<RunnerDoor>,
    pub(super) health: Option<HealthDoor>,
    pub(super) dispatcher: Option<DispatcherDoor>,
    pub(super) heartbeat: Option<HeartbeatDoor>,
    pub(super) connection: Option<ConnectionDoor>,
    pub(super) supervisor: Option<Recipient<Configured>>,
}

impl Doors {
    pub(super) fn neighbourhood(&self) -> Option<Neighbourhood> {
        Some(Neighbourhood {
            store: self.store.clone()?,
            queue: self.queue.clone()?,
            runner: self.runner.clone()?,
            health: self.health.clone()?,
            dispatcher: self.dispatcher.clone()?,
            heartbeat: self.heartbeat.clone()?,
            supervisor: self.supervisor.clone()?,
        })
    }
}
