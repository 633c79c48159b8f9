//! PostgreSQL by pg_dump's custom format, uncompressed: our own compression is faster and has workers.
//!
//! Everything a role can see is in the dump: owners, privileges, comments, large objects. Host, user and database
//! reach the tools as libpq's own variables, which take every character and are never parsed; on a command line
//! `a=b` would be a connection string.

mod archive;
mod lexer;
mod rows;
mod version;

use super::call::Call;
use super::form::{Form, Streamed};
use super::ground::Ground;
use super::tally::Tally;
use super::{Driver, DumpError, form, place, secret, tool};
use crate::drivers::Sink;
use crate::model::{Connection, Secret, Strategy, TargetSpec};
use crate::process::Cancel;
pub use archive::Archive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use version::Server;

/// The engine, for people.
const ENGINE: &str = "PostgreSQL";

/// The package with both tools.
const PACKAGE: &str = "postgresql-client";

/// A table that somebody has locked is waited for so long: longer than a migration should take, short beside
/// a night.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// For the way to the server.
const CONNECT_S: u32 = 15;

/// For one question to a server that is there.
const ANSWER: Duration = Duration::from_secs(40);

/// Version and size, one row: the number, its text, bytes. Nothing here waits for a lock; the size has indexes in it.
const QUESTION: &str = "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_version'), \
     pg_catalog.pg_database_size(pg_catalog.current_database())";

/// What a dump has of the database: its tables without indexes, and large objects. Asked apart: a table that somebody has
/// locked holds it up, and then the size of the whole must do. What it sets is gone with it, also behind a pooler. The
/// search path first: an operator that somebody put into `public` would be called with the rights of the backup's user. The
/// lock's own limit, since servers before 11 do not hear of the statement's in time.
const DUMPED_SIZE: &str = "SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = 2000; SET LOCAL statement_timeout = 10000; \
     SELECT COALESCE(SUM(pg_catalog.pg_table_size(c.oid)), 0) + pg_catalog.pg_table_size('pg_catalog.pg_largeobject'::regclass) \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// One database of a server.
pub struct Postgres {
    target: String,
    ground: Ground,
    /// libpq's variables, without the password.
    place: Vec<(&'static str, String)>,
    password: Secret,
    tools: Vec<PathBuf>,
    server: Option<Server>,
    /// As the dump said.
    dumped_version: Option<String>,
    tally: Option<Tally>,
    warnings: Vec<String>,
}

/// Whether the target can be reached in its way.
///
/// # Errors
/// [`DumpError::Target`]
pub fn supports(target: &TargetSpec) -> Result<(), DumpError> {
    place::check(target)?;
    if target.connection.database.is_empty() {
        let what = "names no database: set connection.database, one target for each database";
        return Err(place::problem(target, what));
    }
    Ok(())
}

impl Postgres {
    /// Resolves the password and finds the tool.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::ToolMissing`].
    pub fn open(target: &TargetSpec, ground: Ground, cancel: &Cancel) -> Result<Self, DumpError> {
        let id = target.id.to_string();
        let place = variables(&target.connection);
        let password = secret::password(target)?;
        let tools = ground.find_each_postgres("pg_dump", cancel)?;
        if tools.is_empty() {
            return Err(ground.missing("pg_dump", PACKAGE));
        }
        Ok(Self {
            target: id,
            ground,
            place,
            password,
            tools,
            server: None,
            dumped_version: None,
            tally: None,
            warnings: Vec::new(),
        })
    }

    fn call(&self, name: &str, program: &Path) -> Call {
        let call = Call::new(&self.ground, name, program.to_owned())
            .hiding(&self.password)
            .env("PGCONNECT_TIMEOUT", CONNECT_S.to_string())
            .env("PGAPPNAME", "backupy-agent");
        let call = self.place.iter().fold(call, |call, (name, value)| call.env(name, value));
        if self.password.is_empty() { call } else { call.env("PGPASSWORD", self.password.expose()) }
    }

    /// Asks the server. One that does not answer is no reason yet: pg_dump's own words are better.
    fn ask(&self, question: &str, cancel: &Cancel) -> Result<Option<String>, DumpError> {
        let Some(psql) = self.ground.find_each_postgres("psql", cancel)?.into_iter().next() else {
            return Ok(None);
        };
        let call = self.call("psql", &psql).args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"]);
        let call = call.args(["--no-password", "--field-separator=\t", "--command", question]);
        match tool::answer(&call, ANSWER, cancel) {
            Ok(answer) => Ok(Some(answer)),
            Err(DumpError::Cancelled) => Err(DumpError::Cancelled),
            Err(error) => {
                tracing::debug!(target = self.target, %error, "the server could not be asked");
                Ok(None)
            }
        }
    }

    /// The first pg_dump that is not older than the server: that of the `PATH`, else the oldest that will do.
    fn tool(&self, cancel: &Cancel) -> Result<PathBuf, DumpError> {
        let mut newest: Option<(u32, String)> = None;
        for program in &self.tools {
            let Some(server) = &self.server else { return Ok(program.clone()) };
            let call = Call::new(&self.ground, "pg_dump", program.clone()).arg("--version");
            let said = match tool::answer(&call, ANSWER, cancel) {
                Ok(said) => said,
                Err(DumpError::Cancelled) => return Err(DumpError::Cancelled),
                Err(_) => continue,
            };
            // A tool that does not say its version is believed: it refuses by itself what it cannot dump.
            let Some(major) = version::major_of_tool(&said) else { return Ok(program.clone()) };
            if major >= server.major {
                return Ok(program.clone());
            }
            if newest.as_ref().is_none_or(|(known, _)| major > *known) {
                newest = Some((major, said.trim().to_owned()));
            }
        }
        let (Some(server), Some((_, tool))) = (&self.server, newest) else {
            return self.tools.first().cloned().ok_or_else(|| self.ground.missing("pg_dump", PACKAGE));
        };
        let package = format!("{PACKAGE}-{}", server.major);
        Err(DumpError::ToolTooOld {
            target: self.target.clone(),
            server: self.engine_version(),
            tool,
            package,
        })
    }
}

impl Driver for Postgres {
    fn estimate(&mut self, cancel: &Cancel) -> Result<u64, DumpError> {
        self.server = self.ask(QUESTION, cancel)?.and_then(|answer| Server::parse(&answer));
        let Some(server) = &self.server else { return Ok(0) };
        let dumped = self.ask(DUMPED_SIZE, cancel)?;
        Ok(dumped.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(server.size_bytes))
    }

