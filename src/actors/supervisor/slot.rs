//! A child's place: its present life, and how the earlier ones ended.

use super::factory::Ties;
use crate::actors::messages::{ChildName, Generation};
use crate::model::ChildStatus;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// More restarts than this within [`RESTART_WINDOW`] mean that restarting does not help: the process
/// ends, and the init system begins it anew.
pub const MAX_RESTARTS: usize = 5;

/// See [`MAX_RESTARTS`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// By actor and cause.
pub(super) const RESTARTS_METRIC: &str = "backupy_agent_actor_restarts_total";

/// Why a life is over, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A handler panicked, or it went without a word.
    Panic,
    /// It ended with an error.
    Error,
    /// It did not answer.
    Freeze,
    /// It was asked to.
    Asked,
}

impl Cause {
    /// The label of the metric.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Freeze => "freeze",
            Self::Asked => "asked",
        }
    }
}

pub(super) struct Slot {
    name: ChildName,
    /// Of the present life, or of the last one where there is none.
    pub(super) generation: Generation,
    /// None between two lives.
    pub(super) ties: Option<Ties>,
    answered: bool,
    panics: u64,
    errors: u64,
    freezes: u64,
    restarts: VecDeque<Instant>,
}

impl Slot {
    pub(super) fn new(name: ChildName) -> Self {
        Self {
            name,
            generation: 0,
            ties: None,
            answered: false,
            panics: 0,
            errors: 0,
            freezes: 0,
            restarts: VecDeque::new(),
        }
    }

    pub(super) fn lives(&mut self, ties: Ties) {
        self.ties = Some(ties);
        self.answered = true;
    }

    pub(super) fn answers(&mut self, answered: bool) {
        self.answered = answered;
    }

    /// Ends the present life: its thread, where it has one, ends as soon as it can.
    pub(super) fn ends(&mut self, cause: Cause) {
        self.answered = false;
        if let Some(arbiter) = self.ties.take().and_then(|ties| ties.arbiter) {
            arbiter.stop();
        }
        match cause {
            Cause::Panic => self.panics += 1,
            Cause::Error => self.errors += 1,
            Cause::Freeze => self.freezes += 1,
            Cause::Asked => return,
        }
        metrics::counter!(
            RESTARTS_METRIC, "actor" => self.name.name(), "cause" => cause.name()
        )
        .increment(1);
    }

    /// Whether one more restart is within bounds; counts it.
    pub(super) fn may_restart(&mut self, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) >= RESTART_WINDOW) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= MAX_RESTARTS
    }

    /// A Connection between two lives waits for the next dial: that is no silence.
    fn is_well(&self) -> bool {
        match self.name {
            ChildName::Connection => self.ties.is_none() || self.answered,
            ChildName::StateStore
            | ChildName::Queue
            | ChildName::Runner
            | ChildName::Health
            | ChildName::Dispatcher
            | ChildName::Heartbeat => self.ties.is_some() && self.answered,
        }
    }

    pub(super) fn status(&self) -> ChildStatus {
        ChildStatus {
            name: self.name.name().to_owned(),
            alive: self.is_well(),
            panics: self.panics,
            errors: self.errors,
            freezes: self.freezes,
        }
    }
}
