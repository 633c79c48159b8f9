//! Signs of life: the first right after the handshake, then exactly at the server's interval, with
//! the host's numbers and the active runs. No link, no ticks.

use super::life::Life;
use super::messages::{
    AreYouThere, ChildExit, Configured, Generation, GetQueueStatus, GetRuns, LinkLost, LinkUp, QueueError,
    Quit, Submit,
};
use crate::model::{QueueStatus, RunStatus};
use crate::probe::host::HostProbe;
use crate::wire::{Payload, v1};
use actix::prelude::*;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A neighbour that answers later than this is left out of this heartbeat: a late sign of life is
/// worse than one with numbers of the beat before.
const NEIGHBOUR_LIMIT: Duration = Duration::from_secs(1);

/// The contract counts in whole seconds; nothing makes a heartbeat more often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What a Heartbeat is made of.
#[derive(Debug)]
pub struct HeartbeatDeps {
    /// Its tie to the Supervisor.
    pub life: Life,
    /// Reads the host's numbers.
    pub host: HostProbe,
}

/// Whom the Heartbeat asks and tells; given at start and after one of them was replaced.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct HeartbeatNeighbours {
    /// The Queue, to send.
    pub submit: Recipient<Submit>,
    /// The Queue, for its depth.
    pub queue_status: Recipient<GetQueueStatus>,
    /// The Runner, for the active runs.
    pub runs: Recipient<GetRuns>,
}

/// The time for a heartbeat of that link has come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Beat(Generation);

struct Link {
    generation: Generation,
    interval: Duration,
    /// Kept apart from the timer, so that a late wake-up does not shift the beats after it.
    next: Instant,
    timer: SpawnHandle,
    /// A beat that is being put together: the next one does not overtake it.
    busy: Option<SpawnHandle>,
}

/// The actor.
pub struct Heartbeat {
    life: Life,
    host: HostProbe,
    neighbours: Option<HeartbeatNeighbours>,
    link: Option<Link>,
    config_version: u64,
    active_job_ids: Vec<String>,
    queue_depth: u32,
}

impl Heartbeat {
    /// Silent until a link is up.
    pub fn new(deps: HeartbeatDeps) -> Self {
        Self {
            life: deps.life,
            host: deps.host,
            neighbours: None,
            link: None,
            config_version: 0,
            active_job_ids: Vec::new(),
            queue_depth: 0,
        }
    }

    fn drop_link(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = self.link.take() {
            ctx.cancel_future(link.timer);
            if let Some(beat) = link.busy {
                ctx.cancel_future(beat);
            }
        }
    }

    /// Sets the timer for the beat after this one; beats that were missed are not made up for.
    fn schedule(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = self.link.as_mut() else { return };
        let now = Instant::now();
        link.next += link.interval;
        if link.next < now {
            link.next = now + link.interval;
        }
        link.timer = ctx.notify_later(Beat(link.generation), link.next - now);
    }

    fn beat_is_out(&mut self) {
        if let Some(link) = self.link.as_mut() {
            link.busy = None;
        }
    }

    fn message(&mut self) -> Payload {
        let host = self.host.read();
        Payload::Heartbeat(v1::Heartbeat {
            config_version: self.config_version,
            metrics: Some(v1::AgentMetrics {
                cpu_percent: host.cpu_percent,
                mem_used_bytes: host.mem_used_bytes,
                mem_total_bytes: host.mem_total_bytes,
                disk_used_bytes: host.disk_used_bytes,
                disk_total_bytes: host.disk_total_bytes,
                queue_depth: self.queue_depth,
            }),
            active_job_ids: self.active_job_ids.clone(),
        })
    }

