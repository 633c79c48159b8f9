//! Messages that wait in the Queue, and whom to answer.

use super::notice::Told;
use crate::actors::messages::{QueueError, Submitted};
use crate::model::{MessageKind, RunId};
use crate::store::{Change, StoreError};
use crate::wire::{EnvelopeError, MAX_MESSAGE_BYTES, Payload};
use actix::MailboxError;
use tokio::sync::oneshot;

/// What a sender hears.
pub(super) type Answer = Result<Submitted, QueueError>;

/// A durable message that has no seq yet.
#[derive(Debug)]
pub(super) struct Entrant {
    pub(super) payload: Payload,
    pub(super) correlation_id: String,
    pub(super) with: Vec<Change>,
    pub(super) kind: MessageKind,
    /// At least its bytes on disk.
    pub(super) size: u64,
    pub(super) from: Origin,
}

/// A durable message on its way to the disk.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) from: Origin,
    /// The run that it ends.
    pub(super) ended: Option<RunId>,
    /// The reservation of seqs that it brings along.
    pub(super) reservation: Option<u64>,
}

/// Who hears what became of it.
#[derive(Debug)]
pub(super) enum Origin {
    Sender(oneshot::Sender<Answer>),
    /// The queue itself tells what it dropped.
    Notice(Told),
}

/// A message that is sent now or never.
#[derive(Debug)]
pub(super) struct Ephemeral {
    pub(super) payload: Payload,
    pub(super) correlation_id: String,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Senders who hear when what they sent is written.
pub(super) type Senders = Vec<oneshot::Sender<Answer>>;

/// A message that no peer would take.
pub(super) fn not_encoded(error: &EnvelopeError) -> QueueError {
    match error {
        EnvelopeError::TooLarge { bytes } => QueueError::TooLarge { bytes: *bytes, limit: MAX_MESSAGE_BYTES },
        EnvelopeError::TooHeavy { .. } | EnvelopeError::Undecodable(_) => QueueError::NotOurs,
    }
}

/// The store did not do what was asked.
pub(super) fn refusal(answer: Result<Result<(), StoreError>, MailboxError>) -> QueueError {
    match answer {
        Ok(Err(error)) => QueueError::Store(error),
        Ok(Ok(())) | Err(MailboxError::Closed | MailboxError::Timeout) => QueueError::StoreGone,
    }
}
