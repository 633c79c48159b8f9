//! TLS towards servers that are not the control plane: object stores, and what health checks look at.
//! Both the platform's roots and the operator's own CA count. TLS 1.2 is taken too, since the promise
//! of 1.3 (protocol section 1) is about the control plane, and not every other server speaks it.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// A configuration with the roots as they are now. Reads many files: not for an async thread that
/// others share.
///
/// # Errors
/// For people: what cannot be read, and what to do.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let unreadable = |error| format!("{}: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    if roots.is_empty() {
        let errors: Vec<_> = native.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the platform has none ({}); install ca-certificates or set server.ca_file",
            errors.join("; ")
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTP/2 gains nothing for one request a connection.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
