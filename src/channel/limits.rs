//! The channel's numbers (protocol section 1, behaviour section 2), each with its reason.

use std::time::Duration;

/// DNS, TCP, TLS and upgrade together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// An address that has not answered for so long gets company: the next one is tried beside it
/// (RFC 8305 section 5). A dead first address must not eat the dial's time.
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// From the upgrade to RegisterAck.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);

/// No frame of any kind for so long means that nobody is there.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// One write. A peer that takes nothing for so long is stuck.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// From a delivery barrier's ping to its pong: the server must first read what stands before it.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(30);

/// From a durable message to its end-to-end ack, counted for the oldest that waits: as for the barrier,
/// the server commits what stands before it first.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Where RegisterAck gives no interval.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// Own WebSocket pings come at least so often, however rare the heartbeats: their pongs are what
/// keeps a quiet, healthy link from looking dead after [`IDLE_TIMEOUT`].
pub const MAX_PING_INTERVAL: Duration = Duration::from_secs(30);

/// What the peer gets to answer our close frame. Short: shutdown waits for it.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A neighbour (Queue, Dispatcher) that has not answered for so long is taken for dead. Well under
/// [`IDLE_TIMEOUT`]: while it is waited for, reading may stand still.
pub const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(30);

/// What the kernel may keep unacknowledged before it gives a connection up: between one lost packet
/// and [`IDLE_TIMEOUT`], so that a half-open link is found while something is being sent.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);

/// Fragments without content cost no bytes of the message's cap, so they are counted.
pub const MAX_EMPTY_FRAGMENTS: usize = 128;

/// RFC 6455 section 5.5.
pub const MAX_CONTROL_PAYLOAD_BYTES: usize = 125;