    fn engine_version(&self) -> String {
        let asked = self.server.as_ref().map(|server| server.version.as_str());
        match asked.or(self.dumped_version.as_deref()) {
            Some(version) => format!("{ENGINE} {}", version::short(version)),
            None => ENGINE.to_owned(),
        }
    }

    fn magic(&self) -> &'static [u8] {
        archive::MAGIC
    }

    fn remarks(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn tally(&mut self) -> Option<Tally> {
        self.tally.take()
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let tool = self.tool(cancel)?;
        let lock_wait = format!("--lock-wait-timeout={}", LOCK_WAIT.as_millis());
        let call = self.call("pg_dump", &tool).args(["--format=custom", "--compress=0", "--no-password"]);
        let call = call.arg(lock_wait);
        let mut archive = Archive::new();
        let Streamed { bytes, warnings } = form::stream(&call, ENGINE, &mut archive, out, cancel)?;
        self.warnings = warnings;
        self.dumped_version = archive.server_version().map(str::to_owned);
        self.tally = archive.tally();
        if archive.was_unread() {
            tracing::warn!(
                target = self.target,
                tool = %tool.display(),
                "the dump's format is one that this agent cannot read: its end was not checked, only pg_dump's exit status"
            );
        }
        Ok(bytes)
    }
}

/// The variables that lead libpq to the database.
fn variables(connection: &Connection) -> Vec<(&'static str, String)> {
    let Connection { host, port, database, username, strategy, .. } = connection;
    let (host, socket_port) = match strategy {
        Strategy::Tcp if host.is_empty() => (place::LOOPBACK.to_owned(), None),
        Strategy::Tcp | Strategy::DockerExec | Strategy::UnixSocket => match place::socket(connection) {
            Some(path) => socket(path),
            None => (host.clone(), None),
        },
    };
    let mut place = vec![("PGDATABASE", database.clone())];
    if !host.is_empty() {
        place.push(("PGHOST", host));
    }
    let port = if *port == 0 { socket_port } else { Some(port.to_string()) };
    place.extend(port.map(|port| ("PGPORT", port)));
    if !username.is_empty() {
        place.push(("PGUSER", username.clone()));
    }
    place
}

/// A socket's directory, and the port that a socket's file names. Empty is libpq's own directory.
fn socket(host: &str) -> (String, Option<String>) {
    match host.rsplit_once("/.s.PGSQL.") {
        Some((dir, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (if dir.is_empty() { "/" } else { dir }.to_owned(), Some(port.to_owned()))
        }
        Some(_) | None => (host.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(host: &str, strategy: Strategy) -> Connection {
        Connection { host: host.into(), database: "a=b -x".into(), strategy, ..Connection::default() }
    }

    fn value(place: &[(&str, String)], name: &str) -> Option<String> {
        place.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn every_name_reaches_libpq_as_it_is() {
        let mut given = connection("-h evil", Strategy::Tcp);
        given.username = "o'brien \"x\" \u{fc}".into();
        given.port = 5433;
        let place = variables(&given);
        assert_eq!(value(&place, "PGHOST").unwrap(), "-h evil");
        assert_eq!(value(&place, "PGDATABASE").unwrap(), "a=b -x");
        assert_eq!(value(&place, "PGUSER").unwrap(), "o'brien \"x\" \u{fc}");
        assert_eq!(value(&place, "PGPORT").unwrap(), "5433");
    }

    #[test]
    fn a_socket_is_named_by_its_directory_or_its_file() {
        let of = |host: &str| variables(&connection(host, Strategy::UnixSocket));
        let dir = of("/run/pg");
        assert_eq!((value(&dir, "PGHOST").unwrap().as_str(), value(&dir, "PGPORT")), ("/run/pg", None));
        let file = of("/run/pg/.s.PGSQL.5434");
        assert_eq!(value(&file, "PGHOST").unwrap(), "/run/pg");
        assert_eq!(value(&file, "PGPORT").unwrap(), "5434");
        assert_eq!(value(&of(""), "PGHOST"), None);
    }

    #[test]
    fn what_no_tool_can_be_led_to_is_refused() {
        let refused = |change: &dyn Fn(&mut Connection)| {
            let mut given = connection("h", Strategy::Tcp);
            change(&mut given);
            let target =
                TargetSpec { id: "t".into(), engine: None, display_name: String::new(), connection: given };
            supports(&target).unwrap_err().to_string()
        };
        assert!(refused(&|given| given.database.clear()).contains("set connection.database"));
        assert!(refused(&|given| given.database = "a\0b".into()).contains("zero byte"));
        assert!(refused(&|given| given.strategy = Strategy::UnixSocket).contains("absolute path"));
        assert!(refused(&|given| given.strategy = Strategy::DockerExec).contains("connection.container_id"));
    }
}
