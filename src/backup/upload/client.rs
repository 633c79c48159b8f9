//! awc, set up for object stores.

use super::{Options, UploadError};
use awc::Connector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What connections to the store are made with.
pub struct Client {
    tls: Option<Arc<ClientConfig>>,
    connect: Duration,
}

impl Client {
    /// Loads the certificate authorities, where they are needed.
    pub fn new(secure: bool, options: &Options) -> Result<Self, UploadError> {
        let tls = if secure { Some(Arc::new(tls(options.ca_file.as_deref())?)) } else { None };
        Ok(Self { tls, connect: options.timing.connect })
    }

    /// A client without a connection: no try inherits the state of the one before.
    pub fn fresh(&self) -> awc::Client {
        let mut connector = Connector::new().timeout(self.connect).handshake_timeout(self.connect);
        if let Some(tls) = &self.tls {
            connector = connector.rustls_0_23(Arc::clone(tls));
        }
        // The whole request has no time limit: a large object on a thin line may take hours, and standing still
        // is noticed apart. Presigned requests bear no headers but the signed ones.
        awc::Client::builder()
            .connector(connector)
            .disable_timeout()
            .disable_redirects()
            .no_default_headers()
            .finish()
    }
}

/// The platform's roots and the operator's own; TLS 1.2 too, since not every object store speaks 1.3.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, UploadError> {
    let failed = |cause: String| UploadError::Roots { cause };
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let unreadable = |error| failed(format!("{}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        }
    }
    if roots.is_empty() {
        let errors: Vec<_> = native.errors.iter().map(ToString::to_string).collect();
        return Err(failed(format!(
            "the platform has none ({}); install ca-certificates or set server.ca_file",
            errors.join("; ")
        )));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTP/2 gains nothing for one PUT a connection.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
