//! The way through an HTTP proxy: whether one is used for a host, and CONNECT.

use super::url::host;
use data_encoding::BASE64;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use url::Url;

/// A proxy's answer is a status line and a few headers.
const MAX_ANSWER_BYTES: usize = 8 * 1024;

/// Whether `host:port` is dialled without the proxy: loopback always, else what NO_PROXY says. An
/// entry is `*`, a domain (its subdomains included), an address, or a network in CIDR form; a domain
/// or an address may carry a port.
pub(super) fn is_bypassed(host: &str, port: u16, no_proxy: &[String]) -> bool {
    let host = unbracketed(host).trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.iter().any(|entry| entry_matches(entry.trim(), &host, address, port))
}

fn entry_matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some(address), Some((network, prefix))) = (address, entry.split_once('/')) {
        return match (network.parse(), prefix.parse()) {
            (Ok(network), Ok(prefix)) => is_in_network(address, network, prefix),
            _ => false,
        };
    }
    if let (Some(address), Ok(entry)) = (address, unbracketed(entry).parse::<IpAddr>()) {
        return address == entry;
    }
    let (name, wanted_port) = match entry.rsplit_once(':') {
        Some((name, digits)) if digits.parse::<u16>().is_ok() => (name, digits.parse().ok()),
        Some(_) | None => (entry, None),
    };
    if wanted_port.is_some_and(|wanted: u16| wanted != port) {
        return false;
    }
    let name = unbracketed(name).trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    !name.is_empty() && (host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')))
}

/// An IPv6 address is written in brackets where a port may follow.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_in_network(address: IpAddr, network: IpAddr, prefix: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let Some(host_bits) = u32::checked_sub(bits, prefix) else { return false };
    address.checked_shr(host_bits).unwrap_or(0) == network.checked_shr(host_bits).unwrap_or(0)
}

/// Why there is no tunnel.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    /// Which proxy, what it answered and what to do; its user and password are not in it.
    pub(super) cause: String,
    /// It will answer the same until somebody does something.
    pub(super) is_final: bool,
}

/// Asks the proxy for a tunnel to `target` (`host:port`).
///
/// # Errors
/// [`Refusal`]
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Url,
    target: &str,
) -> Result<(), Refusal> {
    let name = host(proxy);
    let passing = |what: String| Refusal { cause: format!("the proxy {name} {what}"), is_final: false };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if !proxy.username().is_empty() {
        let credentials =
            format!("{}:{}", decoded(proxy.username()), decoded(proxy.password().unwrap_or("")));
        request.push_str("Proxy-Authorization: Basic ");
        BASE64.encode_append(credentials.as_bytes(), &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let written = stream.write_all(request.as_bytes()).await;
    written.map_err(|error| passing(format!("broke off: {error}")))?;
    let head = read_head(stream).await.map_err(passing)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let what = match status {
        Some(200..=299) => return Ok(()),
        Some(407) if proxy.username().is_empty() => {
            "wants a user and a password (407): put them into server.proxy, as http://user:password@host:port"
                .into()
        }
        Some(407) => {
            "refused the user and the password of server.proxy (407): check them. Signs like @ : / % are \
                      written percent-encoded there"
                .into()
        }
        Some(status) => format!("refused the tunnel to {target} with {status}: ask who runs it"),
        None => "does not speak HTTP: check server.proxy".into(),
    };
    Err(Refusal { is_final: matches!(status, Some(403 | 407)), ..passing(what) })
}

/// The status line. Byte by byte: what follows the empty line belongs to the tunnel.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_ANSWER_BYTES {
            return Err("gave an answer without an end: check server.proxy".into());
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => return Err(format!("broke off: {error}")),
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Userinfo as it was before it was written into a URL.
fn decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B"));
    let value = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bypassed(host: &str, no_proxy: &[&str]) -> bool {
        let no_proxy: Vec<String> = no_proxy.iter().map(|entry| String::from(*entry)).collect();
        is_bypassed(host, 443, &no_proxy)
    }

    #[test]
    fn loopback_never_goes_through_a_proxy() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(bypassed(host, &[]), "{host}");
        }
        assert!(!bypassed("example.org", &[]));
    }

    #[test]
    fn no_proxy_names_domains_addresses_networks_and_ports() {
        for (entry, host, expected) in [
            ("*", "example.org", true),
            ("example.org", "example.org", true),
            ("example.org", "API.Example.org", true),
            (".example.org", "api.example.org", true),
            ("*.example.org", "api.example.org", true),
            ("example.org", "notexample.org", false),
            ("example.org:443", "example.org", true),
            ("example.org:8443", "example.org", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.0.0.0/99", "10.0.0.0", false),
            ("fd00::/8", "[fd12::1]", true),
            ("[fd12::1]", "fd12::1", true),
            ("[fd12::1]:443", "fd12::1", true),
            ("[fd12::1]:8443", "fd12::1", false),
            ("example.org", "example.org.", true),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.8", false),
            ("", "example.org", false),
        ] {
            assert_eq!(bypassed(host, &[entry]), expected, "{entry} {host}");
        }
    }

    async fn ask(proxy: &str, answer: &'static [u8]) -> (Result<(), Refusal>, String) {
        let (mut agent, mut far) = tokio::io::duplex(4096);
        let proxy = Url::parse(proxy).unwrap();
        let server = async {
            far.write_all(answer).await.unwrap();
            let mut request = vec![0; 4096];
            let bytes = far.read(&mut request).await.unwrap();
            drop(far);
            String::from_utf8_lossy(&request[..bytes]).into_owned()
        };
        tokio::join!(connect(&mut agent, &proxy, "plane.test:443"), server)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_the_decoded_credentials() {
        let (outcome, request) = ask("http://me:p%40ss+1@proxy:3128", b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert!(request.starts_with("CONNECT plane.test:443 HTTP/1.1\r\nHost: plane.test:443\r\n"));
        let header = format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(b"me:p@ss+1"));
        assert!(request.contains(&header), "{request}");
    }

    #[tokio::test]
    async fn refusals_say_what_to_do_and_not_the_password() {
        let (outcome, _) = ask("http://proxy:3128", b"HTTP/1.1 407 Who are you\r\n\r\n").await;
        assert!(outcome.unwrap_err().cause.contains("wants a user and a password"));
        for (answer, word, is_final) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\nA: b\r\n\r\n"[..], "refused the user", true),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403", true),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502", false),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "503", false),
            (b"\x15\x03\x03\r\n\r\n", "does not speak HTTP", false),
            (b"HTTP/1.1 200", "broke off", false),
        ] {
            let (outcome, _) = ask("http://me:secret@proxy:3128", answer).await;
            let Refusal { cause, is_final: told } = outcome.unwrap_err();
            assert!(cause.starts_with("the proxy proxy:3128 ") && cause.contains(word), "{cause}");
            assert!(!cause.contains("secret") && told == is_final, "{cause}");
        }
    }
}
