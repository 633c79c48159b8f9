//! Orders of the server: a run to take on, a run to stop.

use super::doors::Patience;
use super::table::{Canceller, Run, Stage, Stop};
use super::{Answer, Early, Runner};
use crate::actors::messages::{Refusal, Submit};
use crate::model::{JobId, RunId, RunOrder, RunOutcome, RunPhase};
use crate::store::Change;
use crate::wire::convert;
use actix::prelude::*;
use std::rc::Rc;

impl Runner {
    /// Answers once the order is on disk, or with the reason why not.
    pub(super) fn take_order(&mut self, order: RunOrder, answer: Answer, ctx: &mut Context<Self>) {
        if self.quitting.is_some() {
            let reason = "the agent is ending: send the run again once it is back";
            return refuse(answer, Refusal::NobodyThere(reason));
        }
        if !self.recovered {
            return self.early.push(Early::Order(Box::new(order), answer));
        }
        self.renew(&order, ctx);
        if let Some(run) = self.table.get(&order.run_id) {
            return confirm(answer, &order, &run.order);
        }
        if let Some((known, outcome)) = self.table.finished(&order.run_id) {
            if known.job_id != order.job_id {
                return refuse(answer, Refusal::RunOfAnotherJob(order.run_id));
            }
            let result = Submit::new(convert::run_result(known, outcome));
            tracing::info!(run_id = %order.run_id, "a run that is over was ordered again: sending its result again");
            return self.send_again(result, answer, ctx);
        }
        if let Some((known, waiting)) = self.accepting.get_mut(&order.run_id) {
            if known.job_id != order.job_id {
                return refuse(answer, Refusal::RunOfAnotherJob(order.run_id));
            }
            waiting.push(answer);
            return;
        }
        match self.acceptable(&order) {
            Ok(()) => self.accept(order, answer, ctx),
            Err(refusal) => {
                tracing::warn!(run_id = %order.run_id, job_id = %order.job_id, reason = %refusal, "run refused");
                refuse(answer, refusal);
            }
        }
    }

    /// Whether the configuration has what the order needs, and this agent can do it.
    fn acceptable(&self, order: &RunOrder) -> Result<(), Refusal> {
        if !order.has_upload_url() {
            return Err(Refusal::Other("RunBackup has no presigned_put_url".into()));
        }
        let plan = self.plan();
        let job = plan.job(&order.job_id).ok_or_else(|| Refusal::UnknownJob(order.job_id.clone()))?;
        let target = plan.target(&job.target_id).ok_or_else(|| {
            let text = format!("job \"{}\" names the unknown target \"{}\"", job.id, job.target_id);
            Refusal::Other(text)
        })?;
        self.executor.acceptable(job, target).map_err(Refusal::Other)
    }

    /// Makes the order durable; together with the news that it must wait, where it must.
    fn accept(&mut self, order: RunOrder, answer: Answer, ctx: &mut Context<Self>) {
        let mut run = Run::waiting(order.clone(), self.now_ms());
        run.announced = !self.could_start(&run);
        let put = Change::PutRun(Box::new(run.record(RunPhase::Accepted)));
        self.accepting.insert(order.run_id.clone(), (order, vec![answer]));
        let doors = self.doors.clone();
        let storing = async move {
            let stored = if run.announced {
                let queued = Submit { with: vec![put], ..Submit::new(convert::run_queued(&run.order)) };
                doors.submit(queued, Patience::Short).await
            } else {
                doors.commit(vec![put], Patience::Short).await
            };
            (run, stored)
        };
        ctx.spawn(storing.into_actor(self).map(|(run, stored), act, ctx| act.accepted(run, stored, ctx)));
    }

    fn accepted(&mut self, run: Run, stored: Result<(), String>, ctx: &mut Context<Self>) {
        let Some((_, answers)) = self.accepting.remove(&run.order.run_id) else { return };
        let answer_all = |result: &Result<(), Refusal>| {
            for answer in answers {
                let _ = answer.send(result.clone());
            }
        };
        if let Err(error) = stored {
            tracing::error!(run_id = %run.order.run_id, %error, "run refused: it could not be stored");
            return answer_all(&Err(Refusal::NotStored(error)));
        }
        tracing::info!(run_id = %run.order.run_id, job_id = %run.order.job_id, manual = run.order.manual, "run accepted");
        self.table.runs.push(run);
        answer_all(&Ok(()));
        self.take_turns(ctx);
    }

    fn send_again(&mut self, result: Submit, answer: Answer, ctx: &mut Context<Self>) {
        let doors = self.doors.clone();
        let sending = async move {
            let sent = doors.submit(result, Patience::Short).await;
            let _ = answer.send(sent.map_err(Refusal::ResultNotSent));
        };
        ctx.spawn(sending.into_actor(self));
    }

    /// Stops every run of the job; answers when their ends are on disk.
    pub(super) fn cancel_job(&mut self, job: &JobId, answer: Answer, ctx: &mut Context<Self>) {
        if !self.recovered {
            return self.early.push(Early::Cancel(job.clone(), answer));
        }
        let ids = self.table.of_job(job);
        if ids.is_empty() {
            let known = self.plan().job(job).is_some();
            let why = if known { Refusal::NothingToCancel } else { Refusal::UnknownJob };
            return refuse(answer, why(job.clone()));
        }
        let canceller = Canceller::new(job.clone(), answer);
        for id in &ids {
            if let Some(run) = self.table.get(id) {
                run.cancellers.push(Rc::clone(&canceller));
            }
        }
        // Only the runs have shares now.
        drop(canceller);
        for id in &ids {
            self.cancel_run(id, ctx);
        }
    }

    fn cancel_run(&mut self, id: &RunId, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        tracing::info!(run_id = %id, job_id = %run.order.job_id, "run cancelled");
        match run.stage {
            Stage::Waiting => self.finish(id, RunOutcome::Cancelled, None, ctx),
            Stage::Starting(_) | Stage::Running(_) => self.stop_going(id, Stop::Cancelled, ctx),
            // Its result is told as soon as the disk takes it.
            Stage::Ending => {}
        }
    }
}

fn confirm(answer: Answer, order: &RunOrder, known: &RunOrder) {
    if known.job_id == order.job_id {
        // The Dispatcher may have given up waiting.
        let _ = answer.send(Ok(()));
    } else {
        refuse(answer, Refusal::RunOfAnotherJob(order.run_id.clone()));
    }
}

fn refuse(answer: Answer, refusal: Refusal) {
    let _ = answer.send(Err(refusal));
}
