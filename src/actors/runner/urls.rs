//! Fresh upload URLs: a run asks for them, and the same order that comes again brings them.

use super::Runner;
use crate::actors::messages::Submit;
use crate::backup::{FreshUrls, upload_deadline_ms};
use crate::model::{RunId, RunOrder};
use crate::store::Change;
use crate::wire::convert;
use actix::prelude::*;

impl Runner {
    /// Passes a run's question on. Without a link it stays where it is, and is passed on a second later.
    pub(super) fn ask_for_urls(&mut self, id: &RunId, ctx: &mut Context<Self>) {
        let Some(run) = self.table.get(id) else { return };
        let order = run.order.clone();
        let Some(running) = run.running() else { return };
        let Some(wanted) = running.progress.urls().question() else { return };
        let progress = running.progress.clone();
        let payload = convert::upload_urls_request(&order, wanted.first_part, wanted.part_count);
        let question = Submit::ephemeral(payload, format!("urls:{}", order.run_id));
        let Some(sending) = self.doors.hand_over(question) else { return };
        let asking = async move {
            match sending.await {
                Ok(Ok(_)) => {
                    tracing::info!(run_id = %order.run_id, first_part = wanted.first_part, "fresh upload URLs asked for");
                    progress.urls().sent();
                }
                Ok(Err(error)) => {
                    tracing::debug!(run_id = %order.run_id, %error, "the server could not be asked for upload URLs");
                }
                Err(_) => {}
            }
        };
        ctx.spawn(asking.into_actor(self));
    }

    /// An order whose run is known: it may bring URLs that live longer, or that were asked for.
    pub(super) fn renew(&mut self, order: &RunOrder, ctx: &mut Context<Self>) {
        let now_ms = self.now_ms();
        let Some(run) = self.table.get(&order.run_id).filter(|run| run.order.job_id == order.job_id) else {
            return;
        };
        let same_key = run.order.s3_key == order.s3_key && run.order.dek == order.dek;
        if !same_key || !order.has_upload_url() || *order == run.order {
            return;
        }
        let (until_ms, known_ms) =
            (upload_deadline_ms(order, now_ms), upload_deadline_ms(&run.order, run.accepted_at_ms));
        let upload = |order: &RunOrder| order.multipart.as_ref().map(|multipart| multipart.upload_id.clone());
        let another = upload(order) != upload(&run.order);
        if let Some(running) = run.running() {
            running.progress.urls().give(FreshUrls::of(order, now_ms));
        }
        let Some(phase) = run.phase() else { return };
        // A later life should begin with what lives longest, and give up what is there. URLs of the parts before these
        // are asked for where they are needed.
        if until_ms < known_ms || until_ms == known_ms && !another {
            return;
        }
        run.order.put_url = order.put_url.clone();
        run.order.expires_at_ms = order.expires_at_ms;
        run.order.multipart.clone_from(&order.multipart);
        let put = Change::PutRun(Box::new(run.record(phase)));
        tracing::info!(run_id = %order.run_id, "the run has fresh upload URLs");
        let doors = self.doors.clone();
        let storing = async move {
            if let Err(error) = doors.commit_now(put).await {
                tracing::warn!(%error, "fresh upload URLs could not be stored: they hold for this life of the agent");
            }
        };
        ctx.spawn(storing.into_actor(self));
    }
}
