//! Whose turn it is: at most so many at once, one per target, none in the maintenance window that nobody
//! started by hand.

use super::Runner;
use super::doors::Patience;
use super::going::too_late;
use super::table::{Run, Stage};
use crate::actors::messages::Submit;
use crate::backup::upload_deadline_ms;
use crate::model::MaintenanceWindow;
use crate::wire::convert;
use actix::prelude::*;
use std::time::Duration;

const MINUTE_MS: u64 = 60_000;
const DAY_MIN: u64 = 24 * 60;

/// The clock and the timers run apart a little: waking up just before the end must not make a busy loop.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

/// How long the window still holds runs; None outside of it.
pub fn held_for(window: Option<MaintenanceWindow>, now_ms: u64) -> Option<Duration> {
    let window = window?;
    let minute = (now_ms / MINUTE_MS) % DAY_MIN;
    if !window.contains(u16::try_from(minute).ok()?) {
        return None;
    }
    let minutes = (u64::from(window.end_min) + DAY_MIN - minute) % DAY_MIN;
    let left_ms = (minutes * MINUTE_MS).saturating_sub(now_ms % MINUTE_MS);
    Some(Duration::from_millis(left_ms).max(SHORTEST_HOLD))
}

/// While something waits the host's clock is looked at so often: it may be set, or the host suspended, and timers know
/// of neither.
const LONGEST_WATCH: Duration = Duration::from_secs(60);

impl Runner {
    /// Whether the run would start at once if it came now.
    pub(super) fn could_start(&self, run: &Run) -> bool {
        let plan = self.plan();
        let held = !run.order.manual && held_for(plan.maintenance, self.now_ms()).is_some();
        let Some(job) = plan.job(&run.order.job_id) else { return true };
        !held && self.table.going() < plan.max_parallel_jobs.max(1) && !self.table.on_target(&job.target_id)
    }

    /// Starts what can be started, tells the server what waits, and wakes up when the window ends.
    pub(super) fn take_turns(&mut self, ctx: &mut Context<Self>) {
        if !self.recovered || self.plan.is_none() || self.quitting.is_some() {
            return;
        }
        // One at a time: each start changes what the next one may do.
        while let Some(id) = self
            .table
            .runs
            .iter()
            .find(|run| matches!(run.stage, Stage::Waiting) && self.could_start(run))
            .map(|run| run.order.run_id.clone())
        {
            self.begin(&id, ctx);
        }
        self.announce(ctx);
        self.watch_window(ctx);
        self.watch_expiry(ctx);
    }

    /// A run that waits past the end of its URL can not end well any more: it is told when that happens, not when its
    /// turn would have come.
    fn watch_expiry(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.expiry_timer.take() {
            ctx.cancel_future(timer);
        }
        let now_ms = self.now_ms();
        let waiting = self.table.runs.iter().filter(|run| matches!(run.stage, Stage::Waiting));
        let (late, patient): (Vec<_>, Vec<_>) = waiting.partition(|run| too_late(run, now_ms).is_some());
        let next_ms = patient.iter().map(|run| upload_deadline_ms(&run.order, run.accepted_at_ms)).min();
        let late: Vec<_> =
            late.iter().filter_map(|run| Some((run.order.run_id.clone(), too_late(run, now_ms)?))).collect();
        self.give_up(late, ctx);
        if let Some(next_ms) = next_ms {
            let wait =
                Duration::from_millis(next_ms.saturating_sub(now_ms)).clamp(SHORTEST_HOLD, LONGEST_WATCH);
            self.expiry_timer = Some(ctx.run_later(wait, |act, ctx| {
                act.expiry_timer = None;
                act.watch_expiry(ctx);
            }));
        }
    }

    /// QUEUED, once a run, where it was not told with its acceptance.
    fn announce(&mut self, ctx: &mut Context<Self>) {
        let mut news = Vec::new();
        for run in &mut self.table.runs {
            if matches!(run.stage, Stage::Waiting) && !run.announced {
                run.announced = true;
                news.push(Submit::new(convert::run_queued(&run.order)));
            }
        }
        for queued in news {
            let doors = self.doors.clone();
            let telling = async move {
                if let Err(error) = doors.submit(queued, Patience::Short).await {
                    tracing::warn!(%error, "the server could not be told that a run waits");
                }
            };
            ctx.spawn(telling.into_actor(self));
        }
    }

    fn watch_window(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.window_timer.take() {
            ctx.cancel_future(timer);
        }
        let waits = |run: &Run| matches!(run.stage, Stage::Waiting) && !run.order.manual;
        let any = self.table.runs.iter().any(waits);
        let hold = held_for(self.plan().maintenance, self.now_ms()).filter(|_| any);
        let held = std::mem::replace(&mut self.window_holds, hold.is_some());
        if let Some(hold) = hold {
            if !held {
                tracing::info!(hold_s = hold.as_secs(), "the maintenance window holds runs");
            }
            self.window_timer = Some(ctx.run_later(hold.min(LONGEST_WATCH), |act, ctx| {
                act.window_timer = None;
                act.take_turns(ctx);
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u64, minute: u64, second: u64) -> u64 {
        20_000 * 86_400_000 + (hour * 3600 + minute * 60 + second) * 1000
    }

    #[test]
    fn the_window_holds_until_its_end_also_over_midnight() {
        let window = |start_min, end_min| Some(MaintenanceWindow { start_min, end_min });
        let minutes = |n: u64| Some(Duration::from_secs(n * 60));
        assert_eq!(held_for(None, at(2, 0, 0)), None);
        let night = window(120, 240);
        assert_eq!(held_for(night, at(1, 59, 59)), None);
        assert_eq!(held_for(night, at(2, 0, 0)), minutes(120));
        assert_eq!(held_for(night, at(3, 59, 30)), Some(Duration::from_secs(30)));
        assert_eq!(held_for(night, at(4, 0, 0)), None);
        let over = window(1380, 60);
        assert_eq!(held_for(over, at(23, 0, 0)), minutes(120));
        assert_eq!(held_for(over, at(0, 30, 0)), minutes(30));
        assert_eq!(held_for(over, at(1, 0, 0)), None);
        assert_eq!(held_for(over, at(0, 59, 59) + 900), Some(SHORTEST_HOLD));
        assert_eq!(held_for(window(60, 60), at(1, 0, 0)), None, "an empty window holds nothing");
    }
}
