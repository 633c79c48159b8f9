//! TLS 1.3 for everything that is served: by a certificate that is given, or by an own CA.
//!
//! The own CA is made once. The server's key is kept, so that a pin of it stays good; its certificate is
//! made anew at each start, so that it never expires in service and always names what is served.

use super::config::Tls;
use super::error::StartError;
use super::{files, time};
use crate::model::unix_ms;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Clients may refuse a certificate that lives longer.
const CERT_DAYS: u64 = 825;
const MS_A_DAY: u64 = 86_400_000;
/// Clocks of agents may be behind.
const SKEW_DAYS: u64 = 2;
/// Outlives the hardware; who wants to change it deletes it.
const CA_YEARS: u64 = 30;

/// What is served with.
pub struct Ready {
    /// None: in the clear.
    pub server: Option<ServerConfig>,
    /// What agents must trust; None where the certificate was given, or there is none.
    pub ca_file: Option<PathBuf>,
}

/// Loads or makes what is needed.
pub fn prepare(tls: &Tls, data_dir: &Path, listen_ip: Option<String>) -> Result<Ready, StartError> {
    match tls {
        Tls::Insecure => Ok(Ready { server: None, ca_file: None }),
        Tls::Files { cert, key } => {
            let chain = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| StartError::Tls(format!("{}: {error}", cert.display())))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| StartError::Tls(format!("{}: {error}", key.display())))?;
            Ok(Ready { server: Some(server(chain, key)?), ca_file: None })
        }
        Tls::SelfSigned { names } => {
            let dir = data_dir.join("tls");
            let mut names = names.clone();
            names.extend(["localhost".into(), "127.0.0.1".into(), "::1".into()]);
            names.extend(listen_ip);
            names.extend(host_name());
            own(&dir, names)
        }
    }
}

fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)).then_some(name)
}

fn own(dir: &Path, mut names: Vec<String>) -> Result<Ready, StartError> {
    names.sort();
    names.dedup();
    let io_error = |error: io::Error| StartError::Tls(format!("{}: {error}", dir.display()));
    let made = |error: rcgen::Error| StartError::Tls(format!("no certificate could be made: {error}"));
    files::make_private_dir(dir).map_err(io_error)?;
    let ca_key = key(&dir.join("ca.key")).map_err(io_error)?;
    let ca_params = ca_params();
    let ca_file = dir.join("ca.pem");
    let self_signed = || ca_params.self_signed(&ca_key).map_err(io::Error::other);
    files::read_or_create(&ca_file, || Ok(self_signed()?.pem().into_bytes())).map_err(io_error)?;

    let server_key = key(&dir.join("server.key")).map_err(io_error)?;
    let issuer = Issuer::from_params(&ca_params, &ca_key);
    let cert = server_params(names).map_err(made)?.signed_by(&server_key, &issuer).map_err(made)?;
    files::write_private(&dir.join("server.pem"), cert.pem().as_bytes()).map_err(io_error)?;
    let key = PrivateKeyDer::try_from(server_key.serialize_der())
        .map_err(|error| StartError::Tls(format!("{}: {error}", dir.display())))?;
    Ok(Ready { server: Some(server(vec![cert.der().clone()], key)?), ca_file: Some(ca_file) })
}

fn key(path: &Path) -> io::Result<KeyPair> {
    let make = || Ok(KeyPair::generate().map_err(io::Error::other)?.serialize_pem().into_bytes());
    let pem = files::read_or_create(path, make)?;
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    };
    let pem = String::from_utf8(pem).map_err(|error| invalid(&error))?;
    KeyPair::from_pem(&pem).map_err(|error| invalid(&error))
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "backupy control plane CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (year, _, _) = time::civil(unix_ms());
    params.not_before = date_time_ymd(year_of(year - 1), 1, 1);
    params.not_after = date_time_ymd(year_of(year + CA_YEARS), 1, 1);
    params
}

fn server_params(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "backupy control plane");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let (year, month, day) = date(unix_ms().saturating_sub(SKEW_DAYS * MS_A_DAY));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(unix_ms() + CERT_DAYS * MS_A_DAY);
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

fn date(at_ms: u64) -> (i32, u8, u8) {
    let (year, month, day) = time::civil(at_ms);
    let small = |number: u64| u8::try_from(number).unwrap_or(1);
    (year_of(year), small(month), small(day))
}

fn year_of(year: u64) -> i32 {
    i32::try_from(year).unwrap_or(i32::MAX)
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, StartError> {
    let unusable = |error: rustls::Error| StartError::Tls(error.to_string());
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_ca_and_the_servers_key_stay_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls::SelfSigned { names: vec!["plane.example".into()] };
        let ready = prepare(&tls, dir.path(), None).unwrap();
        let ca = std::fs::read(ready.ca_file.unwrap()).unwrap();
        let key = std::fs::read(dir.path().join("tls/server.key")).unwrap();
        let again = prepare(&tls, dir.path(), None).unwrap();
        assert_eq!(std::fs::read(again.ca_file.unwrap()).unwrap(), ca);
        assert_eq!(std::fs::read(dir.path().join("tls/server.key")).unwrap(), key);
        for file in ["ca.key", "server.key"] {
            let mode = std::fs::metadata(dir.path().join("tls").join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        // What was made can be given back as files.
        let files =
            Tls::Files { cert: dir.path().join("tls/server.pem"), key: dir.path().join("tls/server.key") };
        assert!(prepare(&files, dir.path(), None).unwrap().server.is_some());
    }

    #[test]
    fn files_that_are_no_certificate_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        std::fs::write(&path, "no pem").unwrap();
        let tls = Tls::Files { cert: path.clone(), key: path };
        let told = prepare(&tls, dir.path(), None).err().unwrap().to_string();
        assert!(told.contains("cert.pem"), "{told}");
    }
}
