//! Where the sealed stream goes: into a spool, or up in parts while it is made.

use super::error::RunError;
use super::upload::parts::{PartSink, PartWriter};
use crate::spool::{Room, Spool, SpoolWriter};
use std::io::{self, Write};
use std::sync::Arc;

/// One of the two. Clones are the same one.
#[derive(Clone, Debug)]
pub enum Outlet {
    /// To the disk.
    Spool(Arc<Spool>),
    /// To the store.
    Parts(Arc<PartSink>),
}

impl Outlet {
    /// A writer at the object's beginning; what an earlier one wrote is void.
    ///
    /// # Errors
    /// [`RunError`]
    pub fn begin(&self, room: &Room) -> Result<OutletWriter<'_>, RunError> {
        Ok(match self {
            Self::Spool(spool) => OutletWriter::Spool(spool.writer(room)?),
            Self::Parts(sink) => OutletWriter::Parts(sink.begin()?),
        })
    }

    /// Told before the first byte: what the engine expects, before compression.
    pub fn expect(&self, bytes: u64) {
        match self {
            Self::Spool(_) => {}
            Self::Parts(sink) => sink.expect(bytes),
        }
    }

    /// The whole object will lie on the disk.
    pub fn fills_disk(&self) -> bool {
        match self {
            Self::Spool(_) => true,
            Self::Parts(_) => false,
        }
    }
}

/// Writes one object.
pub enum OutletWriter<'a> {
    /// To the disk.
    Spool(SpoolWriter),
    /// To the store.
    Parts(PartWriter<'a>),
}

impl OutletWriter<'_> {
    /// The object is whole.
    pub fn end(self) -> io::Result<()> {
        match self {
            Self::Spool(_) => Ok(()),
            Self::Parts(writer) => writer.end(),
        }
    }
}

impl Write for OutletWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Spool(writer) => writer.write(bytes),
            Self::Parts(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Spool(writer) => writer.flush(),
            Self::Parts(writer) => writer.flush(),
        }
    }
}
