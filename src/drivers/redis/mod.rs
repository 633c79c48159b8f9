//! Redis and Valkey: an RDB over replication, by `redis-cli --rdb -` or `valkey-cli`.
//!
//! An RDB is the whole server, whatever database the target names. Host and user are arguments of their own, which the
//! tool takes as they are; the password is in its environment. A host `rediss://HOST` is reached by TLS.

mod keys;
mod opcodes;
mod rdb;

use super::call::Call;
use super::form::{Form, Streamed};
use super::ground::Ground;
use super::tally::Tally;
use super::{Driver, DumpError, form, place, secret, tool};
use crate::drivers::Sink;
use crate::model::{Connection, Secret, Strategy, TargetSpec};
use crate::process::Cancel;
pub use rdb::{MAGICS, Rdb};
use std::path::PathBuf;
use std::time::Duration;

/// Either speaks to servers of both names.
const TOOLS: [&str; 2] = ["redis-cli", "valkey-cli"];
const PACKAGE: &str = "redis-tools";

/// The engine's own.
const PORT: u16 = 6379;

/// Begins a host that is reached by TLS.
const TLS: &str = "rediss://";

/// Of the agent's environment: roots besides the system's own. The tool must be told.
const ROOTS: &str = "SSL_CERT_FILE";

/// For one question to a server.
const ANSWER: Duration = Duration::from_secs(20);

/// What a server said of itself.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// `Redis 7.0.15`, `Valkey 8.0.1`
    version: String,
    /// Memory of the data: more than an RDB of it has, mostly.
    used_bytes: u64,
    /// A node of a cluster has the keys of its own slots only.
    is_cluster: bool,
}

/// One server.
pub struct Redis {
    target: String,
    connection: Connection,
    ground: Ground,
    password: Secret,
    tool: (&'static str, PathBuf),
    server: Option<Server>,
    /// As the dump says: a user may not be allowed to ask.
    dumped_version: Option<String>,
    warnings: Vec<String>,
    tally: Option<Tally>,
}

impl Redis {
    /// Resolves the password and finds the tool.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::ToolMissing`].
    pub fn open(target: &TargetSpec, ground: Ground, cancel: &Cancel) -> Result<Self, DumpError> {
        let connection = target.connection.clone();
        if connection.strategy == Strategy::UnixSocket && connection.host.is_empty() {
            return Err(place::problem(target, "its host must be the absolute path of the server's socket"));
        }
        if let Some(host) = tls_host(&connection)
            && (host.is_empty() || host.contains(['/', '@', '?']) || (host.contains(':') && !is_ipv6(host)))
        {
            return Err(place::problem(
                target,
                "its host must be rediss:// and a name or address alone: the rest goes into connection.port, connection.username and password_secret_ref",
            ));
        }
        let password = secret::password(target)?;
        let tool = ground.find_any(&TOOLS, cancel)?;
        let tool = tool.ok_or_else(|| ground.missing(TOOLS[0], PACKAGE))?;
        let id = target.id.to_string();
        Ok(Self {
            target: id,
            connection,
            ground,
            password,
            tool,
            server: None,
            dumped_version: None,
            warnings: Vec::new(),
            tally: None,
        })
    }

    fn call(&self) -> Call {
        let (name, program) = &self.tool;
        let Connection { host, port, username, .. } = &self.connection;
        let mut call = Call::new(&self.ground, name, program.clone()).hiding(&self.password);
        call = match place::socket(&self.connection) {
            Some(path) => call.args(["-s", path]),
            None => {
                let port = if *port == 0 { PORT } else { *port };
                let host = if host.is_empty() { place::LOOPBACK } else { host };
                let tls = tls_host(&self.connection);
                let host = tls.unwrap_or(host);
                let call = call.args(["-h", host, "-p", &port.to_string()]);
                if tls.is_some() { self.by_tls(call, host) } else { call }
            }
        };
        if !username.is_empty() {
            call = call.args(["--user", username]);
        }
        call = call.arg("--no-auth-warning");
        // Without it the tool never says its user, who may need no password.
        let has_auth = !self.password.is_empty() || !username.is_empty();
        if has_auth { call.env("REDISCLI_AUTH", self.password.expose()) } else { call }
    }

