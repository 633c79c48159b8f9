//! What the Supervisor is told and asked.

use super::slot::{Cause, Slot};
use super::{Dial, Supervisor, status, watch};
use crate::actors::messages::{
    ChildDown, ChildExit, ChildName, Configured, GetStatus, LinkChanged, RoundTrip, Shutdown, Superintend,
};
use crate::channel::LinkDown;
use crate::model::{AgentStatus, SysExit};
use actix::prelude::*;
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::time::Instant;

impl Handler<ChildDown> for Supervisor {
    type Result = ();

    fn handle(&mut self, down: ChildDown, ctx: &mut Self::Context) {
        let ChildDown { child, generation, exit } = down;
        let slot = self.slot(child);
        // A Connection between two lives has been heard already; any other child's next life has begun.
        let heard = child == ChildName::Connection && slot.ties.is_none();
        if slot.generation != generation || heard || self.ending.is_some() {
            return;
        }
        let (cause, reason) = match &exit {
            ChildExit::Panicked => (Cause::Panic, "it panicked".to_owned()),
            ChildExit::Failed(reason) | ChildExit::Hopeless(_, reason) => (Cause::Error, reason.clone()),
            ChildExit::Stopped => (Cause::Error, "it stopped without being asked to".to_owned()),
            ChildExit::Link(down) => (Cause::Error, down.to_string()),
        };
        match (child, exit) {
            (ChildName::Connection, ChildExit::Link(LinkDown::Hangup)) => {
                self.link_over(Cause::Asked, &LinkDown::Hangup, ctx);
            }
            (ChildName::Connection, ChildExit::Link(down)) => self.link_over(cause, &down, ctx),
            (_, ChildExit::Hopeless(code, _)) => {
                self.slot(child).ends(cause);
                tracing::error!(actor = child.name(), reason, "the agent cannot go on");
                self.begin_end(code, ctx);
            }
            (ChildName::Connection, ChildExit::Panicked | ChildExit::Failed(_) | ChildExit::Stopped) => {
                tracing::error!(cause = cause.name(), reason, "the connection's actor ended: report this");
                self.link_over(cause, &LinkDown::Broken(reason), ctx);
            }
            (
                ChildName::StateStore
                | ChildName::Queue
                | ChildName::Runner
                | ChildName::Health
                | ChildName::Dispatcher
                | ChildName::Heartbeat,
                _,
            ) => self.over(child, cause, &reason, ctx),
        }
    }
}

impl Handler<Dial> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Dial, ctx: &mut Self::Context) {
        if self.ending.is_none() && self.slot(ChildName::Connection).ties.is_none() {
            self.spawn(ChildName::Connection, ctx);
        }
    }
}

impl Handler<LinkChanged> for Supervisor {
    type Result = ();

    fn handle(&mut self, changed: LinkChanged, ctx: &mut Self::Context) {
        let slot = self.slot(ChildName::Connection);
        if slot.generation != changed.generation || slot.ties.is_none() {
            return;
        }
        self.link.changed(&changed, self.init.as_mut());
        self.store_session(ctx);
    }
}

impl Handler<Configured> for Supervisor {
    type Result = ();

    /// For the next Register.
    fn handle(&mut self, Configured(plan): Configured, _: &mut Self::Context) {
        self.config_version = plan.version;
    }
}

impl Handler<RoundTrip> for Supervisor {
    type Result = ();

    fn handle(&mut self, RoundTrip(round_trip): RoundTrip, _: &mut Self::Context) {
        self.link.round_trip(round_trip);
    }
}

impl Handler<Superintend> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Superintend, ctx: &mut Self::Context) {
        if self.ending.is_some() {
            return;
        }
        let asked = ChildName::ALL.into_iter().filter_map(|child| {
            let slot = &self.slots[child as usize];
            Some((child, slot.generation, slot.ties.as_ref()?.are_you_there.clone()))
        });
        let begin = Instant::now();
        let round = watch::round(asked.collect(), watch::answer_limit(self.interval));
        ctx.spawn(round.into_actor(self).map(move |answers, act, ctx| act.round_over(begin, &answers, ctx)));
    }
}

impl Handler<GetStatus> for Supervisor {
    type Result = ResponseFuture<AgentStatus>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        let status = AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            server_url: self.server_url.clone(),
            link: self.link.status().clone(),
            children: self.slots.iter().map(Slot::status).collect(),
            ..AgentStatus::default()
        };
        Box::pin(status::fill_in(status, self.doors.neighbourhood(), Rc::clone(&self.last_answers)))
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        self.begin_end(SysExit::Ok, ctx);
        let (ended, wait) = oneshot::channel();
        if let Some(waiters) = &mut self.ending {
            waiters.push(ended);
        }
        Box::pin(async move {
            // An end that cannot be waited for any more has come.
            let _ = wait.await;
        })
    }
}
