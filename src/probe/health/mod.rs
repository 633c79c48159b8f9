//! Health checks: whose turn it is (`schedule`), and one look at one target.
//!
//! A look is a connection of its own, from resolving the name to the head of the answer, so that each
//! of these is checked every time. Nothing here blocks the thread that it runs on.

mod connect;
mod fault;
mod http;
pub mod schedule;
mod stage;
mod target;

use crate::model::{CheckOutcome, HealthCheck};
use crate::trust;
use connect::Connector;
use fault::Fault;
use futures_util::future::LocalBoxFuture;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use stage::{Mark, Stage};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use target::{Place, Target};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// The roots are read again after this: distributions update them under a running daemon, and reading
/// some 140 certificates at every turn would be waste.
const ROOTS_KEPT: Duration = Duration::from_secs(3_600);

/// What was wrong with them is believed for so long.
const NO_ROOTS_KEPT: Duration = Duration::from_secs(60);

/// Looks at targets; another one in tests.
pub trait Prober {
    /// One look. It ends by itself at the check's timeout; where it is dropped, its connection ends.
    fn probe(&self, check: Arc<HealthCheck>) -> LocalBoxFuture<'static, CheckOutcome>;
}

/// Looks over the network.
#[derive(Debug, Clone)]
pub struct NetworkProber(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    ca_file: Option<PathBuf>,
    connector: Connector,
    roots: Mutex<Option<Roots>>,
}

#[derive(Debug)]
struct Roots {
    config: Result<Arc<ClientConfig>, String>,
    until: Instant,
}

impl NetworkProber {
    /// `ca_file` (PEM) is trusted beside the platform's roots. Nothing is read yet.
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        Self(Rc::new(Inner { ca_file, connector: Connector::default(), roots: Mutex::new(None) }))
    }
}

impl Prober for NetworkProber {
    fn probe(&self, check: Arc<HealthCheck>) -> LocalBoxFuture<'static, CheckOutcome> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let begin = Instant::now();
            let deadline = begin + check.timeout;
            let mark = Mark::default();
            let looked = timeout_at(deadline, inner.look(&check, deadline, &mark)).await;
            let (looked, timed_out) = match looked {
                Ok(looked) => (looked, false),
                Err(_) => (Err(Fault::TimedOut { limit: check.timeout, stage: mark.get() }), true),
            };
            let latency = begin.elapsed();
            match looked {
                Ok(Seen { status, stream }) => {
                    if let Some(mut stream) = stream {
                        http::take_leave(&mut stream).await;
                    }
                    let error = status.and_then(|status| unexpected(check.expected_status, status));
                    CheckOutcome { error, latency, status_code: status, timed_out }
                }
                Err(fault) => {
                    CheckOutcome { error: Some(fault.to_string()), latency, status_code: None, timed_out }
                }
            }
        })
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Stream for S {}

/// What a look found.
struct Seen {
    /// Of an HTTP answer.
    status: Option<u16>,
    /// Whose body has not been read.
    stream: Option<Box<dyn Stream>>,
}

fn unexpected(expected: u32, got: u16) -> Option<String> {
    let well = if expected == 0 { (200..300).contains(&got) } else { expected == u32::from(got) };
    (!well).then(|| Fault::Status { expected, got }.to_string())
}

impl Inner {
    async fn look(&self, check: &HealthCheck, deadline: Instant, mark: &Mark) -> Result<Seen, Fault> {
        match target::target(check)? {
            Target::Tcp(place) => {
                self.connector.connect(&place, deadline, mark).await?;
                Ok(Seen { status: None, stream: None })
            }
            Target::Http { place, secure, request } => {
                let config = if secure { Some(self.tls(&place).await?) } else { None };
                let stream = self.connector.connect(&place, deadline, mark).await?;
                let mut stream: Box<dyn Stream> = match config {
                    Some(config) => Box::new(handshake(config, &place, stream, mark).await?),
                    None => Box::new(stream),
                };
                mark.set(Stage::Answer);
                let status = http::ask(&mut stream, request.expose(), &place.label()).await?;
                Ok(Seen { status: Some(status), stream: Some(stream) })
            }
        }
    }

    /// The TLS configuration, its roots read on a thread for that. Who comes meanwhile waits for it.
    async fn tls(&self, place: &Place) -> Result<Arc<ClientConfig>, Fault> {
        let mut kept = self.roots.lock().await;
        let config = match kept.as_ref().filter(|roots| Instant::now() < roots.until) {
            Some(roots) => roots.config.clone(),
            None => {
                let ca_file = self.ca_file.clone();
                let read = tokio::task::spawn_blocking(move || tls_config(ca_file.as_deref()));
                let config = match read.await {
                    Ok(config) => config.map(Arc::new),
                    Err(_) => Err("the thread that reads them ended".to_owned()),
                };
                let keep = if config.is_ok() { ROOTS_KEPT } else { NO_ROOTS_KEPT };
                *kept = Some(Roots { config: config.clone(), until: Instant::now() + keep });
                config
            }
        };
        config.map_err(|cause| Fault::Tls {
            host: place.label(),
            cause: format!("no certificate authorities on the agent's host: {cause}"),
        })
    }
}

/// Every handshake verifies the certificate anew: a resumed session would hide that it has expired.
fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut config = trust::client_config(ca_file)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

async fn handshake(
    config: Arc<ClientConfig>,
    place: &Place,
    stream: TcpStream,
    mark: &Mark,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
    mark.set(Stage::Tls);
    let name = ServerName::try_from(place.host.clone())
        .map_err(|_| Fault::Unusable("no certificate can be for its host name".to_owned()))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| Fault::tls(&place.label(), &error))
}
