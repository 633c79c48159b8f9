//! Keys that name a peer: the control plane, its certificate, a proxy, the metrics' address.

use super::check::Check;
use super::shown::{mask_url, shown};
use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::path::Path;
use url::Url;

/// `server.url`: scheme, host, no userinfo, and clear text only with the switch.
pub(super) fn server_url(check: &mut Check<'_>, text: &str, allow_insecure: bool) -> Option<Url> {
    const KEY: &str = "server.url";
    let url = match Url::parse(text.trim()) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            check.fault(KEY, format_args!("{} has no scheme: write https://…", shown(text)));
            return None;
        }
        Err(error) => {
            // The text is not shown: what cannot be parsed cannot be masked either.
            check.fault(KEY, format_args!("is not a URL: {error}"));
            return None;
        }
    };
    let count = check.faults.len();
    let scheme = url.scheme();
    match scheme {
        "https" | "wss" => {}
        "http" | "ws" if allow_insecure => {}
        "http" | "ws" => check.fault(
            KEY,
            format_args!(
                "{scheme} is clear text and would show the agent key to the network: use https, or set \
                 server.allow_insecure (BACKUPY_DEV_ALLOW_INSECURE=1) for development"
            ),
        ),
        other => {
            check.fault(KEY, format_args!("the scheme {} is none of https, wss, http, ws", shown(other)))
        }
    }
    if matches!(scheme, "https" | "wss" | "http" | "ws")
        && (!url.username().is_empty() || url.password().is_some())
    {
        check.fault(
            KEY,
            format_args!("{}: no user or password belongs here, the agent key is the login", mask_url(&url)),
        );
    }
    if url.fragment().is_some() {
        check.fault(KEY, "has a fragment (#…), which is never sent");
    }
    (check.faults.len() == count).then_some(url)
}

/// `server.ca_file`: readable, with at least one certificate.
pub(super) fn check_ca_file(check: &mut Check<'_>, path: &Path) {
    let problem = match std::fs::read(path) {
        Err(error) => format!("{}: {error}", path.display()),
        Ok(pem) => match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
            Ok(found) if !found.is_empty() => return,
            Ok(_) => format!("{}: holds no certificate in PEM", path.display()),
            Err(_) => format!("{}: is not valid PEM", path.display()),
        },
    };
    check.fault("server.ca_file", problem);
}

/// `server.pins`: each the base64 of 32 bytes.
pub(super) fn pins(check: &mut Check<'_>, texts: &[String]) -> Option<Vec<[u8; 32]>> {
    let count = check.faults.len();
    let mut pins = Vec::with_capacity(texts.len());
    for text in texts {
        match BASE64.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(pin) => pins.push(pin),
            None => check.fault(
                "server.pins",
                format_args!("{} is not the base64 of a SHA-256 (44 characters)", shown(text)),
            ),
        }
    }
    (check.faults.len() == count).then_some(pins)
}

/// `server.proxy`: an HTTP proxy that takes CONNECT; a bare `host:port` is one.
pub(super) fn proxy(check: &mut Check<'_>, text: &str) -> Option<Url> {
    const KEY: &str = "server.proxy";
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match Url::parse(&with_scheme) {
        Ok(url) if url.scheme() == "http" && url.host().is_some() => return Some(url),
        Ok(url) => check.fault(
            KEY,
            format_args!(
                "the scheme {} is not supported: only an http:// proxy (CONNECT) is",
                shown(url.scheme())
            ),
        ),
        Err(error) => check.fault(KEY, format_args!("is not a URL: {error}")),
    }
    None
}

/// `metrics.listen`: empty is off. Outer None where the text is no address.
pub(super) fn listen(check: &mut Check<'_>, text: &str) -> Option<Option<SocketAddr>> {
    const KEY: &str = "metrics.listen";
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        check.fault(
            KEY,
            format_args!("{} is no address: write one such as 127.0.0.1:9090, or \"\" for none", shown(text)),
        );
        return None;
    };
    if !address.ip().is_loopback() {
        check.warnings.push(format!(
            "metrics.listen ({}): {address} is reachable from outside this host and has no login",
            check.origin(KEY)
        ));
    }
    Some(Some(address))
}
