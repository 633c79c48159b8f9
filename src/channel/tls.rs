//! TLS 1.3 with ring: the roots, the pins, and what an operator must know when a handshake fails.

use super::address::AddressVerifier;
use super::pins::{Pin, PinMismatch, PinningVerifier};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The platform's roots are read again after this: distributions update them under a running daemon,
/// and reading some 140 certificates at every dial would be waste.
const PLATFORM_ROOTS_KEPT: Duration = Duration::from_secs(3600);

/// What is trusted.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM; with it, only its certificates are roots. None means the platform's.
    pub ca_file: Option<PathBuf>,
    /// Empty means none is asked.
    pub pins: Vec<Pin>,
}

/// Makes the TLS configuration, and keeps it until its roots change.
#[derive(Debug)]
pub(super) struct Tls {
    options: TlsOptions,
    /// The server's address, where its URL gives an IPv6 one instead of a name.
    address: Option<Ipv6Addr>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    config: Arc<ClientConfig>,
    made: Instant,
    /// Of the CA file, where there is one.
    version: Option<FileVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileVersion {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Tls {
    pub(super) fn new(options: TlsOptions, address: Option<Ipv6Addr>) -> Self {
        Self { options, address, kept: Mutex::new(None) }
    }

    /// The configuration for the next handshake. Reads files where something changed: not for an
    /// async thread.
    ///
    /// # Errors
    /// For people: which file, what is wrong with it.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let version = match &self.options.ca_file {
            Some(path) => Some(file_version(path)?),
            None => None,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept
            && kept.version == version
            && (version.is_some() || kept.made.elapsed() < PLATFORM_ROOTS_KEPT)
        {
            return Ok(kept.config.clone());
        }
        let config = Arc::new(make_config(&self.options, self.address)?);
        *kept = Some(Kept { config: config.clone(), made: Instant::now(), version });
        Ok(config)
    }

    /// What went wrong, and what to do.
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those named here have advice")]
    pub(super) fn explain(&self, error: &Error) -> String {
        match error {
            Error::InvalidCertificate(fault) => self.explain_certificate(fault),
            Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
                "the server does not speak TLS 1.3, which this agent requires: enable TLS 1.3 there".into()
            }
            Error::InvalidMessage(_) => {
                "the server does not answer with TLS: is this the port of a clear-text service?".into()
            }
            other => other.to_string(),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds errors; those named here have advice")]
    fn explain_certificate(&self, fault: &CertificateError) -> String {
        match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!(
                    "the server's certificate has expired ({fault}): renew it there, or set this host's clock"
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the server's certificate is not valid yet ({fault}): set this host's clock")
            }
            CertificateError::NotValidForName => {
                "the server's certificate is for another name: check server.url".into()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names = presented.join(", ");
                let expected = expected.to_str();
                format!("the server's certificate is not for {expected} but for {names}: check server.url")
            }
            CertificateError::UnknownIssuer => match &self.options.ca_file {
                Some(path) => format!(
                    "the server's certificate was not issued by the CA in {}: check server.ca_file",
                    path.display()
                ),
                None => "the server's certificate was issued by a CA that this host does not trust: \
                         set server.ca_file to that CA's certificate"
                    .into(),
            },
            CertificateError::Other(other) => match other.0.downcast_ref::<PinMismatch>() {
                Some(mismatch) => mismatch.to_string(),
                None => format!("the server's certificate is not acceptable: {other}"),
            },
            other => format!("the server's certificate is not acceptable: {other}"),
        }
    }
}

fn file_version(path: &Path) -> Result<FileVersion, String> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    Ok(FileVersion { modified: metadata.modified().ok(), bytes: metadata.len() })
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("server.ca_file {} cannot be read: {error}", path.display())
}

fn make_config(options: &TlsOptions, address: Option<Ipv6Addr>) -> Result<ClientConfig, String> {
    let certificates = match &options.ca_file {
        Some(path) => read_ca_file(path)?,
        None => platform_roots()?,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(match &options.ca_file {
            Some(path) => format!("server.ca_file {} holds no usable certificate", path.display()),
            None => "this host has no trusted roots: install ca-certificates, or set server.ca_file".into(),
        });
    }
    let provider = Arc::new(ring::default_provider());
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| format!("the trusted roots are not usable: {error}"))?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let mut verifier: Arc<dyn ServerCertVerifier> = webpki.clone();
    if !options.pins.is_empty() {
        let pins = options.pins.clone();
        verifier = Arc::new(PinningVerifier::new(webpki, provider, &certificates, pins));
    }
    if let Some(address) = address {
        verifier = Arc::new(AddressVerifier::new(verifier, address));
    }
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // An address is never sent as a name (RFC 6066 section 3).
    config.enable_sni = address.is_none();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every dial verifies chain, name and pins anew: one handshake in a connection's life is cheap.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("server.ca_file {} is not PEM: {error}", path.display()))
}

fn platform_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    // One unreadable file among many is no reason to trust nothing.
    if found.certs.is_empty()
        && let Some(error) = found.errors.first()
    {
        return Err(format!("this host's trusted roots cannot be read: {error}"));
    }
    Ok(found.certs)
}
