//! The disk has no room for new work: it is refused here, before it takes a seq, and when there is room
//! again the server is told.

use super::Queue;
use super::waiting::{Entrant, Origin};
use crate::actors::messages::{QueueError, RoomChanged};
use crate::model::{MessageKind, unix_ms};
use crate::store::{self, Change, StoreError};
use crate::wire::{self, Payload, v1};
use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Since when new work is refused, and why.
#[derive(Debug)]
pub(super) struct Trouble {
    why: StoreError,
    since: Instant,
    /// Messages that were refused.
    refused: u64,
}

impl Queue {
    /// What is accepted already goes on to the store, which has room for it or not.
    pub(super) fn refuse_new_work(&mut self, kind: MessageKind, with: &[Change]) -> Result<(), QueueError> {
        let is_new = store::is_new_work(kind) || with.iter().any(Change::is_new_work);
        match self.trouble.as_mut().filter(|_| is_new) {
            Some(trouble) => {
                trouble.refused += 1;
                Err(QueueError::Store(trouble.why.clone()))
            }
            None => Ok(()),
        }
    }

    /// Tells the server what it could not be told meanwhile.
    fn tell_recovered(&mut self, trouble: &Trouble, ctx: &mut Context<Self>) {
        let payload = recovered(trouble);
        let size = wire::size_bound("", &payload) as u64;
        let (answer, _) = oneshot::channel();
        let entrant = Entrant {
            payload,
            correlation_id: String::new(),
            with: Vec::new(),
            kind: MessageKind::Log,
            size,
            from: Origin::Sender(answer),
        };
        self.enter(entrant, ctx);
    }
}

fn recovered(Trouble { why, since, refused }: &Trouble) -> Payload {
    let seconds = since.elapsed().as_secs();
    let message = format!(
        "the agent takes on new work again. For {seconds} s it refused new runs, and {refused} health check results and log events were not stored. The reason was: {why}"
    );
    Payload::Log(v1::LogEvent {
        ts_ms: unix_ms(),
        level: v1::LogLevel::Warn.into(),
        message,
        fields: [
            ("refused_messages".to_owned(), refused.to_string()),
            ("seconds".to_owned(), seconds.to_string()),
        ]
        .into(),
        ..v1::LogEvent::default()
    })
}

impl Handler<RoomChanged> for Queue {
    type Result = ();

    fn handle(&mut self, RoomChanged(why): RoomChanged, ctx: &mut Self::Context) {
        match (why, self.trouble.take()) {
            (Some(why), Some(trouble)) => self.trouble = Some(Trouble { why, ..trouble }),
            (Some(why), None) => self.trouble = Some(Trouble { why, since: Instant::now(), refused: 0 }),
            (None, Some(trouble)) => {
                self.tell_recovered(&trouble, ctx);
                self.go_on(ctx);
            }
            (None, None) => {}
        }
    }
}
