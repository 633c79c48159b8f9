//! Dials over real sockets: what goes right, and every fault with the words an operator reads.

pub mod peer;

use backupy_agent::channel::DialError;
use backupy_agent::channel::dial::{Dialer, Link};
use backupy_agent::channel::frame::{Frame, FrameError, FrameKind};
use backupy_agent::channel::pins::Pin;
use backupy_agent::channel::tls::TlsOptions;
use backupy_agent::channel::websocket::{DialOptions, DialOptionsError, WebSocketDialer};
use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use peer::{Ca, Identity, Script};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use url::Url;

/// Long enough for a busy machine, short enough to wait for.
const LIMIT: Duration = Duration::from_secs(10);

fn key() -> String {
    crate::common::agent_key('k')
}

fn options(server: &str, ca_file: Option<&Path>, pins: &[Pin]) -> DialOptions {
    DialOptions {
        server: Url::parse(server).unwrap(),
        agent_key: key().into(),
        allow_insecure: server.starts_with("http:"),
        tls: TlsOptions { ca_file: ca_file.map(Path::to_owned), pins: pins.to_vec() },
        proxy: None,
        no_proxy: Vec::new(),
    }
}

async fn dial(options: DialOptions) -> Result<Link, DialError> {
    WebSocketDialer::with_limit(options, LIMIT).unwrap().dial().await
}

/// A CA, its file, and a server with this identity.
struct House {
    ca: Ca,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { ca: Ca::new("Test CA"), dir: tempfile::tempdir().unwrap() };
        house.trust(&house.ca);
        house
    }

    fn trust(&self, ca: &Ca) {
        std::fs::write(self.ca_file(), ca.pem()).unwrap();
    }

    fn ca_file(&self) -> std::path::PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Dials a server with this identity, trusting this house's CA and asking for these pins.
    async fn dial(&self, identity: &Identity, pins: &[Pin], script: Script) -> Result<Link, DialError> {
        let port = peer::tls(identity, script);
        dial(options(&format!("https://localhost:{port}"), Some(&self.ca_file()), pins)).await
    }

    async fn tls_error(&self, identity: &Identity, pins: &[Pin]) -> String {
        tls_error(self.dial(identity, pins, peer::quiet()).await)
    }
}

fn error_of(outcome: Result<Link, DialError>) -> DialError {
    let error = outcome.err().expect("the dial must fail");
    assert!(!error.to_string().contains(&key()), "{error}");
    error
}

fn tls_error(outcome: Result<Link, DialError>) -> String {
    let error = error_of(outcome);
    assert!(matches!(error, DialError::Tls { .. }), "{error:?}");
    error.to_string()
}

#[actix::test]
async fn a_dial_says_who_it_is_and_carries_frames_both_ways() {
    let house = House::new();
    let (heads, head) = mpsc::channel();
    let script = peer::upgrading(heads, |socket| {
        assert_eq!(peer::read_frame(socket), (2, b"from the agent".to_vec()));
        // A message in two fragments, a ping between them.
        socket.write_all(b"\x02\x04from\x89\x01p\x80\x07 server").unwrap();
        socket.flush().unwrap();
        assert_eq!(peer::read_frame(socket).0, 8);
    });
    let port = peer::tls(&house.ca.leaf("localhost"), script);
    let server = format!("https://localhost:{port}/prefix?tenant=7");
    let mut link = dial(options(&server, Some(&house.ca_file()), &[])).await.unwrap();
    let head = head.recv().unwrap();
    assert!(head.starts_with("GET /prefix/v1/agents/connect?tenant=7 HTTP/1.1\r\n"), "{head}");
    let has = |line: &str| head.lines().any(|have| have.eq_ignore_ascii_case(line));
    assert!(has(&format!("authorization: Bearer {}", key())), "{head}");
    assert!(has(concat!("user-agent: backupy-agent/", env!("CARGO_PKG_VERSION"))), "{head}");
    assert!(has(&format!("host: localhost:{port}")), "{head}");

    link.sink.send(Frame::binary("from the agent")).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let frame = link.stream.next().await.unwrap().unwrap();
        kinds.push((frame.kind, frame.fin));
    }
    let expected = [(FrameKind::Binary, false), (FrameKind::Ping, true), (FrameKind::Continuation, true)];
    assert_eq!(kinds, expected);
    link.sink.send(Frame::close(Some(1000), "")).await.unwrap();
}

