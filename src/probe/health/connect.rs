//! From a name to a connected socket: resolved at every turn, every address tried.

use super::fault::Fault;
use super::stage::{Mark, Stage};
use super::target::Place;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Names that are resolved at once. The system's resolver blocks a thread, and a dead name server
/// keeps it for many seconds after the check has given up: without a bound a thousand checks would
/// take every thread there is, and the dialer of the control plane would find none.
const MAX_LOOKUPS: usize = 16;

/// Resolves and connects.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    lookups: Arc<Semaphore>,
}

impl Default for Connector {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Connector {
    /// A socket to the first address that takes one, in the resolver's order.
    ///
    /// # Errors
    /// [`Fault::Resolve`], [`Fault::Connect`].
    pub(super) async fn connect(
        &self,
        place: &Place,
        deadline: Instant,
        mark: &Mark,
    ) -> Result<TcpStream, Fault> {
        mark.set(Stage::Resolve);
        let addresses = self.resolve(place).await?;
        mark.set(Stage::Connect);
        let mut tried = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            // A black hole must not eat the time of the addresses after it; the last one has all that is
            // left, and runs into the check's own timeout.
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = match left {
                1 => Duration::MAX,
                _ => deadline.saturating_duration_since(Instant::now()) / left,
            };
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => tried.push((*address, Some(error))),
                Err(_) => tried.push((*address, None)),
            }
        }
        Err(Fault::connect(&tried))
    }

    async fn resolve(&self, place: &Place) -> Result<Vec<SocketAddr>, Fault> {
        let (host, port) = (place.host.clone(), place.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let failed = |cause: String| Fault::Resolve { host: place.host.clone(), cause };
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let looked_up = tokio::task::spawn_blocking(move || {
            let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Given back by the thread, not by the check: a lookup outlives a check that gave up.
            drop(permit);
            addresses
        });
        let addresses = match looked_up.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(failed(reason(&error))),
            Err(_) => return Err(failed("the resolver's thread ended".to_owned())),
        };
        if addresses.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(addresses) }
    }
}

/// Without the words that every such error begins with.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").map_or(text.clone(), str::to_owned)
}
