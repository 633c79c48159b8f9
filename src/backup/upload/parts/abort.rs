//! The end of an upload in parts that comes to nothing: the store drops what it has of it.

use super::super::Options;
use super::super::http::{Body, Broken, Client, Request, Source};
use super::super::place::Place;
use super::Parts;
use crate::model::RunOrder;
use std::time::Duration;
use tokio::time::timeout;

/// A run that was cancelled has 2 s for everything; a store that does not take the abort by then cleans up by its
/// own rules.
pub const ABORT_LIMIT_CANCELLED: Duration = Duration::from_secs(1);

/// A run that failed has more time for it, but its end waits.
pub const ABORT_LIMIT_FAILED: Duration = Duration::from_secs(10);

/// Gives the upload of an order up that will not be used any more, where it has one. An earlier life of the agent may
/// have stored parts, which cost money until then.
pub async fn give_up(order: &RunOrder, options: &Options, limit: Duration) {
    let Some(multipart) = &order.multipart else { return };
    let Ok(place) = Place::new(&multipart.abort_url, options.allow_insecure) else { return };
    match Client::new(place.secure, options) {
        Ok(client) => abort(&client, &place, options, limit).await,
        Err(error) => tracing::warn!(place = %place.shown, %error, "{STAYS}"),
    }
}

impl Parts {
    /// Gives the upload up at the store: what it has of it costs money until then.
    pub async fn abort(&self, limit: Duration) {
        if let Some(place) = self.signed.abort() {
            abort(&self.client, &place, &self.options, limit).await;
        }
    }
}

const STAYS: &str = "an unfinished upload stays at the store: its own rules must remove it";

async fn abort(client: &Client, place: &Place, options: &Options, limit: Duration) {
    let source = Source::Memory(Default::default());
    let body = Body::new(&source, options.rate.clone(), &|_| {});
    let request = Request { method: "DELETE", place, content_type: None, unasked: true, body };
    let what = match timeout(limit, client.send(request)).await {
        Ok(Ok(answer)) if answer.is_success() || answer.status == 404 => {
            tracing::info!(place = %place.shown, "upload in parts given up");
            return;
        }
        Ok(Ok(answer)) => format!("it answered {}", answer.status),
        Ok(Err(Broken::Passing(why) | Broken::Lasting(why))) => why,
        Err(_) => "it did not answer in time".to_owned(),
    };
    tracing::warn!(place = %place.shown, error = %what, "{STAYS}");
}