#[actix::test]
async fn an_expired_certificate_is_named() {
    let house = House::new();
    let error = house.tls_error(&house.ca.leaf_until("localhost", 2021), &[]).await;
    assert!(error.contains("expired") && error.contains("renew"), "{error}");
}

#[actix::test]
async fn a_certificate_that_is_not_valid_yet_is_named() {
    let house = House::new();
    let error = house.tls_error(&house.ca.leaf_between("localhost", 2098, 2099), &[]).await;
    assert!(error.contains("not valid yet") && error.contains("clock"), "{error}");
}

#[actix::test]
async fn an_ipv6_address_is_dialled_and_the_certificate_must_be_for_it() {
    let house = House::new();
    let (heads, head) = mpsc::channel();
    let identity = house.ca.leaf("::1");
    let port = peer::tls_on_ipv6(&identity, peer::upgrading(heads, |_| {}));
    let server = format!("https://[::1]:{port}");
    for pins in [&[][..], &[identity.pin()]] {
        let outcome = dial(options(&server, Some(&house.ca_file()), pins)).await;
        assert!(outcome.is_ok(), "{:?}", outcome.err());
        let head = head.recv().unwrap();
        assert!(head.to_lowercase().contains(&format!("host: [::1]:{port}\r\n")), "{head}");
    }
    let error = tls_error(dial(options(&server, Some(&house.ca_file()), &[[7; 32]])).await);
    assert!(error.contains("server.pins"), "{error}");
    for other in ["::2", "127.0.0.1", "address.invalid"] {
        let port = peer::tls_on_ipv6(&house.ca.leaf(other), peer::quiet());
        let server = format!("https://[::1]:{port}");
        let error = tls_error(dial(options(&server, Some(&house.ca_file()), &[])).await);
        assert!(error.contains("is not for ::1 but for"), "{other}: {error}");
    }
}

#[actix::test]
async fn a_certificate_of_another_name_says_which_it_has() {
    let house = House::new();
    let error = house.tls_error(&house.ca.leaf("other.test"), &[]).await;
    assert!(error.contains("not for localhost") && error.contains("other.test"), "{error}");
}

#[actix::test]
async fn an_unknown_issuer_is_named_with_the_file_that_should_have_it() {
    let house = House::new();
    let error = house.tls_error(&Ca::new("Somebody else").leaf("localhost"), &[]).await;
    assert!(error.contains("not issued by the CA in") && error.contains("ca.pem"), "{error}");
}

#[actix::test]
async fn a_server_without_tls_13_is_named() {
    let house = House::new();
    let port = peer::tls_of(&house.ca.leaf("localhost"), &[&rustls::version::TLS12], peer::quiet());
    let server = format!("https://localhost:{port}");
    let error = tls_error(dial(options(&server, Some(&house.ca_file()), &[])).await);
    assert!(error.contains("does not speak TLS 1.3"), "{error}");
}

#[actix::test]
async fn a_clear_text_port_is_named() {
    let house = House::new();
    let port = peer::clear(std::sync::Arc::new(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    }));
    let server = format!("https://localhost:{port}");
    let error = tls_error(dial(options(&server, Some(&house.ca_file()), &[])).await);
    assert!(error.contains("clear-text service"), "{error}");
}

#[actix::test]
async fn a_ca_file_that_is_missing_or_wrong_is_named_and_a_new_one_is_noticed() {
    let house = House::new();
    let port = peer::tls(&house.ca.leaf("localhost"), peer::quiet());
    let options = options(&format!("https://localhost:{port}"), Some(&house.ca_file()), &[]);
    let dialer = WebSocketDialer::with_limit(options, LIMIT).unwrap();

    std::fs::remove_file(house.ca_file()).unwrap();
    let error = tls_error(dialer.dial().await);
    assert!(error.contains("ca.pem cannot be read"), "{error}");
    std::fs::write(house.ca_file(), "no PEM at all").unwrap();
    let error = tls_error(dialer.dial().await);
    assert!(error.contains("holds no usable certificate"), "{error}");
    house.trust(&Ca::new("Somebody else, with a longer name"));
    let error = tls_error(dialer.dial().await);
    assert!(error.contains("not issued by the CA"), "{error}");
    house.trust(&house.ca);
    assert!(dialer.dial().await.is_ok());
}

