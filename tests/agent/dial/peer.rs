//! Servers on loopback, one connection after the other, and the certificates they show.

use backupy_agent::channel::pins::{Pin, pin_of};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A test that hangs is a test that fails.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.as_ref().der().clone()
    }

    pub fn pin(&self) -> Pin {
        pin_of(&self.der()).unwrap()
    }

    pub fn intermediate(&self, name: &str) -> Self {
        let issued = CertifiedIssuer::signed_by(Self::params(name), KeyPair::generate().unwrap(), &self.0);
        Self(issued.unwrap())
    }

    pub fn leaf(&self, name: &str) -> Identity {
        self.leaf_until(name, 2099)
    }

    pub fn leaf_until(&self, name: &str, year: i32) -> Identity {
        self.leaf_between(name, 2020, year)
    }

    pub fn leaf_between(&self, name: &str, first_year: i32, year: i32) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(first_year, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }
}

/// What a server shows.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Identity {
    pub fn presenting(mut self, certificate: CertificateDer<'static>) -> Self {
        self.chain.push(certificate);
        self
    }

    pub fn pin(&self) -> Pin {
        pin_of(&self.chain[0]).unwrap()
    }

    fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        Arc::new(config)
    }
}

pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

pub type Socket = Box<dyn Duplex>;

/// What a server does with each connection.
pub type Script = Arc<dyn Fn(Socket) + Send + Sync>;

/// A server whose connections follow the script. It ends with the test's process.
fn listen(accept: impl Fn(TcpStream) + Send + 'static) -> u16 {
    listen_on(TcpListener::bind(("127.0.0.1", 0)).unwrap(), accept)
}

fn listen_on(listener: TcpListener, accept: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(SOCKET_TIMEOUT)).unwrap();
            stream.set_write_timeout(Some(SOCKET_TIMEOUT)).unwrap();
            accept(stream);
        }
    });
    port
}

pub fn clear(script: Script) -> u16 {
    listen(move |stream| script(Box::new(stream)))
}

pub fn tls(identity: &Identity, script: Script) -> u16 {
    tls_of(identity, &[&rustls::version::TLS13], script)
}

/// The same on IPv6's loopback.
pub fn tls_on_ipv6(identity: &Identity, script: Script) -> u16 {
    let config = identity.config(&[&rustls::version::TLS13]);
    let listener = TcpListener::bind(("::1", 0)).expect("this test needs IPv6 on loopback");
    listen_on(listener, move |stream| script(encrypted(&config, stream)))
}

pub fn tls_of(identity: &Identity, versions: &[&'static SupportedProtocolVersion], script: Script) -> u16 {
    let config = identity.config(versions);
    listen(move |stream| script(encrypted(&config, stream)))
}

fn encrypted(config: &Arc<ServerConfig>, stream: impl Duplex + 'static) -> Socket {
    Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream))
}

/// A proxy with the server behind it in one: it answers CONNECT, then is the server.
pub fn proxied(
    identity: &Identity,
    answer: &'static str,
    heads: mpsc::Sender<String>,
    script: Script,
) -> u16 {
    let config = identity.config(&[&rustls::version::TLS13]);
    listen(move |mut stream| {
        heads.send(read_head(&mut stream)).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        script(encrypted(&config, stream));
    })
}

/// Empty where the peer went away, for example because it did not like the certificate.
pub fn read_head(socket: &mut (impl Read + ?Sized)) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Answers with these bytes.
pub fn answering(answer: &'static str) -> Script {
    Arc::new(move |mut socket| {
        read_head(&mut *socket);
        let _ = socket.write_all(answer.as_bytes());
        let _ = socket.flush();
    })
}

/// Upgrades, tells the request's head, and goes on with the script.
pub fn upgrading(
    heads: mpsc::Sender<String>,
    then: impl Fn(&mut dyn Duplex) + Send + Sync + 'static,
) -> Script {
    Arc::new(move |mut socket| {
        let head = read_head(&mut *socket);
        let Some(key) = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        }) else {
            return;
        };
        let accept = String::from_utf8(actix_http::ws::hash_key(key.as_bytes()).to_vec()).unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        socket.write_all(answer.as_bytes()).unwrap();
        socket.flush().unwrap();
        let _ = heads.send(head);
        then(&mut *socket);
    })
}

/// Upgrades and says nothing.
pub fn quiet() -> Script {
    upgrading(mpsc::channel().0, |_| {})
}

/// The next frame of a client: opcode and unmasked payload.
pub fn read_frame(socket: &mut dyn Duplex) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[1] & 0x80, 0x80, "clients mask");
    assert!(head[1] & 0x7f < 126, "short frames only");
    let mut mask = [0; 4];
    socket.read_exact(&mut mask).unwrap();
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    socket.read_exact(&mut payload).unwrap();
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    (head[0] & 0x0f, payload)
}
