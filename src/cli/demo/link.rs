//! The cable between agent and control plane: a relay on loopback that can be counted, slowed and cut. It carries
//! TLS that neither of its ends lets it see into.

use anyhow::Result;
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep_until;

/// What is relayed at once: small enough that a slow link is smooth.
const PIECE: usize = 64 * 1024;

/// A relay to one address. Ends with the last handle.
pub struct Link {
    port: u16,
    cable: Rc<Cable>,
}

struct Cable {
    /// False while it is cut.
    whole: watch::Sender<bool>,
    /// From the agent since the last [`Link::reset`].
    sent: Cell<u64>,
    bytes_per_s: Cell<Option<u64>>,
    /// A slowed cable is busy until then.
    busy_until: Cell<Instant>,
}

impl Link {
    /// Listens on a free port of loopback and relays to `to`.
    ///
    /// # Errors
    /// When loopback has no port to give.
    pub async fn lay(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let cable = Rc::new(Cable {
            whole: watch::Sender::new(true),
            sent: Cell::new(0),
            bytes_per_s: Cell::new(None),
            busy_until: Cell::new(Instant::now()),
        });
        let relay = Rc::downgrade(&cable);
        actix_rt::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let Some(cable) = relay.upgrade() else { return };
                actix_rt::spawn(carry(agent, to, cable));
            }
        });
        Ok(Self { port, cable })
    }

    /// Where the agent dials.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes from the agent since the last [`Link::reset`].
    pub fn sent(&self) -> u64 {
        self.cable.sent.get()
    }

    /// Counts from 0 again.
    pub fn reset(&self) {
        self.cable.sent.set(0);
    }

    /// Slows what the agent sends, all connections together; None lets it go as fast as it can.
    pub fn slow(&self, bytes_per_s: Option<u64>) {
        self.cable.bytes_per_s.set(bytes_per_s);
    }

    /// Cuts every connection, and every new one at once.
    pub fn cut(&self) {
        self.cable.whole.send_replace(false);
    }

    /// Plugs it in again.
    pub fn mend(&self) {
        self.cable.whole.send_replace(true);
    }
}

/// One connection, until an end closes it or the cable is cut.
async fn carry(agent: TcpStream, to: SocketAddr, cable: Rc<Cable>) {
    let mut whole = cable.whole.subscribe();
    if !*whole.borrow() {
        return;
    }
    let Ok(plane) = TcpStream::connect(to).await else { return };
    let (mut agent_out, mut agent_in) = agent.into_split();
    let (mut plane_out, mut plane_in) = plane.into_split();
    let back = tokio::io::copy(&mut plane_out, &mut agent_in);
    let forth = async {
        let mut piece = vec![0; PIECE];
        loop {
            let read = agent_out.read(&mut piece).await?;
            if read == 0 {
                return plane_in.shutdown().await;
            }
            plane_in.write_all(piece.get(..read).unwrap_or_default()).await?;
            cable.sent.set(cable.sent.get() + read as u64);
            if let Some(rate) = cable.bytes_per_s.get() {
                let begin = cable.busy_until.get().max(Instant::now());
                let end = begin + Duration::from_secs_f64(read as f64 / rate as f64);
                cable.busy_until.set(end);
                sleep_until(end.into()).await;
            }
        }
    };
    tokio::select! {
        _ = async { tokio::join!(back, forth) } => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
