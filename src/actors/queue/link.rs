//! A link that is up, as the Queue sees it.

use super::flight::Flight;
use crate::actors::messages::{Generation, LinkUp, Transmit};
use actix::prelude::*;

/// One connection's end of the Queue.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: Generation,
    pub(super) transmit: Recipient<Transmit>,
    /// Told apart from a link of the same generation that came before.
    pub(super) epoch: u64,
    /// A `Transmit` is not answered yet: the next one waits, so that the order is ours.
    pub(super) writing: bool,
    /// Something urgent went last: the durable messages have their turn.
    pub(super) durable_next: bool,
    pub(super) flight: Flight,
}

impl Link {
    pub(super) fn new(up: LinkUp, epoch: u64) -> Self {
        let LinkUp { generation, link: transmit, heartbeat_interval: _, confirms } = up;
        let flight = Flight::new(confirms);
        Self { generation, transmit, epoch, writing: false, durable_next: false, flight }
    }
}
