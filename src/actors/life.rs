//! One life of a child: what it tells the Supervisor when it ends.

use super::messages::{ChildDown, ChildExit, ChildName, Generation};
use actix::prelude::*;

/// Held by every child; told from `stopped()`. A life that records no reason did not reach an end of
/// its own: a handler panicked.
#[derive(Debug)]
pub struct Life {
    child: ChildName,
    generation: Generation,
    supervisor: Recipient<ChildDown>,
    exit: ChildExit,
}

impl Life {
    /// A life that begins.
    pub fn new(child: ChildName, generation: Generation, supervisor: Recipient<ChildDown>) -> Self {
        Self { child, generation, supervisor, exit: ChildExit::Panicked }
    }

    /// Which life of this child.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Records why it will end, before `ctx.stop()`.
    pub fn ends_as(&mut self, exit: ChildExit) {
        self.exit = exit;
    }

    /// The last thing a child does.
    pub fn tell(&self) {
        self.supervisor.do_send(ChildDown {
            child: self.child,
            generation: self.generation,
            exit: self.exit.clone(),
        });
    }
}