    fn by_tls(&self, call: Call, host: &str) -> Call {
        let mut call = call.arg("--tls");
        // The name of the server, where it has one: by it a host of many finds the certificate.
        if host.parse::<std::net::IpAddr>().is_err() {
            call = call.args(["--sni", host]);
        }
        match (&self.ground, std::env::var_os(ROOTS)) {
            (Ground::Host(_), Some(roots)) if !roots.is_empty() => call.arg("--cacert").arg(roots),
            (Ground::Host(_) | Ground::Container(_), _) => call,
        }
    }

    /// Asks the server what it is. Its user may not be allowed to be told: the dump's own words are better.
    fn ask(&self, cancel: &Cancel) -> Result<Option<Server>, DumpError> {
        match tool::answer(&self.call().arg("INFO"), ANSWER, cancel) {
            Ok(answer) => Ok(parse(&answer)),
            Err(DumpError::Cancelled) => Err(DumpError::Cancelled),
            Err(error) => {
                tracing::debug!(target = self.target, %error, "the server could not be asked for its version and size");
                Ok(None)
            }
        }
    }
}

impl Driver for Redis {
    fn estimate(&mut self, cancel: &Cancel) -> Result<u64, DumpError> {
        self.server = self.ask(cancel)?;
        Ok(self.server.as_ref().map_or(0, |server| server.used_bytes))
    }

    fn engine_version(&self) -> String {
        let asked = self.server.as_ref().map(|server| server.version.as_str());
        asked.or(self.dumped_version.as_deref()).unwrap_or("Redis").to_owned()
    }

    fn magic(&self) -> &'static [u8] {
        // One of two: the RDB's form looks for them.
        b""
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let mut rdb = Rdb::new();
        let call = self.call().args(["--rdb", "-"]);
        let Streamed { bytes, warnings } = form::stream(&call, "Redis", &mut rdb, out, cancel)?;
        self.warnings = warnings;
        self.dumped_version = rdb.version();
        self.tally = rdb.tally();
        Ok(bytes)
    }

    fn remarks(&self) -> Vec<String> {
        let is_part = self.server.as_ref().is_some_and(|server| server.is_cluster);
        let text = "the server is a node of a cluster: only the keys of its own slots are in the dump; every master needs a target of its own";
        is_part.then(|| text.to_owned()).into_iter().chain(self.warnings.iter().cloned()).collect()
    }

    fn tally(&mut self) -> Option<Tally> {
        self.tally.take()
    }
}

/// The host behind `rediss://`, without the brackets of an address.
fn tls_host(connection: &Connection) -> Option<&str> {
    let host = connection.host.strip_prefix(TLS)?.trim_end_matches('/');
    Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
}

fn is_ipv6(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
}

fn parse(info: &str) -> Option<Server> {
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let version = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => return None,
    };
    let used_bytes = field("used_memory_dataset").or_else(|| field("used_memory"));
    let used_bytes = used_bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    Some(Server { version, used_bytes, is_cluster: field("cluster_enabled").is_some_and(|is| is == "1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_by_tls_is_a_name_or_an_address_alone() {
        let host = |host: &str| {
            let connection = Connection { host: host.into(), ..Connection::default() };
            tls_host(&connection).map(str::to_owned)
        };
        assert_eq!(host("rediss://db.example/").as_deref(), Some("db.example"));
        assert_eq!(host("rediss://[::1]").as_deref(), Some("::1"));
        assert_eq!(host("db.example"), None);
        for more in ["rediss://", "rediss://u:p@h", "rediss://h:6380", "rediss://h/0"] {
            let connection = Connection { host: more.into(), ..Connection::default() };
            let (engine, display_name) = (None, String::new());
            let target = TargetSpec { id: "t".into(), engine, display_name, connection };
            let ground = Ground::Host(crate::drivers::Host::default());
            let refused = Redis::open(&target, ground, &Cancel::new()).err().unwrap().to_string();
            assert!(refused.contains("connection.port"), "{more}: {refused}");
        }
    }

    #[test]
    fn a_server_is_known_by_what_it_says() {
        let is = |info: &str, version: &str, used_bytes, is_cluster| {
            assert_eq!(parse(info), Some(Server { version: version.into(), used_bytes, is_cluster }));
        };
        let redis = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:2000\r\nused_memory_dataset:1500\r\n";
        is(redis, "Redis 7.0.15", 1500, false);
        is(&format!("{redis}# Cluster\r\ncluster_enabled:1\r\n"), "Redis 7.0.15", 1500, true);
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nused_memory:9\r\n";
        is(valkey, "Valkey 8.0.1", 9, false);
        assert_eq!(parse("NOAUTH Authentication required.\n"), None);
    }
}
