//! SPKI pins: besides a chain and a name that verify, a key that the operator named.

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// SHA-256 of a SubjectPublicKeyInfo.
pub type Pin = [u8; 32];

/// The chain and the name verify, and no pin matches.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server's certificates match none of server.pins: its own key is {leaf}. If the key was changed on purpose, put that value into server.pins; else somebody stands between"
)]
pub struct PinMismatch {
    /// Base64, as `server.pins` wants it.
    pub leaf: String,
}

/// Verifies like webpki, and then asks for a pin.
#[derive(Debug)]
pub(super) struct PinningVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    /// Of the trusted roots, those with a pinned key.
    pinned_roots: Vec<CertificateDer<'static>>,
    pins: Vec<Pin>,
}

impl PinningVerifier {
    pub(super) fn new(
        webpki: Arc<WebPkiServerVerifier>,
        provider: Arc<CryptoProvider>,
        roots: &[CertificateDer<'static>],
        pins: Vec<Pin>,
    ) -> Self {
        let pinned_roots = roots.iter().filter(|root| is_pinned(root, &pins)).cloned().collect();
        Self { webpki, provider, pinned_roots, pins }
    }

    /// Whether a path leads from the leaf to a pinned certificate. What the server presents besides
    /// its path proves nothing: anybody can present a certificate whose key he does not have.
    fn leads_to_a_pin(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let mut anchors = RootCertStore::empty();
        let presented = intermediates.iter().filter(|certificate| is_pinned(certificate, &self.pins));
        for anchor in presented.chain(&self.pinned_roots) {
            // A certificate that is no anchor is left out: it cannot end a path.
            let _ = anchors.add(anchor.clone().into_owned());
        }
        let provider = self.provider.clone();
        match WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider).build() {
            Ok(to_pins) => to_pins.verify_server_cert(leaf, intermediates, name, &[], now).is_ok(),
            // No anchors at all.
            Err(_) => false,
        }
    }
}

impl ServerCertVerifier for PinningVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        if is_pinned(leaf, &self.pins) || self.leads_to_a_pin(leaf, intermediates, name, now) {
            return Ok(verified);
        }
        let leaf = pin_of(leaf).map_or_else(|| "unreadable".into(), |pin| BASE64.encode(&pin));
        let mismatch = OtherError(Arc::new(PinMismatch { leaf }));
        Err(Error::InvalidCertificate(CertificateError::Other(mismatch)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The pin of a certificate, where it can be read.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    digest(&SHA256, parsed.subject_public_key_info().as_ref()).as_ref().try_into().ok()
}

fn is_pinned(certificate: &CertificateDer<'_>, pins: &[Pin]) -> bool {
    pin_of(certificate).is_some_and(|pin| pins.contains(&pin))
}