    /// Takes over what the neighbours answered in time; what they did not stays as it was.
    fn note(&mut self, runs: Option<Vec<RunStatus>>, queue: Option<QueueStatus>) {
        if let Some(runs) = runs {
            self.active_job_ids.clear();
            for run in runs {
                if !self.active_job_ids.iter().any(|id| id == run.job_id.as_str()) {
                    self.active_job_ids.push(run.job_id.as_str().to_owned());
                }
            }
        }
        if let Some(queue) = queue {
            self.queue_depth = u32::try_from(queue.depth).unwrap_or(u32::MAX);
        }
    }

    fn send(&mut self, neighbours: &HeartbeatNeighbours) -> ResponseActFuture<Self, ()> {
        let sending = timeout(NEIGHBOUR_LIMIT, neighbours.submit.send(Submit::new(self.message())));
        Box::pin(sending.into_actor(self).map(|answer, _, _| match answer {
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(QueueError::NotConnected))) => tracing::debug!("heartbeat not sent: the link is gone"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "heartbeat not sent"),
            Ok(Err(_)) => tracing::warn!("heartbeat not sent: the queue is restarting"),
            Err(_) => tracing::warn!("heartbeat not sent: the queue does not answer"),
        }))
    }
}

impl Actor for Heartbeat {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.tell();
    }
}

impl Handler<Beat> for Heartbeat {
    type Result = ();

    fn handle(&mut self, Beat(generation): Beat, ctx: &mut Self::Context) {
        let Some(link) = self.link.as_ref().filter(|link| link.generation == generation) else { return };
        let limit = NEIGHBOUR_LIMIT.min(link.interval / 2);
        self.schedule(ctx);
        let Some(neighbours) = self.neighbours.clone() else { return };
        if self.link.as_ref().is_some_and(|link| link.busy.is_some()) {
            return;
        }
        let asked = neighbours.clone();
        let asking = async move {
            let runs = timeout(limit, asked.runs.send(GetRuns));
            let queue = timeout(limit, asked.queue_status.send(GetQueueStatus));
            let (runs, queue) = futures_util::future::join(runs, queue).await;
            (runs.ok().and_then(Result::ok), queue.ok().and_then(Result::ok))
        };
        let beat = ctx.spawn(
            asking
                .into_actor(self)
                .then(move |(runs, queue), act, _| {
                    act.note(runs, queue);
                    act.send(&neighbours)
                })
                .map(|(), act, _| act.beat_is_out()),
        );
        if let Some(link) = self.link.as_mut() {
            link.busy = Some(beat);
        }
    }
}

impl Handler<LinkUp> for Heartbeat {
    type Result = ();

    fn handle(&mut self, up: LinkUp, ctx: &mut Self::Context) {
        self.drop_link(ctx);
        self.link = Some(Link {
            generation: up.generation,
            interval: up.heartbeat_interval.max(MIN_INTERVAL),
            next: Instant::now(),
            timer: SpawnHandle::default(),
            busy: None,
        });
        ctx.notify(Beat(up.generation));
    }
}

impl Handler<LinkLost> for Heartbeat {
    type Result = ();

    fn handle(&mut self, lost: LinkLost, ctx: &mut Self::Context) {
        if self.link.as_ref().is_some_and(|link| link.generation == lost.generation) {
            self.drop_link(ctx);
        }
    }
}

impl Handler<Configured> for Heartbeat {
    type Result = ();

    fn handle(&mut self, Configured(plan): Configured, _: &mut Self::Context) {
        self.config_version = plan.version;
    }
}

impl Handler<HeartbeatNeighbours> for Heartbeat {
    type Result = ();

    fn handle(&mut self, neighbours: HeartbeatNeighbours, _: &mut Self::Context) {
        self.neighbours = Some(neighbours);
    }
}

impl Handler<AreYouThere> for Heartbeat {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

impl Handler<Quit> for Heartbeat {
    type Result = ();

    fn handle(&mut self, _: Quit, ctx: &mut Self::Context) {
        self.drop_link(ctx);
        self.life.ends_as(ChildExit::Stopped);
        ctx.stop();
    }
}
