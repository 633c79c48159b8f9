//! The way out: windows of messages, flushed once each, with control frames passing between their
//! messages instead of waiting behind 4 MiB.

use crate::actors::messages::{Outgoing, Proof};
use crate::channel::LinkDown;
use crate::channel::dial::LinkSink;
use crate::channel::frame::{Frame, FrameError};
use crate::channel::limits::WRITE_TIMEOUT;
use crate::channel::session::Mark;
use crate::wire;
use bytes::Bytes;
use futures_util::SinkExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

/// Pongs that wait to be written. A peer that floods with pings and does not read gets an answer to
/// the last ones only, which RFC 6455 section 5.5.3 allows.
const MAX_WAITING_PONGS: usize = 16;

/// What one `Transmit` asks.
pub(super) struct Window {
    pub(super) envelopes: Vec<Outgoing>,
    pub(super) proof: Proof,
    /// Told after the flush; dropped when the link ends before.
    pub(super) done: oneshot::Sender<()>,
}

/// What went into the socket's buffer, for the session to wait for its answer.
pub(super) enum Written {
    Ping(Mark),
    /// A message to be acknowledged end to end, and the correlation_id that it carries.
    Durable {
        seq: u64,
        own_id: Option<Box<str>>,
    },
}

/// What must go out before the next message of a window.
#[derive(Default)]
pub(super) struct ControlLane {
    register: RefCell<Option<Bytes>>,
    pongs: RefCell<VecDeque<Bytes>>,
    ping: Cell<Option<Mark>>,
    close: RefCell<Option<Frame>>,
    windows_open: Cell<bool>,
    wake: Notify,
}

impl ControlLane {
    pub(super) fn register(&self, envelope: Bytes) {
        *self.register.borrow_mut() = Some(envelope);
        self.wake.notify_one();
    }

    pub(super) fn pong(&self, payload: Bytes) {
        let mut pongs = self.pongs.borrow_mut();
        if pongs.len() == MAX_WAITING_PONGS {
            pongs.pop_front();
        }
        pongs.push_back(payload);
        self.wake.notify_one();
    }

    pub(super) fn ping(&self, mark: Mark) {
        self.ping.set(Some(mark));
        self.wake.notify_one();
    }

    /// The last frame.
    pub(super) fn close(&self, frame: Frame) {
        *self.close.borrow_mut() = Some(frame);
        self.wake.notify_one();
    }

    /// From now on windows are written: the peer knows who speaks.
    pub(super) fn open_windows(&self) {
        self.windows_open.set(true);
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Control> {
        // A goodbye waits for nothing: an answer to a ping is of no use any more.
        if let Some(frame) = self.close.borrow_mut().take() {
            return Some(Control::Close(frame));
        }
        if let Some(envelope) = self.register.borrow_mut().take() {
            return Some(Control::Frame(Frame::binary(envelope)));
        }
        if let Some(payload) = self.pongs.borrow_mut().pop_front() {
            return Some(Control::Frame(Frame::pong(payload)));
        }
        self.ping.take().map(Control::Ping)
    }
}

enum Control {
    Frame(Frame),
    Ping(Mark),
    Close(Frame),
}

/// Whether frames may follow.
#[derive(PartialEq, Eq)]
enum Pace {
    GoOn,
    /// The close frame is on its way: nothing follows it.
    Closed,
}

/// The writing half of a connection.
pub(super) struct Writer<'a> {
    pub(super) sink: &'a mut LinkSink,
    pub(super) lane: &'a ControlLane,
    /// Hears of each as it goes into the socket's buffer, so before its answer can be read. The Queue's
    /// window bounds them.
    pub(super) written: mpsc::UnboundedSender<Written>,
}

impl Writer<'_> {
    /// Writes until the close frame is out.
    ///
    /// # Errors
    /// The end of the link, where a write failed or took more than 10 s.
    pub(super) async fn write(mut self, mut windows: mpsc::Receiver<Window>) -> Result<(), LinkDown> {
        loop {
            let pace = self.feed_control().await?;
            within(self.sink.flush()).await?;
            if pace == Pace::Closed {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.lane.wake.notified() => {}
                Some(window) = windows.recv(), if self.lane.windows_open.get() => {
                    if self.write_window(window).await? == Pace::Closed {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn write_window(&mut self, window: Window) -> Result<Pace, LinkDown> {
        for outgoing in window.envelopes {
            if self.feed_control().await? == Pace::Closed {
                within(self.sink.flush()).await?;
                return Ok(Pace::Closed);
            }
            self.feed_message(outgoing, window.proof).await?;
        }
        match window.proof {
            Proof::Barrier(token) => self.feed_ping(Mark::Barrier(token)).await?,
            Proof::Probe(token) => self.feed_ping(Mark::Probe(token)).await?,
            Proof::None | Proof::Acks => {}
        }
        within(self.sink.flush()).await?;
        // Whoever asked may be gone.
        let _ = window.done.send(());
        Ok(Pace::GoOn)
    }

    async fn feed_message(&mut self, outgoing: Outgoing, proof: Proof) -> Result<(), LinkDown> {
        let Outgoing { seq, envelope } = outgoing;
        let to_be_acked = proof == Proof::Acks;
        let own_id = wire::correlation_id_of(&envelope).filter(|_| to_be_acked).map(Box::from);
        within(self.sink.feed(Frame::binary(envelope))).await?;
        if to_be_acked {
            // The reading half may be gone already; then nobody waits for the ack.
            let _ = self.written.send(Written::Durable { seq, own_id });
        }
        Ok(())
    }

    async fn feed_control(&mut self) -> Result<Pace, LinkDown> {
        while let Some(control) = self.lane.next() {
            match control {
                Control::Frame(frame) => within(self.sink.feed(frame)).await?,
                Control::Ping(mark) => self.feed_ping(mark).await?,
                Control::Close(frame) => {
                    within(self.sink.feed(frame)).await?;
                    return Ok(Pace::Closed);
                }
            }
        }
        Ok(Pace::GoOn)
    }

    async fn feed_ping(&mut self, mark: Mark) -> Result<(), LinkDown> {
        within(self.sink.feed(Frame::ping(mark.payload()))).await?;
        // The reading half may be gone already; then nobody waits for the pong.
        let _ = self.written.send(Written::Ping(mark));
        Ok(())
    }
}

async fn within(write: impl Future<Output = Result<(), FrameError>>) -> Result<(), LinkDown> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(outcome) => outcome.map_err(LinkDown::from),
        Err(_) => Err(LinkDown::WriteTimeout(WRITE_TIMEOUT)),
    }
}
