//! Runs of an earlier life.

use super::going::too_late;
use super::table::Run;
use super::verdict::out_of_time;
use super::{Early, Runner};
use crate::model::{Plan, RunId, RunOutcome, RunPhase, TargetSpec};
use crate::store::Recovered;
use crate::wire::{convert, v1};
use actix::prelude::*;
use prost::Message as _;
use std::sync::Arc;

impl Runner {
    /// Asks the store once for what an earlier life left.
    pub(super) fn recover(&mut self, ctx: &mut Context<Self>) {
        if self.recovering || self.recovered {
            return;
        }
        self.recovering = true;
        let doors = self.doors.clone();
        let asking = async move { doors.recover().await };
        ctx.spawn(asking.into_actor(self).map(|answer, act, ctx| match answer {
            Ok(recovered) => act.take_up(recovered, ctx),
            Err(error) => tracing::warn!(%error, "runs of an earlier life were not recovered"),
        }));
    }

    fn take_up(&mut self, recovered: Recovered, ctx: &mut Context<Self>) {
        // The Dispatcher will tell the plan as well; a run's job must be known before that.
        if self.plan.is_none() {
            self.plan = stored_plan(&recovered).map(Arc::new);
        }
        let mut forgotten = Vec::new();
        let mut lost = Vec::new();
        let mut ended = Vec::new();
        let mut targets = Vec::new();
        for record in recovered.runs {
            let mut run = Run::waiting(record.order, record.accepted_at_ms);
            match record.phase {
                RunPhase::Finished { outcome, .. } => {
                    forgotten.extend(self.table.keep(run.order, outcome));
                    continue;
                }
                RunPhase::Accepted => {}
                RunPhase::Started { at_ms, outcome } => {
                    run.interrupted = true;
                    run.started_ms = Some(at_ms);
                    targets.extend(self.target_of(&run).cloned());
                    if let Some(outcome) = outcome {
                        ended.push((run.order.run_id.clone(), outcome));
                        self.table.runs.push(run);
                        continue;
                    }
                }
            }
            match self.why_lost(&run) {
                Some(error) => lost.push((run.order.run_id.clone(), error)),
                None => {
                    tracing::info!(run_id = %run.order.run_id, job_id = %run.order.job_id, "run taken up again");
                }
            }
            self.table.runs.push(run);
        }
        let over = |run: &Run| {
            let id = &run.order.run_id;
            lost.iter().any(|(lost, _)| lost == id) || ended.iter().any(|(ended, _)| ended == id)
        };
        let goes_on: Vec<RunId> =
            self.table.runs.iter().filter(|run| !over(run)).map(|run| run.order.run_id.clone()).collect();
        self.executor.clear_leftovers(&goes_on, targets);
        self.recovered = true;
        self.forget(forgotten, ctx);
        self.give_up(lost, ctx);
        for (id, outcome) in ended {
            self.end_of_earlier_life(&id, outcome, ctx);
        }
        for early in std::mem::take(&mut self.early) {
            match early {
                Early::Order(order, answer) => self.take_order(*order, answer, ctx),
                Early::Cancel(job, answer) => self.cancel_job(&job, answer, ctx),
            }
        }
        self.take_turns(ctx);
    }

    fn target_of(&self, run: &Run) -> Option<&TargetSpec> {
        let plan = self.plan.as_ref()?;
        plan.target(&plan.job(&run.order.job_id)?.target_id)
    }

    fn why_lost(&self, run: &Run) -> Option<String> {
        if let Some(error) = too_late(run, self.now_ms()) {
            return Some(error);
        }
        // Without a plan nothing is known yet: the run waits for the server's.
        match self.plan.as_ref()?.job(&run.order.job_id) {
            Some(job) => out_of_time(run, job.timeout, self.now_ms()),
            None => Some(format!(
                "the agent was interrupted, and job \"{}\" is no longer in its configuration",
                run.order.job_id
            )),
        }
    }

    pub(super) fn give_up(&mut self, lost: Vec<(RunId, String)>, ctx: &mut Context<Self>) {
        for (id, error) in lost {
            self.finish(&id, RunOutcome::Failed { error }, None, ctx);
        }
    }
}

fn stored_plan(recovered: &Recovered) -> Option<Plan> {
    let (_, config) = recovered.config.as_ref()?;
    match v1::AgentConfig::decode(config.as_ref()) {
        Ok(config) => Some(convert::plan(config).plan),
        Err(error) => {
            tracing::error!(%error, "the stored configuration cannot be read: waiting for the server's");
            None
        }
    }
}
