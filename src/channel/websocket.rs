//! The dialer of the daemon: awc over our own sockets, TLS and frame guard.

use super::DialError;
use super::backoff::RETRY_AFTER_CAP;
use super::dial::{Dialer, Link};
use super::guard::FrameGuard;
use super::limits::DIAL_TIMEOUT;
use super::tcp::{Route, bare};
use super::tls::{Tls, TlsOptions};
use super::url::{UrlError, connect_url, host};
use super::{address, proxy, upgrade};
use crate::wire;
use actix_rt::net::TcpStream;
use actix_service::fn_service;
use actix_tls::connect::{ConnectError as TcpError, ConnectInfo, Connection as TcpConnection};
use awc::http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use awc::http::{StatusCode, Uri};
use awc::{Client, Connector};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

const AGENT_NAME: &str = concat!("backupy-agent/", env!("CARGO_PKG_VERSION"));

/// What the dialer is told.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// `server.url`.
    pub server: Url,
    /// Goes into the request's `Authorization` header and nowhere else.
    pub agent_key: SecretString,
    /// `server.allow_insecure`: `http` and `ws` may be used.
    pub allow_insecure: bool,
    /// Roots and pins.
    pub tls: TlsOptions,
    /// `server.proxy`: `http` with host, and port and userinfo where needed.
    pub proxy: Option<Url>,
    /// As in NO_PROXY.
    pub no_proxy: Vec<String>,
}

/// Why a dialer cannot be made of these options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialOptionsError {
    /// `server.url`.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The key cannot be a header.
    #[error("the agent key has characters that no header can carry")]
    AgentKey,
    /// Only HTTP proxies are spoken to.
    #[error("server.proxy must be http://host:port, and has the scheme \"{0}\"")]
    Proxy(String),
}

/// Dials one control plane; a clone dials the same one, and shares the TLS configuration.
#[derive(Debug, Clone)]
pub struct WebSocketDialer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Url,
    route: Route,
    bearer: HeaderValue,
    tls: Tls,
    limit: Duration,
}

impl WebSocketDialer {
    /// A dialer; nothing is dialled yet.
    ///
    /// # Errors
    /// [`DialOptionsError`], also for the clear schemes without `allow_insecure`.
    pub fn new(options: DialOptions) -> Result<Self, DialOptionsError> {
        Self::with_limit(options, DIAL_TIMEOUT)
    }

    /// With another limit than 15 s for the whole dial.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_limit(options: DialOptions, limit: Duration) -> Result<Self, DialOptionsError> {
        let url = connect_url(&options.server, options.allow_insecure)?;
        let (Some(name), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(UrlError::NoHost.into());
        };
        let proxy = options.proxy.filter(|_| !proxy::is_bypassed(&bare(&name), port, &options.no_proxy));
        if let Some(proxy) = proxy.as_ref().filter(|proxy| proxy.scheme() != "http") {
            return Err(DialOptionsError::Proxy(proxy.scheme().to_owned()));
        }
        let route = Route { label: host(&url), host: bare(&name), port, proxy };
        let ipv6 = match name {
            Host::Ipv6(address) => Some(address),
            Host::Domain(_) | Host::Ipv4(_) => None,
        };
        let bearer = format!("Bearer {}", options.agent_key.expose_secret());
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| DialOptionsError::AgentKey)?;
        bearer.set_sensitive(true);
        Ok(Self(Arc::new(Inner { route, bearer, tls: Tls::new(options.tls, ipv6), limit, url })))
    }
}

impl Dialer for WebSocketDialer {
    fn host(&self) -> String {
        self.0.route.label.clone()
    }

    fn dial(&self) -> LocalBoxFuture<'static, Result<Link, DialError>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let limit = inner.limit;
            let host = inner.route.label.clone();
            match timeout(limit, dial(inner)).await {
                Ok(link) => link,
                Err(_) => Err(DialError::Timeout { host, limit }),
            }
        })
    }
}

async fn dial(inner: Arc<Inner>) -> Result<Link, DialError> {
    let answer = upgrade::Answer::default();
    let client = client(&inner, &answer).await?;
    let request = client
        .ws(inner.url.as_str())
        .set_header(AUTHORIZATION, inner.bearer.clone())
        .set_header(USER_AGENT, AGENT_NAME);
    match request.protocols([wire::ACK_SUBPROTOCOL]).connect().await {
        Ok((response, framed)) => {
            let confirms = upgrade::confirms(response.headers());
            let (sink, stream) = framed.into_map_codec(|_| FrameGuard::default()).split();
            Ok(Link { sink: Box::pin(sink), stream: Box::pin(stream), confirms })
        }
        Err(error) => Err(match answer.refusal() {
            Some((status, retry_after)) => refused(&inner.route.label, status, retry_after),
            None => upgrade::explain(error, &inner.route.label, inner.limit, |e| inner.tls.explain(e)),
        }),
    }
}

fn refused(host: &str, status: StatusCode, retry_after: Option<Duration>) -> DialError {
    let host = host.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            DialError::Unauthorized { host, status: status.as_u16() }
        }
        _ => {
            let retry_after = retry_after.map(|asked| asked.min(RETRY_AFTER_CAP));
            DialError::Status { host, status: status.as_u16(), retry_after }
        }
    }
}

/// A client for one request. Every limit of awc's own is out of the way: one limit holds for all.
async fn client(inner: &Arc<Inner>, answer: &upgrade::Answer) -> Result<Client, DialError> {
    let deadline = Instant::now() + inner.limit;
    let route = inner.route.clone();
    let tcp = fn_service(move |request: ConnectInfo<Uri>| {
        let route = route.clone();
        async move {
            let stream: TcpStream =
                route.connect(deadline).await.map_err(|error| TcpError::Io(std::io::Error::other(error)))?;
            Ok::<_, TcpError>(TcpConnection::new(address::for_tls(request.request().clone()), stream))
        }
    });
    let mut connector = Connector::new().connector(tcp).timeout(inner.limit).handshake_timeout(inner.limit);
    if inner.url.scheme() == "wss" {
        connector = connector.rustls_0_23(tls_config(inner).await?);
    }
    Ok(Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .no_default_headers()
        .wrap(answer.clone())
        .finish())
}

/// Reads files, on a thread for that.
async fn tls_config(inner: &Arc<Inner>) -> Result<Arc<rustls::ClientConfig>, DialError> {
    let tls_error = |cause| DialError::Tls { host: inner.route.label.clone(), cause };
    let reader = inner.clone();
    match tokio::task::spawn_blocking(move || reader.tls.config()).await {
        Ok(config) => config.map_err(tls_error),
        Err(error) => Err(tls_error(format!("the trusted roots could not be read: {error}"))),
    }
}
