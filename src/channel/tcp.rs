//! From a host's name to a connected socket: resolved at every dial, every address tried.

use super::limits::TCP_USER_TIMEOUT;
use super::{DialError, proxy};
use actix_rt::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::SocketAddr;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

/// How a host is reached.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// `host:port`, for errors.
    pub(super) label: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Set where it applies to this host.
    pub(super) proxy: Option<Url>,
}

impl Route {
    /// Connects, through the proxy where there is one. All addresses share the time until `deadline`.
    ///
    /// # Errors
    /// [`DialError::Resolve`] or [`DialError::Connect`].
    pub(super) async fn connect(&self, deadline: Instant) -> Result<TcpStream, DialError> {
        let Some(proxy) = &self.proxy else {
            return self.reach(&self.host, self.port, deadline).await;
        };
        // http://example, without a port, is port 80 to everybody else too.
        let port = proxy.port_or_known_default().unwrap_or(80);
        let host = proxy.host().as_ref().map_or_else(String::new, bare);
        let mut stream = self.reach(&host, port, deadline).await.map_err(|error| via_proxy(error, proxy))?;
        let target = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        proxy::connect(&mut stream, proxy, &target)
            .await
            .map_err(|cause| DialError::Connect { host: self.label.clone(), cause })?;
        Ok(stream)
    }

    async fn reach(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
        let resolve_error = |cause: String| DialError::Resolve { host: self.label.clone(), cause };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host, port)).await.map_err(|e| resolve_error(e.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(resolve_error("no address".into()));
        }
        let mut faults = Vec::new();
        for (tried, address) in addresses.iter().enumerate() {
            // A black hole must not eat the time of the addresses after it.
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    tune(&stream).map_err(|error| self.connect_error(error.to_string()))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => faults.push(format!("{address}: {error}")),
                Err(_) => faults.push(format!("{address}: no answer")),
            }
        }
        Err(self.connect_error(faults.join("; ")))
    }

    fn connect_error(&self, cause: String) -> DialError {
        DialError::Connect { host: self.label.clone(), cause }
    }
}

/// An address without brackets, a name as it is.
pub(super) fn bare(host: &Host<&str>) -> String {
    match host {
        Host::Domain(name) => (*name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

fn via_proxy(error: DialError, proxy: &Url) -> DialError {
    let name = super::url::host(proxy);
    match error {
        DialError::Resolve { host, cause } => {
            DialError::Resolve { host, cause: format!("the proxy {name}: {cause}") }
        }
        DialError::Connect { host, cause } => {
            DialError::Connect { host, cause: format!("the proxy {name}: {cause}") }
        }
        other @ (DialError::Timeout { .. }
        | DialError::Tls { .. }
        | DialError::Unauthorized { .. }
        | DialError::Status { .. }
        | DialError::Handshake { .. }) => other,
    }
}

/// Envelopes are whole messages, so nothing is gained by holding small ones back; and what the peer
/// does not acknowledge ends the connection before the idle limit would.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let limit_ms = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &limit_ms)?;
    Ok(())
}
