//! What the shell and the pump of a connection have in common.

use super::ConnectionNeighbours;
use crate::actors::messages::{Confirms, Generation, LinkChanged, LinkLost, LinkUp, Transmit};
use crate::model::LinkState;
use actix::WeakRecipient;
use actix::prelude::*;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::Notify;

pub(super) struct Shared {
    generation: Generation,
    neighbours: RefCell<ConnectionNeighbours>,
    /// Where to write: set when the actor starts.
    link: RefCell<Option<WeakRecipient<Transmit>>>,
    /// Set once the listeners were told.
    up: Cell<Option<Duration>>,
    /// Known once the upgrade is done.
    confirms: Cell<Confirms>,
    hangup: Notify,
}

impl Shared {
    pub(super) fn new(generation: Generation, neighbours: ConnectionNeighbours) -> Self {
        Self {
            generation,
            neighbours: RefCell::new(neighbours),
            link: RefCell::new(None),
            up: Cell::new(None),
            confirms: Cell::default(),
            hangup: Notify::new(),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// A copy: a borrow must not live across an await.
    pub(super) fn neighbours(&self) -> ConnectionNeighbours {
        self.neighbours.borrow().clone()
    }

    /// Says something to one of them.
    pub(super) fn report<M>(&self, whom: impl FnOnce(&ConnectionNeighbours) -> &Recipient<M>, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
    {
        whom(&self.neighbours.borrow()).do_send(message);
    }

    pub(super) fn started(&self, link: WeakRecipient<Transmit>) {
        *self.link.borrow_mut() = Some(link);
    }

    pub(super) fn upgraded(&self, confirms: Confirms) {
        self.confirms.set(confirms);
    }

    pub(super) fn confirms(&self) -> Confirms {
        self.confirms.get()
    }

    pub(super) fn hang_up(&self) {
        self.hangup.notify_one();
    }

    pub(super) async fn hung_up(&self) {
        self.hangup.notified().await;
    }

    pub(super) fn changed(&self, state: LinkState, session: Option<(String, Duration)>) {
        let (session_id, heartbeat_interval) = session.unzip();
        let changed = LinkChanged { generation: self.generation, state, session_id, heartbeat_interval };
        self.neighbours.borrow().link_changed.do_send(changed);
    }

    pub(super) fn link_up(&self, heartbeat_interval: Duration) {
        self.up.set(Some(heartbeat_interval));
        for listener in &self.neighbours.borrow().listeners {
            self.tell(&listener.up, heartbeat_interval);
        }
    }

    /// Takes the new neighbours; a listener that was not there before hears that the link is up.
    pub(super) fn introduce(&self, neighbours: ConnectionNeighbours) {
        let before = self.neighbours.replace(neighbours);
        let Some(heartbeat_interval) = self.up.get() else { return };
        for listener in &self.neighbours.borrow().listeners {
            if !before.listeners.iter().any(|known| known.up == listener.up) {
                self.tell(&listener.up, heartbeat_interval);
            }
        }
    }

    /// The link is over, for those who know that it was there.
    pub(super) fn link_lost(&self) {
        if self.up.take().is_some() {
            for listener in &self.neighbours.borrow().listeners {
                listener.lost.do_send(LinkLost { generation: self.generation });
            }
        }
    }

    fn tell(&self, listener: &Recipient<LinkUp>, heartbeat_interval: Duration) {
        let link = self.link.borrow().as_ref().and_then(WeakRecipient::upgrade);
        // Without an address the actor is stopping, and the link is lost in a moment.
        if let Some(link) = link {
            let (generation, confirms) = (self.generation, self.confirms());
            listener.do_send(LinkUp { generation, link, heartbeat_interval, confirms });
        }
    }
}
