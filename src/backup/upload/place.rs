//! Where a presigned URL leads, taken apart once.

use super::UploadError;
use crate::backup::deadline::signed_at_ms;
use crate::model::Secret;
use url::{Host, Url};

/// A presigned URL. Only `shown` may be told.
#[derive(Clone, Debug)]
pub struct Place {
    /// Over TLS.
    pub secure: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// The scheme's own where the URL names none.
    pub port: u16,
    /// What the request's Host header says.
    pub authority: String,
    /// Path and query as they were written: a signature is over these bytes.
    pub target: Secret,
    /// Host and path.
    pub shown: String,
    /// The signature is also over the Content-Type.
    pub signs_content_type: bool,
    /// Until when it was signed, in unix milliseconds, where it says so.
    pub signed_until_ms: Option<u64>,
}

impl Place {
    /// Takes the URL apart.
    ///
    /// # Errors
    /// [`UploadError::BadUrl`], [`UploadError::Insecure`].
    pub fn new(url: &Secret, allow_insecure: bool) -> Result<Self, UploadError> {
        let bad = |reason| UploadError::BadUrl { reason };
        let text = url.expose();
        if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(bad("it cannot be parsed"));
        }
        // The parser's own error could quote the URL.
        let parsed = Url::parse(text).map_err(|_| bad("it cannot be parsed"))?;
        let secure = match parsed.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("its scheme is not https")),
        };
        // What is written, not what a parser makes of it: "https:///o" is no address.
        let (_, rest) = text.split_once("://").ok_or_else(|| bad("it has no host"))?;
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (written, target) = rest.split_at(at);
        if written.is_empty() || !parsed.username().is_empty() {
            return Err(bad("it has no host, or a user before it"));
        }
        let host = match parsed.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(bad("it has no host")),
        };
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let path = target.split('?').next().unwrap_or_default();
        let named_port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
        let name = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = format!("{name}{named_port}");
        let shown = format!("{authority}{path}");
        if !secure && !allow_insecure {
            return Err(UploadError::Insecure { place: shown });
        }
        let value_of = |wanted: &str| {
            let mut pairs = target.split(['?', '&']).filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let signs_content_type =
            value_of("X-Amz-SignedHeaders").is_some_and(|headers| headers.contains("content-type"));
        let signed_until_ms = value_of("X-Amz-Date").and_then(signed_at_ms).and_then(|at_ms| {
            let life_s: u64 = value_of("X-Amz-Expires")?.parse().ok()?;
            Some(at_ms.saturating_add(life_s.saturating_mul(1000)))
        });
        Ok(Self {
            secure,
            port: parsed.port().unwrap_or(if secure { 443 } else { 80 }),
            host,
            authority,
            target: target.into(),
            shown,
            signs_content_type,
            signed_until_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, UploadError> {
        Place::new(&url.into(), false)
    }

    #[test]
    fn a_url_is_sent_as_it_was_signed_and_shown_without_its_query() {
        let found = place("https://Store.test/b/key%20a%2Fb?X-Amz-Signature=a%2Fb#x").unwrap();
        assert_eq!(found.target.expose(), "/b/key%20a%2Fb?X-Amz-Signature=a%2Fb");
        assert_eq!((found.host.as_str(), found.port), ("store.test", 443));
        assert_eq!(found.shown, "store.test/b/key%20a%2Fb");
        assert!(!format!("{found:?}").contains("Signature=a"));
        let six = place("https://[::1]:9000/o?a=b").unwrap();
        assert_eq!((six.host.as_str(), six.authority.as_str(), six.port), ("::1", "[::1]:9000", 9000));
        assert_eq!(place("https://s.test?q=1").unwrap().target.expose(), "/?q=1");
    }

    #[test]
    fn a_signed_content_type_is_noticed() {
        let signs = |headers: &str| {
            let url = format!("https://s.test/o?X-Amz-SignedHeaders={headers}&X-Amz-Signature=0");
            place(&url).unwrap().signs_content_type
        };
        assert!(signs("content-type%3Bhost"));
        assert!(!signs("host"));
    }

    #[test]
    fn the_end_of_a_urls_life_stands_in_it() {
        let until = |query: &str| place(&format!("https://s.test/o?{query}")).unwrap().signed_until_ms;
        let signed = "X-Amz-Date=20251123T170611Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host";
        assert_eq!(until(signed), Some(1_763_917_571_000 + 60_000));
        for other in ["X-Amz-Date=20251123T170611Z", "X-Amz-Expires=60", "X-Amz-Date=x&X-Amz-Expires=60"] {
            assert_eq!(until(other), None, "{other}");
        }
    }
}
