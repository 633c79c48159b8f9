//! The spool as a request's body, which tells how it goes.

use super::super::progress::Progress;
use super::super::rate::Rate;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// Read at once: large enough to make system calls rare; the connection keeps only a few of them.
const READ_LEN: usize = 256 * 1024;

/// What is known of a body while it goes out.
pub struct Flow {
    moved_at: Cell<Instant>,
    sent: Cell<u64>,
    total: u64,
}

impl Flow {
    /// Nothing sent.
    pub fn new(total: u64) -> Rc<Self> {
        Rc::new(Self { moved_at: Cell::new(Instant::now()), sent: Cell::new(0), total })
    }

    /// When the connection last asked for more.
    pub fn moved_at(&self) -> Instant {
        self.moved_at.get()
    }

    /// Whether the body was asked for at all.
    pub fn begun(&self) -> bool {
        self.sent.get() > 0
    }

    /// Whether all of it was handed over.
    pub fn complete(&self) -> bool {
        self.sent.get() >= self.total
    }
}

/// The file's bytes. Reads block: the runtime is the run's own, and a spool was written a moment ago.
pub struct Body {
    file: File,
    flow: Rc<Flow>,
    progress: Progress,
    rate: Rate,
    /// Until then the limit lets nothing through.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// From the file's position to its end.
    pub fn new(file: File, flow: Rc<Flow>, progress: Progress, rate: Rate) -> Self {
        Self { file, flow, progress, rate, pause: None }
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            // The store is not the one that is slow.
            this.flow.moved_at.set(Instant::now());
            std::task::ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let left = this.flow.total.saturating_sub(this.flow.sent.get());
        this.flow.moved_at.set(Instant::now());
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk =
            BytesMut::zeroed(this.rate.portion(READ_LEN.min(usize::try_from(left).unwrap_or(READ_LEN))));
        Poll::Ready(Some(match this.file.read_exact(&mut chunk) {
            Ok(()) => {
                let until = this.rate.take(chunk.len() as u64, std::time::Instant::now());
                this.pause = until.map(|until| Box::pin(sleep_until(until.into())));
                let sent = this.flow.sent.get() + chunk.len() as u64;
                this.flow.sent.set(sent);
                this.progress.uploading(sent, this.flow.total);
                Ok(chunk.freeze())
            }
            Err(error) => Err(error),
        }))
    }
}
