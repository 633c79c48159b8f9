//! What the server hears of its commands.

use super::neighbours::{Neighbours, Silent};
use crate::actors::messages::{QueueError, Refusal, Submit};
use crate::wire::{Payload, v1};

/// How often an answer is offered to a Queue whose store is restarting.
const ATTEMPTS: u32 = 3;

impl Neighbours {
    /// Rule 4 of the protocol's section 4.
    pub(super) async fn ack(&mut self, correlation_id: String, answer: Result<(), Refusal>) {
        let (accepted, reason) = match answer {
            Ok(()) => (true, String::new()),
            Err(refusal) => (false, refusal.to_string()),
        };
        let payload = Payload::Ack(v1::Ack { correlation_id: correlation_id.clone(), accepted, reason });
        self.say(payload, correlation_id).await;
    }

    /// Durable: the Queue answers once it is on disk. Where the disk does not take it, the server still hears it if the
    /// link is up.
    pub(super) async fn say(&mut self, payload: Payload, correlation_id: String) {
        let durable = Submit::new(payload.clone()).answering(correlation_id.clone());
        for _ in 0..ATTEMPTS {
            match self.ask(|_| (), |n| &n.submit, durable.clone()).await {
                Ok(Ok(_)) => return,
                Ok(Err(QueueError::StoreGone)) => self.pause().await,
                Ok(Err(error)) => {
                    tracing::warn!(correlation_id, %error, "answer not stored: sent without");
                    break;
                }
                Err(Silent) => break,
            }
        }
        match self.ask(|_| (), |n| &n.submit, Submit::ephemeral(payload, correlation_id.clone())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(correlation_id, %error, "command not answered"),
            Err(Silent) => {
                tracing::warn!(correlation_id, "command not answered: the queue does not answer");
            }
        }
    }
}
