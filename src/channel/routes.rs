//! Ways to hosts that are not the control plane: the same proxy, the same exceptions, the same race of addresses.

use super::tcp::Route;
use super::{DialError, proxy};
use actix_rt::net::TcpStream;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// DNS, TCP and the proxy's answer, together.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// `server.proxy` and `server.no_proxy`.
#[derive(Debug, Clone)]
pub struct Routes {
    proxy: Option<Url>,
    no_proxy: Vec<String>,
}

impl Routes {
    /// Without a proxy everything is reached directly; loopback always is.
    pub fn new(proxy: Option<Url>, no_proxy: Vec<String>) -> Self {
        Self { proxy, no_proxy }
    }

    /// A socket to that host; an IPv6 address without brackets.
    ///
    /// # Errors
    /// [`DialError::Resolve`], [`DialError::Connect`], [`DialError::Proxy`], [`DialError::Timeout`].
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let proxy = self.proxy.clone().filter(|_| !proxy::is_bypassed(host, port, &self.no_proxy));
        let name = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let route = Route { label: format!("{name}:{port}"), host: host.to_owned(), port, proxy };
        let limit = tokio::time::timeout(CONNECT_LIMIT, route.connect(Instant::now() + CONNECT_LIMIT));
        let late = |_| DialError::Timeout { host: route.label.clone(), limit: CONNECT_LIMIT };
        limit.await.map_err(late)?
    }
}
