//! From a host's name to a connected socket: resolved at every dial, every address tried.

use super::DialError;
use super::limits::{CONNECT_STAGGER, TCP_USER_TIMEOUT};
use super::proxy::{self, Refusal};
use actix_rt::net::TcpStream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use url::{Host, Url};

/// The part of a dial's time that TCP may take: what then does not answer is named, instead of a
/// dial that took too long for no known reason. The rest is for TLS and the upgrade.
const CONNECT_SHARE: f64 = 2.0 / 3.0;

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
    /// [`DialError::Resolve`], [`DialError::Connect`] or [`DialError::Proxy`].
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
        let host = self.label.clone();
        match proxy::connect(&mut stream, proxy, &target).await {
            Ok(()) => Ok(stream),
            Err(Refusal { cause, is_final: true }) => Err(DialError::Proxy { host, cause }),
            Err(Refusal { cause, is_final: false }) => Err(DialError::Connect { host, cause }),
        }
    }

    async fn reach(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
        let resolve_error = |cause: String| DialError::Resolve { host: self.label.clone(), cause };
        let found = tokio::net::lookup_host((host, port)).await.map_err(|e| resolve_error(e.to_string()))?;
        let addresses = alternating(found);
        if addresses.is_empty() {
            return Err(resolve_error("no address".into()));
        }
        let patience = deadline.saturating_duration_since(Instant::now()).mul_f64(CONNECT_SHARE);
        let stream = race(addresses, patience)
            .await
            .map_err(|faults| self.connect_error(told(host, port, &faults)))?;
        tune(&stream).map_err(|error| self.connect_error(error.to_string()))?;
        Ok(stream)
    }

    fn connect_error(&self, cause: String) -> DialError {
        DialError::Connect { host: self.label.clone(), cause }
    }
}

/// The families in turns, beginning with the one that the resolver prefers (RFC 8305 section 4): a host
/// whose IPv6 leads nowhere must not try all of it first.
fn alternating(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut rest: VecDeque<SocketAddr> = VecDeque::new();
    for address in found {
        if !rest.contains(&address) {
            rest.push_back(address);
        }
    }
    let mut turns = VecDeque::with_capacity(rest.len());
    while let Some(address) = rest.pop_front() {
        let other = rest.iter().position(|other| other.is_ipv6() != address.is_ipv6());
        turns.push_back(address);
        turns.extend(other.and_then(|at| rest.remove(at)));
    }
    turns
}

/// What an address answered instead of connecting.
type Fault = (SocketAddr, String);

/// The first address that answers wins. The next one is tried when one fails, and also when one is
/// silent for [`CONNECT_STAGGER`]: a black hole costs the others no more than that.
///
/// # Errors
/// What each address said, once all of them failed or `patience` is over.
async fn race(mut waiting: VecDeque<SocketAddr>, patience: Duration) -> Result<TcpStream, Vec<Fault>> {
    let until = Instant::now() + patience;
    let mut trying = FuturesUnordered::new();
    let mut faults = Vec::new();
    loop {
        if let Some(address) = waiting.pop_front() {
            trying.push(async move {
                let left = until.saturating_duration_since(Instant::now());
                match timeout(left, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(error)) => Err((address, reason(&error))),
                    Err(_) => Err((address, "no answer".to_owned())),
                }
            });
        }
        tokio::select! {
            answer = trying.next() => match answer {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(fault)) => faults.push(fault),
                None => return Err(faults),
            },
            () = sleep(CONNECT_STAGGER), if !waiting.is_empty() => {}
        }
    }
}

/// Without the number, which says nothing to a person.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Addresses are named where they are news: the error names the host already.
fn told(host: &str, port: u16, faults: &[Fault]) -> String {
    let is_known = |address: &SocketAddr| host.parse() == Ok(address.ip()) && address.port() == port;
    match faults {
        [(address, fault)] if is_known(address) => fault.clone(),
        faults => {
            let told = faults.iter().map(|(address, fault)| format!("{address}: {fault}"));
            told.collect::<Vec<_>>().join("; ")
        }
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
        | DialError::Proxy { .. }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// An address of loopback that swallows whatever wants to connect: its queue is full.
    async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(addresses(&["127.0.0.1:0"])[0]).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut inside = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            inside.push(stream);
        }
        (address, inside, listener)
    }

    #[test]
    fn families_take_turns_and_no_address_is_tried_twice() {
        let found = addresses(&["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1", "10.0.0.1:1", "[fd00::3]:1"]);
        let expected = addresses(&["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "[fd00::3]:1"]);
        assert_eq!(alternating(found.into_iter()), expected);
        let expected = addresses(&["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1"]);
        let found = addresses(&["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]);
        assert_eq!(alternating(found.into_iter()), expected);
    }

    #[tokio::test]
    async fn a_dead_first_address_costs_a_moment_and_not_the_dial() {
        let (hole, _inside, _listener) = black_hole().await;
        let refusing = {
            let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
            closed.local_addr().unwrap()
        };
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let begin = Instant::now();
        let waiting = VecDeque::from([hole, refusing, alive.local_addr().unwrap()]);
        let stream = race(waiting, Duration::from_secs(10)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive.local_addr().unwrap());
        // The black hole's moment, nothing for the refusal.
        assert!(begin.elapsed() >= CONNECT_STAGGER && begin.elapsed() < CONNECT_STAGGER * 8);
    }

    #[tokio::test]
    async fn the_kernel_gives_up_on_what_a_peer_does_not_acknowledge() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let route = Route { label: String::new(), host: "127.0.0.1".into(), port, proxy: None };
        let stream = route.connect(Instant::now() + Duration::from_secs(5)).await.unwrap();
        let limit_ms = nix::sys::socket::getsockopt(&stream, sockopt::TcpUserTimeout).unwrap();
        assert_eq!(limit_ms, 45_000);
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn when_nobody_answers_each_address_is_named_with_its_reason() {
        let (hole, _inside, _listener) = black_hole().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let faults = race(VecDeque::from([hole, refusing]), Duration::from_millis(600)).await.unwrap_err();
        let text = told("plane.test", 1, &faults);
        assert!(text.contains(&format!("{refusing}: Connection refused; {hole}: no answer")), "{text}");
    }

    #[test]
    fn an_address_that_the_error_names_already_is_not_repeated() {
        let fault = |address: &str| (addresses(&[address])[0], "Connection refused".to_owned());
        assert_eq!(told("127.0.0.1", 9, &[fault("127.0.0.1:9")]), "Connection refused");
        assert_eq!(told("::1", 9, &[fault("[::1]:9")]), "Connection refused");
        assert_eq!(told("localhost", 9, &[fault("[::1]:9")]), "[::1]:9: Connection refused");
    }
}
