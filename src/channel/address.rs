//! TLS to an IPv6 address. awc hands rustls the host as it stands in the URL, in brackets, which is no
//! name that a certificate could have; so it gets a stand-in for the host, and the certificate is held
//! against the address here.

use actix_tls::connect::Host as _;
use awc::http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::Ipv6Addr;
use std::sync::Arc;

/// What stands for the host on the way through awc's TLS connector; it is never resolved, sent or
/// shown. The request's own URL, and so its Host header, has the address.
const STAND_IN: &str = "wss://address.invalid";

/// The URL that awc's TLS connector is shown for this one.
pub(super) fn for_tls(uri: Uri) -> Uri {
    if uri.hostname().starts_with('[') { Uri::from_static(STAND_IN) } else { uri }
}

/// Verifies as `inner` does, against one address whatever the name.
#[derive(Debug)]
pub(super) struct AddressVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    address: ServerName<'static>,
}

impl AddressVerifier {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>, address: Ipv6Addr) -> Self {
        Self { inner, address: ServerName::IpAddress(std::net::IpAddr::V6(address).into()) }
    }
}

impl ServerCertVerifier for AddressVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner.verify_server_cert(leaf, intermediates, &self.address, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
