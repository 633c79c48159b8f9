//! What the Supervisor keeps of the link, across connections: status, metrics, the next delay.

use super::init::InitSystem;
use crate::actors::messages::LinkChanged;
use crate::channel::backoff::Backoff;
use crate::channel::limits::DEFAULT_HEARTBEAT_INTERVAL;
use crate::channel::{DialError, LinkDown};
use crate::model::{LinkState, LinkStatus, unix_ms};
use std::time::Duration;
use tokio::time::Instant;

/// One row a state, 1 for the present one.
const STATE_METRIC: &str = "backupy_agent_wss_connection_state";
const RECONNECTS_METRIC: &str = "backupy_agent_wss_reconnects_total";
/// 1 while the control plane refuses the agent key.
const REFUSED_METRIC: &str = "backupy_agent_key_refused";
/// Sessions that another agent with the same key took over.
const SUPERSEDED_METRIC: &str = "backupy_agent_superseded_total";

/// Says what the Supervisor's metrics mean.
pub fn describe() {
    metrics::describe_gauge!(
        STATE_METRIC,
        "1 for the state of the link to the control plane, 0 for the others"
    );
    metrics::describe_counter!(RECONNECTS_METRIC, "Connections after the first that was established");
    metrics::describe_gauge!(REFUSED_METRIC, "1 while the control plane refuses the agent key");
    metrics::describe_counter!(SUPERSEDED_METRIC, "Sessions that another agent with the same key took over");
    metrics::describe_counter!(super::slot::RESTARTS_METRIC, "Actors replaced, by actor and cause");
}

/// A random number, at least 0 and under 1.
pub type Unit = Box<dyn FnMut() -> f64>;

struct Established {
    at: Instant,
    heartbeat_interval: Duration,
}

pub(super) struct LinkBook {
    status: LinkStatus,
    backoff: Backoff,
    unit: Unit,
    established: Option<Established>,
    established_before: bool,
    key_refused: bool,
    /// The init system hears once that the agent is ready.
    ready: bool,
}

impl LinkBook {
    pub(super) fn new(unit: Unit) -> Self {
        // The counter is there before the first reconnect, so that its first step can be seen.
        metrics::counter!(RECONNECTS_METRIC).increment(0);
        metrics::counter!(SUPERSEDED_METRIC).increment(0);
        metrics::gauge!(REFUSED_METRIC).set(0.0);
        let mut book = Self {
            status: LinkStatus::default(),
            backoff: Backoff::default(),
            unit,
            established: None,
            established_before: false,
            key_refused: false,
            ready: false,
        };
        book.enter(LinkState::Waiting);
        book
    }

    pub(super) fn status(&self) -> &LinkStatus {
        &self.status
    }

    pub(super) fn round_trip(&mut self, round_trip: Duration) {
        self.status.round_trip_ms = Some(round_trip.as_secs_f64() * 1000.0);
    }

    /// A connection climbed.
    pub(super) fn changed(&mut self, changed: &LinkChanged, init: &mut dyn InitSystem) {
        self.enter(changed.state);
        match changed.state {
            LinkState::Waiting | LinkState::Closing => {}
            LinkState::Dialing => init.status("dialling the control plane"),
            LinkState::Registering => {
                self.key_is_good();
                self.tried(init);
                init.status("registering at the control plane");
            }
            LinkState::Established => {
                self.key_is_good();
                self.established(changed);
                self.tried(init);
                init.status("connected to the control plane");
            }
        }
    }

    fn established(&mut self, changed: &LinkChanged) {
        if let Some(session_id) = &changed.session_id {
            self.status.session_id.clone_from(session_id);
        }
        if std::mem::replace(&mut self.established_before, true) {
            self.status.reconnects += 1;
            metrics::counter!(RECONNECTS_METRIC).increment(1);
        }
        self.established = Some(Established {
            at: Instant::now(),
            heartbeat_interval: changed.heartbeat_interval.unwrap_or(DEFAULT_HEARTBEAT_INTERVAL),
        });
        tracing::info!(session_id = self.status.session_id, "connected to the control plane");
    }

    /// A connection ended: how long to wait before the next one.
    pub(super) fn down(&mut self, down: &LinkDown, init: &mut dyn InitSystem) -> Duration {
        if let Some(link) = self.established.take() {
            self.backoff.lasted(link.at.elapsed(), link.heartbeat_interval);
        }
        let had_twin = self.backoff.has_twin();
        let delay = self.backoff.next_delay(down, (self.unit)());
        let reason = down.to_string();
        // Tenths are enough for people.
        let in_s = (delay.as_secs_f64() * 10.0).round() / 10.0;
        if let LinkDown::Dial(DialError::Unauthorized { .. }) = down {
            self.key_refused(&reason, in_s);
        } else if down.is_superseded() {
            self.superseded(&reason, in_s, had_twin);
        } else if let LinkDown::Hangup = down {
            tracing::info!(in_s, "connection closed: dialling again");
        } else {
            tracing::warn!(reason, in_s, "no connection to the control plane: dialling again");
        }
        self.enter(LinkState::Waiting);
        self.tried(init);
        init.status(&format!("no connection: {reason}; dialling again in {in_s:.1} s"));
        self.status.last_error = Some(reason);
        delay
    }

    /// Said once: the log of a fleet whose key was revoked must stay readable.
    fn key_refused(&mut self, reason: &str, in_s: f64) {
        metrics::gauge!(REFUSED_METRIC).set(1.0);
        if std::mem::replace(&mut self.key_refused, true) {
            tracing::debug!(reason, in_s, "the agent key is still refused: dialling again");
        } else {
            tracing::error!(
                reason,
                in_s,
                "the control plane refuses the agent key: it was revoked or replaced, or belongs to another control plane. \
                 Set server.agent_key to the current key and restart the agent. It goes on trying, and does not say this again"
            );
        }
    }

    /// Loud once: two agents that share a key would fill both their logs with it.
    fn superseded(&mut self, reason: &str, in_s: f64, known: bool) {
        metrics::counter!(SUPERSEDED_METRIC).increment(1);
        self.status.superseded_ms = Some(unix_ms());
        if known {
            tracing::warn!(
                reason,
                in_s,
                "another agent with this key took the session again: dialling again"
            );
        } else {
            tracing::error!(
                reason,
                in_s,
                "probable clone: another agent with the same key took this agent's session. Was this host, its disk or \
                 its configuration copied? Give each agent a key and a state directory of its own. \
                 This one gives way, and dials ever more slowly"
            );
        }
    }

    fn key_is_good(&mut self) {
        if std::mem::take(&mut self.key_refused) {
            metrics::gauge!(REFUSED_METRIC).set(0.0);
            tracing::info!("the control plane takes the agent key again");
        }
    }

    /// The first dial was tried, whatever came of it.
    fn tried(&mut self, init: &mut dyn InitSystem) {
        if !std::mem::replace(&mut self.ready, true) {
            init.ready();
        }
    }

    fn enter(&mut self, state: LinkState) {
        let now_ms = unix_ms();
        if [self.status.state, state].contains(&LinkState::Established) {
            self.status.last_established_ms = Some(now_ms);
        }
        self.status.state = state;
        self.status.since_ms = now_ms;
        for known in LinkState::ALL {
            let value = if known == state { 1.0 } else { 0.0 };
            metrics::gauge!(STATE_METRIC, "state" => known.name()).set(value);
        }
    }
}
