//! What a check's target means.

use super::fault::Fault;
use crate::model::{CheckKind, HealthCheck, Secret};
use data_encoding::BASE64;
use url::{Host, Url};

/// Statuses that an answer can have in the end (RFC 9110 section 15).
const STATUSES: std::ops::RangeInclusive<u32> = 200..=599;

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name or address, without brackets.
    pub(super) host: String,
    /// TCP.
    pub(super) port: u16,
}

impl Place {
    /// For errors.
    pub(super) fn label(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// What to do there.
#[derive(Debug)]
pub(super) enum Target {
    /// Connect.
    Tcp(Place),
    /// Connect, and ask.
    Http {
        /// Where.
        place: Place,
        /// Over TLS.
        secure: bool,
        /// The whole request: it may carry a password or a token.
        request: Secret,
    },
}

/// Reads a check's target.
///
/// # Errors
/// [`Fault::Unusable`], without what may be secret in the target.
pub(super) fn target(check: &HealthCheck) -> Result<Target, Fault> {
    let text = check.target.expose().trim();
    if text.is_empty() {
        return Err(unusable("it has no target"));
    }
    match check.kind {
        CheckKind::Tcp => place(text).map(Target::Tcp),
        CheckKind::Http => http(text, "http", check.expected_status),
        CheckKind::Https => http(text, "https", check.expected_status),
        CheckKind::Unknown(kind) => {
            Err(unusable(&format!("this version of the agent does not know checks of type {kind}")))
        }
    }
}

fn unusable(why: &str) -> Fault {
    Fault::Unusable(why.to_owned())
}

/// `host:port`, `[v6]:port`; the scheme `tcp://` that some write is taken too.
fn place(text: &str) -> Result<Place, Fault> {
    let wrong = || unusable("its target is not host:port");
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0 && !text.ends_with('+')).ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            address
        }
        // Without brackets nobody can say where an IPv6 address ends.
        None if host.contains(':') => return Err(unusable("its target needs brackets: [address]:port")),
        None => host,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
        return Err(wrong());
    }
    Ok(Place { host: host.to_owned(), port })
}

fn http(text: &str, scheme: &str, expected: u32) -> Result<Target, Fault> {
    if expected != 0 && !STATUSES.contains(&expected) {
        return Err(unusable(&format!("no answer ends with the status {expected}")));
    }
    let with_scheme;
    let text = if text.contains("://") {
        text
    } else {
        with_scheme = format!("{scheme}://{text}");
        &with_scheme
    };
    let url = Url::parse(text).map_err(|error| unusable(&format!("its target is not a URL: {error}")))?;
    let secure = match (url.scheme(), scheme) {
        ("https", _) => true,
        ("http", "http") => false,
        // What was meant to be looked at over TLS is not well just because it answers without.
        ("http", _) => return Err(unusable("an HTTPS check needs an https:// target")),
        _ => return Err(unusable("its target is neither http:// nor https://")),
    };
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(unusable("its target has no host")),
    };
    let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
    let request = request(&url).into();
    Ok(Target::Http { place: Place { host, port }, secure, request })
}

/// The parser of URLs leaves no blank, no line end and no other control character in any part.
fn request(url: &Url) -> String {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let agent = concat!("backupy-agent/", env!("CARGO_PKG_VERSION"));
    let mut request = format!(
        "GET {}{query} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n",
        url.path()
    );
    if !url.username().is_empty() || url.password().is_some() {
        let credentials =
            format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
        request.push_str("Authorization: Basic ");
        BASE64.encode_append(credentials.as_bytes(), &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// Userinfo as it was before it was written into a URL.
fn decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let value = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(kind: CheckKind, target: &str) -> HealthCheck {
        HealthCheck {
            id: "c".into(),
            name: String::new(),
            kind,
            target: target.into(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            expected_status: 0,
        }
    }

    fn asked(kind: CheckKind, text: &str) -> (String, bool, String) {
        match target(&check(kind, text)).unwrap() {
            Target::Http { place, secure, request } => (place.label(), secure, request.expose().to_owned()),
            Target::Tcp(place) => panic!("{place:?}"),
        }
    }

    fn refused(kind: CheckKind, text: &str) -> String {
        target(&check(kind, text)).map(|target| format!("{target:?}")).unwrap_err().to_string()
    }

    #[test]
    fn a_request_says_what_a_server_needs_and_no_more() {
        let (place, secure, request) = asked(CheckKind::Http, "http://app.internal:8080/health?deep=1#top");
        assert_eq!((place.as_str(), secure), ("app.internal:8080", false));
        let agent = env!("CARGO_PKG_VERSION");
        assert_eq!(
            request,
            format!(
                "GET /health?deep=1 HTTP/1.1\r\nHost: app.internal:8080\r\nUser-Agent: backupy-agent/{agent}\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            )
        );
    }

    #[test]
    fn the_scheme_may_be_left_out_and_never_weakened() {
        assert_eq!(asked(CheckKind::Https, "app.internal/x").0, "app.internal:443");
        assert_eq!(asked(CheckKind::Http, "app.internal:81").0, "app.internal:81");
        assert!(asked(CheckKind::Http, "https://app.internal").1);
        assert!(refused(CheckKind::Https, "http://app.internal").contains("https://"));
        assert!(refused(CheckKind::Http, "ftp://app.internal").contains("neither"));
    }

    #[test]
    fn userinfo_becomes_a_header_and_a_line_end_never_does() {
        let (_, _, request) = asked(CheckKind::Http, "http://me:p%40ss+1%26@h/");
        assert!(request.contains(&format!("Basic {}\r\n", BASE64.encode(b"me:p@ss+1&"))), "{request}");
        let (_, _, request) = asked(CheckKind::Http, "http://h/a\r\nEvil: 1 b%0d%0a");
        assert!(!request.contains("\r\nEvil"), "{request}");
        assert_eq!(request.matches("\r\n").count(), 6);
    }

    #[test]
    fn addresses_of_both_kinds_are_read() {
        let read = |text| match target(&check(CheckKind::Tcp, text)) {
            Ok(Target::Tcp(place)) => (place.host, place.port),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(read("[::1]:80"), ("::1".into(), 80));
        assert_eq!(read("127.0.0.1:5432"), ("127.0.0.1".into(), 5432));
        assert_eq!(read("tcp://db.internal:6379"), ("db.internal".into(), 6379));
        assert_eq!(asked(CheckKind::Http, "http://[::1]:8080/").0, "[::1]:8080");
        for text in
            ["", ":80", "h", "h:0", "h:70000", "::1:80", "[::1]", "[x]:80", "a b:80", "u@h:80", "h:80/x"]
        {
            assert!(target(&check(CheckKind::Tcp, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_done_says_why_without_the_target() {
        assert_eq!(
            refused(CheckKind::Unknown(7), "x:1"),
            "the check cannot be done: this version of the agent does not know checks of type 7"
        );
        let odd = HealthCheck { expected_status: 99, ..check(CheckKind::Http, "http://h/") };
        assert!(target(&odd).unwrap_err().to_string().contains("status 99"));
        for text in ["http://user:hunter2@/", "http://[hunter2", "hunter2://x:y", "http://h:hunter2/"] {
            assert!(!refused(CheckKind::Http, text).contains("hunter2"), "{text}");
        }
        assert!(!format!("{:?}", target(&check(CheckKind::Http, "http://h/?t=hunter2"))).contains("hunter2"));
    }
}
