//! What a run has to say, on its way to the server's log: live, bounded, never in the way of a result.

use super::Runner;
use super::table::Run;
use crate::actors::messages::Submit;
use crate::model::{Completed, EventLevel, JobId, RunEvent, RunId, RunOrder};
use crate::telemetry::redact;
use crate::wire::convert;
use actix::prelude::*;

/// A backup that is smaller than this part of the last good one of its job is worth a look.
const SUSPICIOUS_PART: u64 = 2;

impl Runner {
    /// What the run said since the last time. Called once a second, so what a run keeps is also its rate.
    pub(super) fn tell_events(&mut self, id: &RunId, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        let order = run.order.clone();
        let Some(running) = run.running() else { return };
        let events = running.progress.take_events();
        running.left_out += running.progress.take_left_out();
        self.log(&order, events, ctx);
    }

    /// Hands them to the Queue, in order. A log is not worth waiting for: what it does not take is only counted.
    pub(super) fn log(&mut self, order: &RunOrder, events: Vec<RunEvent>, ctx: &mut Context<Self>) {
        for mut event in events {
            event.message = redact(&event.message).into_owned();
            for (_, value) in &mut event.fields {
                *value = redact(value).into_owned();
            }
            let Some(sending) = self.doors.hand_over(Submit::new(convert::run_log(order, event))) else {
                return;
            };
            let run_id = order.run_id.clone();
            let told = async move {
                if let Ok(Err(error)) = sending.await {
                    tracing::warn!(%run_id, %error, "a run's log event was not taken");
                }
            };
            ctx.spawn(told.into_actor(self));
        }
    }

    /// What was too much is not passed over in silence.
    pub(super) fn log_left_out(&mut self, order: &RunOrder, count: u64, ctx: &mut Context<Self>) {
        if count > 0 {
            let event = RunEvent {
                ts_ms: self.now_ms(),
                level: EventLevel::Warn,
                message: format!("{count} log events of this run were left out: they were too many"),
                fields: vec![("left_out", count.to_string())],
            };
            self.log(order, vec![event], ctx);
        }
    }

    /// A backup that shrank to less than half may be an empty database, or the wrong one.
    pub(super) fn hold_against_last(&mut self, job: &JobId, id: &RunId, now: &Completed) {
        let Some(last) = self.table.last_good(job) else { return };
        // Another compression has another size.
        if last.compression != now.compression || now.size_bytes >= last.size_bytes / SUSPICIOUS_PART {
            return;
        }
        let (size_bytes, last_size_bytes) = (now.size_bytes, last.size_bytes);
        tracing::warn!(run_id = %id, job_id = %job, size_bytes, last_size_bytes, "backup is less than half of the last good one");
        if let Some(running) = self.table.get(id).and_then(Run::running) {
            let fields = vec![
                ("size_bytes", size_bytes.to_string()),
                ("last_size_bytes", last_size_bytes.to_string()),
            ];
            let text = "the backup is less than half as large as the last good one of its job: look whether the database has what it should have";
            running.progress.warn(text, fields);
        }
    }
}
