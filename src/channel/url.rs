//! From the configured server URL to the one that is dialled (protocol section 1).

use url::Url;

/// Where agents connect.
const CONNECT_PATH: &str = "/v1/agents/connect";

/// Why there is no URL to dial. None of them shows userinfo or query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Clear text.
    #[error(
        "{scheme}://{host} would carry the agent key in clear text: use https, or set server.allow_insecure for a development server"
    )]
    Insecure {
        /// `http` or `ws`.
        scheme: String,
        /// Host and port.
        host: String,
    },
    /// Neither http nor WebSocket.
    #[error("server.url has the scheme \"{0}\": use https or wss")]
    Scheme(String),
    /// No host.
    #[error("server.url names no host")]
    NoHost,
}

/// The URL of the WebSocket: `ws` or `wss`, a path prefix and the query kept, no userinfo, no fragment.
///
/// # Errors
/// [`UrlError`]; the clear schemes are refused without `allow_insecure`.
pub fn connect_url(server: &Url, allow_insecure: bool) -> Result<Url, UrlError> {
    if server.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::NoHost);
    }
    let scheme = match server.scheme() {
        "https" | "wss" => "wss",
        "http" | "ws" if allow_insecure => "ws",
        clear @ ("http" | "ws") => {
            return Err(UrlError::Insecure { scheme: clear.to_owned(), host: host(server) });
        }
        other => return Err(UrlError::Scheme(other.to_owned())),
    };
    let mut url = server.clone();
    let path = server.path().trim_end_matches('/');
    if path.ends_with(CONNECT_PATH) {
        url.set_path(path);
    } else {
        url.set_path(&format!("{path}{CONNECT_PATH}"));
    }
    url.set_fragment(None);
    // Between the four special schemes, with a host: none of these can fail.
    let kept =
        url.set_scheme(scheme).and_then(|()| url.set_username("")).and_then(|()| url.set_password(None));
    kept.map_err(|()| UrlError::Scheme(server.scheme().to_owned()))?;
    Ok(url)
}

/// `host:port` for logs and errors: no userinfo, no path, no query.
pub fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("");
    match url.port_or_known_default() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(server: &str) -> Result<String, UrlError> {
        connect_url(&Url::parse(server).unwrap(), false).map(String::from)
    }

    #[test]
    fn schemes_are_mapped_and_the_path_is_appended_once() {
        for (server, expected) in [
            ("https://api.example.org", "wss://api.example.org/v1/agents/connect"),
            ("https://api.example.org/", "wss://api.example.org/v1/agents/connect"),
            ("wss://api.example.org:8443", "wss://api.example.org:8443/v1/agents/connect"),
            ("https://example.org/backup/", "wss://example.org/backup/v1/agents/connect"),
            ("https://example.org/v1/agents/connect", "wss://example.org/v1/agents/connect"),
            ("https://example.org/p/v1/agents/connect/", "wss://example.org/p/v1/agents/connect"),
            (
                "https://example.org/a%2Fb?tenant=7&x=%2F",
                "wss://example.org/a%2Fb/v1/agents/connect?tenant=7&x=%2F",
            ),
            ("https://[::1]:9/", "wss://[::1]:9/v1/agents/connect"),
            ("https://user:secret@example.org/#top", "wss://example.org/v1/agents/connect"),
        ] {
            assert_eq!(connect(server).as_deref(), Ok(expected), "{server}");
        }
    }

    #[test]
    fn clear_text_needs_the_switch() {
        for server in ["http://127.0.0.1:8080/?k=secret", "ws://127.0.0.1:8080"] {
            let url = Url::parse(server).unwrap();
            let error = connect_url(&url, false).unwrap_err();
            assert!(matches!(error, UrlError::Insecure { .. }), "{error}");
            assert!(!error.to_string().contains("secret"));
            assert_eq!(connect_url(&url, true).unwrap().scheme(), "ws");
        }
    }

    #[test]
    fn other_schemes_and_missing_hosts_are_refused() {
        assert_eq!(connect("ftp://example.org"), Err(UrlError::Scheme("ftp".into())));
        assert_eq!(connect("file:///etc/passwd"), Err(UrlError::NoHost));
    }

    #[test]
    fn logs_see_host_and_port_only() {
        let url = Url::parse("https://user:secret@example.org/path?key=secret").unwrap();
        assert_eq!(host(&url), "example.org:443");
    }
}
