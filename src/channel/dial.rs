//! What a dial gives: a door that tests open with channels in memory, and the daemon with a socket.

use super::DialError;
use super::frame::{Frame, FrameError};
use futures_util::future::LocalBoxFuture;
use futures_util::{Sink, Stream};
use std::pin::Pin;

/// Takes frames; `close` shuts the socket down.
pub type LinkSink = Pin<Box<dyn Sink<Frame, Error = FrameError>>>;

/// Gives frames, each judged by its header before it was in memory. Ends with the socket.
pub type LinkStream = Pin<Box<dyn Stream<Item = Result<Frame, FrameError>>>>;

/// A WebSocket whose upgrade is done.
pub struct Link {
    /// Towards the peer.
    pub sink: LinkSink,
    /// From the peer.
    pub stream: LinkStream,
    /// What the upgrade agreed on.
    pub confirms: Confirms,
}

/// How the server confirms durable messages (protocol section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirms {
    /// It answers the WebSocket pings of the delivery barrier, as any server does.
    #[default]
    Pongs,
    /// It selected the subprotocol `backupy.ack.v1`: an `Ack` for each message, after its own commit.
    Acks,
}

/// Makes one connection at a time.
pub trait Dialer {
    /// Who is dialled, as `host:port`, for logs and errors.
    fn host(&self) -> String;

    /// One dial, from the name to the answered upgrade. Whoever calls it sets the limit of time.
    fn dial(&self) -> LocalBoxFuture<'static, Result<Link, DialError>>;
}