#[actix::test]
async fn a_pin_of_the_leaf_the_chain_or_the_root_is_enough() {
    let house = House::new();
    let between = house.ca.intermediate("Intermediate");
    let identity = between.leaf("localhost").presenting(between.der());
    for pin in [identity.pin(), between.pin(), house.ca.pin()] {
        let outcome = house.dial(&identity, &[[0; 32], pin], peer::quiet()).await;
        assert!(outcome.is_ok(), "{:?}", outcome.err());
    }
}

#[actix::test]
async fn a_pin_mismatch_shows_the_key_that_the_server_has() {
    let house = House::new();
    let identity = house.ca.leaf("localhost");
    let error = house.tls_error(&identity, &[[7; 32]]).await;
    assert!(error.contains("server.pins") && error.contains(&BASE64.encode(&identity.pin())), "{error}");
}

#[actix::test]
async fn a_pinned_certificate_that_is_only_shown_proves_nothing() {
    let house = House::new();
    let pinned = Ca::new("Pinned, of somebody else");
    let identity = house.ca.leaf("localhost").presenting(pinned.der());
    let error = house.tls_error(&identity, &[pinned.pin()]).await;
    assert!(error.contains("server.pins"), "{error}");
}

#[actix::test]
async fn a_pin_does_not_replace_name_and_issuer() {
    let house = House::new();
    let other_name = house.ca.leaf("other.test");
    assert!(house.tls_error(&other_name, &[other_name.pin()]).await.contains("other.test"));
    let other_issuer = Ca::new("Somebody else").leaf("localhost");
    assert!(house.tls_error(&other_issuer, &[other_issuer.pin()]).await.contains("not issued by"));
}

#[actix::test]
async fn refusals_are_told_apart_by_their_status() {
    for (answer, status, retry_after_s) in [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 401, None),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", 403, None),
        ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 42\r\n\r\n", 503, Some(42)),
        ("HTTP/1.1 429 Too Many Requests\r\nretry-after: 99999\r\n\r\n", 429, Some(600)),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", 503, None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, None),
        ("HTTP/1.1 302 Found\r\nLocation: https://elsewhere.test/\r\n\r\n", 302, None),
    ] {
        let port = peer::clear(peer::answering(answer));
        let error = error_of(dial(options(&format!("http://127.0.0.1:{port}"), None, &[])).await);
        let host = format!("127.0.0.1:{port}");
        let expected = if matches!(status, 401 | 403) {
            DialError::Unauthorized { host, status }
        } else {
            DialError::Status { host, status, retry_after: retry_after_s.map(Duration::from_secs) }
        };
        assert_eq!(error, expected, "{answer}");
    }
}

#[actix::test]
async fn an_answer_that_is_no_websocket_handshake_is_named() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    ] {
        let port = peer::clear(peer::answering(answer));
        let error = error_of(dial(options(&format!("http://127.0.0.1:{port}"), None, &[])).await);
        assert!(matches!(error, DialError::Handshake { .. }), "{answer}: {error:?}");
    }
}

