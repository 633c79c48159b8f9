//! Why a check is not well. The texts go to the control plane and into logs: hosts and ports, never a
//! URL's user, path or query.

use super::stage::Stage;
use rustls::{CertificateError, Error};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses of one name that an error lists.
const MAX_LISTED: usize = 3;

/// A check's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The configuration asks something that cannot be done.
    #[error("the check cannot be done: {0}")]
    Unusable(String),
    /// No address.
    #[error("cannot resolve {host}: {cause}")]
    Resolve {
        /// Name.
        host: String,
        /// Of the resolver.
        cause: String,
    },
    /// None of the addresses took the connection.
    #[error("{0}")]
    Connect(String),
    /// No TLS.
    #[error("TLS with {host}: {cause}")]
    Tls {
        /// Name and port.
        host: String,
        /// For people.
        cause: String,
    },
    /// It came to nothing after the connection.
    #[error("{host} {what}")]
    Broken {
        /// Name and port.
        host: String,
        /// What it did.
        what: String,
    },
    /// An answer, but not the expected one.
    #[error("{}", unexpected(*expected, *got))]
    Status {
        /// 0 for any of 200 to 299.
        expected: u32,
        /// What came.
        got: u16,
    },
    /// Too late.
    #[error("timed out after {} s, {stage}", limit.as_secs_f64())]
    TimedOut {
        /// The check's timeout.
        limit: Duration,
        /// How far it came.
        stage: Stage,
    },
}

fn unexpected(expected: u32, got: u16) -> String {
    let wanted =
        if expected == 0 { "a status from 200 to 299".to_owned() } else { format!("status {expected}") };
    let hint = if matches!(got, 301 | 302 | 303 | 307 | 308) { " (redirects are not followed)" } else { "" };
    format!("expected {wanted}, got {got}{hint}")
}

impl Fault {
    /// Every address was tried in vain.
    pub(super) fn connect(tried: &[(SocketAddr, Option<io::Error>)]) -> Self {
        let mut listed: Vec<String> = tried
            .iter()
            .take(MAX_LISTED)
            .map(|(address, error)| match error {
                Some(error) => refusal(*address, error),
                None => format!("{address} does not answer"),
            })
            .collect();
        if tried.len() > MAX_LISTED {
            listed.push(format!("and {} more", tried.len() - MAX_LISTED));
        }
        Self::Connect(listed.join("; "))
    }

    /// A handshake that came to nothing.
    pub(super) fn tls(host: &str, error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let cause = match inner {
            Some(error) => handshake(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "it closed the connection during the handshake: is this a TLS port?".to_owned()
            }
            None => broken(error),
        };
        Self::Tls { host: host.to_owned(), cause }
    }

    /// A connection that broke while it was spoken on.
    pub(super) fn io(host: &str, error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            // A refused client certificate or version comes only after our side of the handshake.
            Some(tls) => Self::Tls { host: host.to_owned(), cause: handshake(tls) },
            None => Self::Broken { host: host.to_owned(), what: broken(error) },
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std adds kinds; those named here have better words")]
fn refusal(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
        io::ErrorKind::TimedOut => format!("{address} does not answer"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no route to {address}")
        }
        _ => format!("cannot connect to {address}: {error}"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "std adds kinds; those named here have better words")]
fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset the connection".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed the connection without an answer".to_owned(),
        _ => format!("broke the connection: {error}"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those named here have better words")]
fn handshake(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(fault) => certificate(fault),
        Error::PeerIncompatible(_) => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
        Error::InvalidMessage(_) => "it does not answer with TLS: is this a clear-text port?".to_owned(),
        other => other.to_string(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those named here have better words")]
fn certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate has expired ({fault})")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate is not valid yet ({fault}); is this host's clock right?")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the certificate is self-signed or of an authority that this host does not trust; \
             server.ca_file can name that authority"
                .to_owned()
        }
        other => format!("the certificate is not acceptable: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_was_not_expected_is_told_with_the_expected_one() {
        let text = |expected, got| Fault::Status { expected, got }.to_string();
        assert_eq!(text(200, 503), "expected status 200, got 503");
        assert_eq!(text(0, 404), "expected a status from 200 to 299, got 404");
        assert_eq!(text(200, 302), "expected status 200, got 302 (redirects are not followed)");
    }

    #[test]
    fn many_addresses_are_listed_in_short() {
        let refused = || Some(io::Error::from(io::ErrorKind::ConnectionRefused));
        let address = |last| SocketAddr::from(([10, 0, 0, last], 80));
        assert_eq!(
            Fault::connect(&[(address(1), refused())]).to_string(),
            "connection refused by 10.0.0.1:80"
        );
        let many: Vec<_> =
            (1..=5).map(|last| (address(last), if last == 2 { None } else { refused() })).collect();
        assert_eq!(
            Fault::connect(&many).to_string(),
            "connection refused by 10.0.0.1:80; 10.0.0.2:80 does not answer; \
             connection refused by 10.0.0.3:80; and 2 more"
        );
    }

    #[test]
    fn a_timeout_says_how_far_it_came() {
        let fault = Fault::TimedOut { limit: Duration::from_secs(10), stage: Stage::Answer };
        assert_eq!(fault.to_string(), "timed out after 10 s, waiting for the answer");
    }
}