#[actix::test]
async fn a_server_that_never_answers_is_given_up_at_the_limit() {
    let port = peer::clear(std::sync::Arc::new(|mut socket| {
        let mut nothing = [0; 1024];
        while socket.read(&mut nothing).is_ok_and(|bytes| bytes > 0) {}
    }));
    for scheme in ["http", "https"] {
        let limit = Duration::from_millis(300);
        let options = options(&format!("{scheme}://localhost:{port}"), None, &[]);
        let dialer = WebSocketDialer::with_limit(options, limit).unwrap();
        let begin = Instant::now();
        let host = format!("localhost:{port}");
        assert_eq!(error_of(dialer.dial().await), DialError::Timeout { host, limit }, "{scheme}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[actix::test]
async fn nobody_there_and_no_such_name_are_told_apart() {
    let port = crate::common::free_port();
    let error = error_of(dial(options(&format!("http://localhost:{port}"), None, &[])).await);
    assert!(matches!(error, DialError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    // Longer than any label may be: refused without asking a name server.
    let name = "x".repeat(70);
    let error = error_of(dial(options(&format!("http://{name}.test:1"), None, &[])).await);
    assert!(matches!(error, DialError::Resolve { .. }), "{error:?}");
}

#[actix::test]
async fn clear_text_without_the_switch_is_not_dialled() {
    let mut options = options("http://127.0.0.1:1", None, &[]);
    options.allow_insecure = false;
    let error = WebSocketDialer::new(options).unwrap_err();
    assert!(matches!(error, DialOptionsError::Url(_)), "{error:?}");
}

#[actix::test]
async fn a_proxy_is_asked_for_a_tunnel_and_sees_neither_key_nor_path() {
    let house = House::new();
    let (heads, asked) = mpsc::channel();
    let (upgrades, upgraded) = mpsc::channel();
    let identity = house.ca.leaf("plane.test");
    let ok = "HTTP/1.1 200 Connection established\r\n\r\n";
    let port = peer::proxied(&identity, ok, heads, peer::upgrading(upgrades, |_| {}));
    // Only the proxy could know where plane.test is.
    let mut options = options("https://plane.test:8443", Some(&house.ca_file()), &[]);
    options.proxy = Some(Url::parse(&format!("http://me:secret@127.0.0.1:{port}")).unwrap());
    assert!(dial(options).await.is_ok());
    let asked = asked.recv().unwrap();
    assert!(asked.starts_with("CONNECT plane.test:8443 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&BASE64.encode(b"me:secret")) && !asked.contains(&key()), "{asked}");
    assert!(upgraded.recv().unwrap().starts_with("GET /v1/agents/connect "));
}

#[actix::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let house = House::new();
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    let (heads, _asked) = mpsc::channel();
    let port = peer::proxied(&house.ca.leaf("plane.test"), answer, heads, peer::quiet());
    let mut options = options("https://plane.test", Some(&house.ca_file()), &[]);
    options.proxy = Some(Url::parse(&format!("http://me:secret@127.0.0.1:{port}")).unwrap());
    let error = error_of(dial(options).await).to_string();
    assert!(error.contains("407") && !error.contains("secret"), "{error}");
    assert!(error.contains(&format!("the proxy 127.0.0.1:{port} ")), "{error}");
}

#[actix::test]
async fn a_frame_of_200_mib_is_refused_before_it_is_in_memory() {
    let (told, most) = mpsc::channel();
    let script = peer::upgrading(mpsc::channel().0, move |socket| {
        let before = resident_bytes();
        socket.write_all(b"\x82\x7f").unwrap();
        socket.write_all(&(200_u64 << 20).to_be_bytes()).unwrap();
        let piece = vec![0; 1 << 20];
        let mut most = 0;
        for _ in 0..200 {
            socket.write_all(&piece).unwrap();
            most = most.max(resident_bytes());
        }
        assert_eq!(peer::read_frame(socket), (8, b"\x03\xf1".to_vec()));
        told.send(most.saturating_sub(before)).unwrap();
    });
    let port = peer::clear(script);
    let mut link = dial(options(&format!("http://127.0.0.1:{port}"), None, &[])).await.unwrap();
    let refused = link.stream.next().await.unwrap().unwrap_err();
    assert_eq!(refused, FrameError::TooLarge { bytes: 200 << 20, limit: 4 << 20 });
    link.sink.send(Frame::close(Some(1009), "")).await.unwrap();
    // What still comes is thrown away, so the peer gets to read why.
    assert!(link.stream.next().await.is_none());
    let most = most.recv().unwrap();
    assert!(most < 16 << 20, "{most} bytes more");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
