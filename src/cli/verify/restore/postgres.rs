//! PostgreSQL: a cluster of its own, reachable by a socket in its own directory and by nothing else.
//!
//! Roles belong to the server and are in no dump of a database: owners and privileges are left out, and a statement that
//! names a role (a policy, a user mapping) may fail for that reason. Any other error is one.

use super::super::super::opening::Failure;
use super::place::Place;
use super::server::{self, Running};
use super::{Found, Restorer, tools};
use crate::drivers::{DumpReader, Tally};
use data_encoding::HEXLOWER;
use nix::sys::signal::Signal;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PROGRAMS: [&str; 4] = ["postgres", "initdb", "pg_restore", "psql"];

/// The database and its superuser.
const DATABASE: &str = "restored";
const SUPERUSER: &str = "postgres";

/// On this signal the server and everything it started ends, and gives its shared memory back.
const END: Signal = Signal::SIGQUIT;

/// How pg_restore begins to tell of an error, and what it says of a role that is not there.
const ERROR: &str = "pg_restore: error:";
const ROLE: &str = "ERROR:  role \"";
const MISSING: &str = "\" does not exist";

/// More errors help nobody.
const SHOWN_ERRORS: usize = 3;

/// Kept of the dump until its encoding is known, which stands in its first entry.
const HEAD_LEN: usize = 1024 * 1024;

/// Nothing of this must outlast a crash.
const SETTINGS: [&str; 11] = [
    "listen_addresses=",
    "port=5432",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "shared_buffers=64MB",
    "max_connections=10",
    "logging_collector=off",
];

/// Every plain table, and whether an extension brought it: such a table may hold more than the dump.
const TABLES: &str = "SELECT format('SELECT %L, %L, count(*) FROM ONLY %I.%I',
   encode(convert_to(n.nspname || '.' || c.relname, getdatabaseencoding()), 'hex'),
   EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
           AND d.deptype = 'e'), n.nspname, c.relname)
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
 \\gexec
";

/// A throwaway server with one database.
pub struct Postgres {
    // Dropped in this order: nobody writes any more when the place goes.
    restoring: Option<Running>,
    server: Running,
    place: Place,
    programs: PathBuf,
    head: Vec<u8>,
}

impl Postgres {
    /// Makes the cluster and starts the server.
    ///
    /// # Errors
    /// [`Failure::ServerTools`], [`Failure::Server`].
    pub fn create(place: Place) -> Result<Self, Failure> {
        let programs = tools::postgres_dir(&PROGRAMS)?;
        let data = place.join("data");
        let init = |locale: &str| {
            let mut command = server::program(&place, programs.join("initdb"), "KILL");
            command.arg("-D").arg(&data).args([
                "-U",
                SUPERUSER,
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
            ]);
            command.arg(format!("--locale={locale}"));
            Running::start(&place, "initdb", command)?.wait().map_err(|how| failed("initdb", how))
        };
        // Letters beyond ASCII are letters there; where the host has no such locale, only order and case suffer.
        init("C.UTF-8").or_else(|_| init("C"))?;
        let mut command = server::program(&place, programs.join("postgres"), "QUIT");
        command.arg("-D").arg(&data).arg("-k").arg(place.path());
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let mut server = Running::start(&place, "postgres", command)?;
        let asked = || server::answer(psql(&place, &programs, "postgres").args(["-c", "SELECT 1"])).is_ok();
        server.until(asked)?;
        Ok(Self { restoring: None, server, place, programs, head: Vec::new() })
    }

    /// The database with the dump's encoding, and the tool that fills it.
    fn begin(&mut self, encoding: &str) -> Result<(), Failure> {
        let Self { place, programs, .. } = self;
        // A name of an encoding has letters, digits and underscores.
        let encoding: String = encoding.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let locale = if encoding == "UTF8" { "" } else { "LC_COLLATE 'C' LC_CTYPE 'C'" };
        let sql = format!("CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING '{encoding}' {locale}");
        let made = server::answer(psql(place, programs, "postgres").args(["-c", &sql]));
        made.map_err(|how| failed("psql", how))?;
        let mut command = server::program(place, programs.join("pg_restore"), "KILL");
        at(&mut command, place).args(["--no-owner", "--no-privileges", "--dbname", DATABASE]);
        let mut restoring = Running::fed(place, "pg_restore", command)?;
        let written = restoring.write(&std::mem::take(&mut self.head));
        self.restoring = Some(restoring);
        if written.is_err() { Err(self.refused()) } else { Ok(()) }
    }

    /// pg_restore has ended in the middle: it says why.
    fn refused(&mut self) -> Failure {
        let how = self.restoring.as_mut().and_then(|restoring| restoring.wait().err());
        self.judged(&how.unwrap_or_else(|| "ended before the dump did".to_owned()))
    }

    /// Its first errors: those that follow may follow from them.
    fn judged(&self, how: &str) -> Failure {
        let mut errors = self.errors().unwrap_or_default();
        errors.truncate(SHOWN_ERRORS);
        let how = if errors.is_empty() { format!("pg_restore {how}") } else { errors.join("; ") };
        if how.contains("unsupported version") {
            let how = format!(
                "did not read it: {how}; the dump is of a newer PostgreSQL: install its package here"
            );
            return failed("pg_restore", how);
        }
        Failure::Restored(how)
    }

    fn errors(&self) -> Option<Vec<String>> {
        self.restoring.as_ref()?.lines_with(ERROR)
    }

    /// Waits for the end of pg_restore; what it left out for want of a role is only told.
    fn restored(&mut self) -> Result<Vec<String>, Failure> {
        let Some(Err(how)) = self.restoring.as_mut().map(Running::wait) else { return Ok(Vec::new()) };
        let errors = self.errors().unwrap_or_default();
        let for_a_role = |error: &String| error.contains(ROLE) && error.contains(MISSING);
        if errors.is_empty() || !errors.iter().all(for_a_role) {
            return Err(self.judged(&how));
        }
        Ok(vec![format!(
            "{} statements name a role, and roles are not in a backup of a database: they were left out",
            errors.len()
        )])
    }
}

impl Restorer for Postgres {
    fn feed(&mut self, bytes: &[u8], reader: &DumpReader) -> Result<(), Failure> {
        if let Some(restoring) = &mut self.restoring {
            let written = restoring.write(bytes);
            return if written.is_err() { Err(self.refused()) } else { Ok(()) };
        }
        self.head.extend_from_slice(bytes);
        match reader.encoding() {
            Some(encoding) => self.begin(encoding),
            None if self.head.len() > HEAD_LEN => self.begin("UTF8"),
            None => Ok(()),
        }
    }

    fn look(&mut self, _: &mut DumpReader) -> Result<Found, Failure> {
        if self.restoring.is_none() {
            self.begin("UTF8")?;
        }
        let remarks = self.restored()?;
        let Self { place, programs, .. } = self;
        let asked = |mut command: Command| server::answer(&mut command).map_err(|how| failed("psql", how));
        let mut version = psql(place, programs, DATABASE);
        version.args(["-c", "SHOW server_version"]);
        let version = asked(version)?;
        let engine = format!("PostgreSQL {}", version.split_whitespace().next().unwrap_or_default());
        // psql reads its own commands from a file only.
        let script = place.join("count.sql");
        let written = std::fs::File::create(&script).and_then(|mut file| file.write_all(TABLES.as_bytes()));
        written.map_err(Failure::Write)?;
        let mut count = psql(place, programs, DATABASE);
        count.stdin(Stdio::from(std::fs::File::open(&script).map_err(Failure::Write)?));
        let counted = server::answer(&mut count);
        let counted =
            counted.map_err(|how| Failure::Restored(format!("its rows cannot be counted: psql {how}")))?;
        let (mut tally, mut foreign) = (Tally::default(), Vec::new());
        for line in counted.lines() {
            let (name, is_foreign, rows) =
                row(line).ok_or_else(|| failed("psql", format!("answered {line}")))?;
            tally.add(&name, rows);
            if is_foreign {
                foreign.push(name);
            }
        }
        self.server.end_with(END);
        Ok(Found { engine, tally, foreign, expired: None, remarks })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.restoring = None;
        self.server.end_with(END);
    }
}

fn row(line: &str) -> Option<(String, bool, u64)> {
    let mut columns = line.split('|');
    let name = HEXLOWER.decode(columns.next()?.as_bytes()).ok()?;
    let is_foreign = columns.next()? == "t";
    Some((String::from_utf8_lossy(&name).into_owned(), is_foreign, columns.next()?.parse().ok()?))
}

fn psql(place: &Place, programs: &std::path::Path, database: &str) -> Command {
    let mut command = server::program(place, programs.join("psql"), "KILL");
    at(&mut command, place).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
    command
}

fn at<'a>(command: &'a mut Command, place: &Place) -> &'a mut Command {
    command.arg("-h").arg(place.path()).args(["-p", "5432", "-U", SUPERUSER, "--no-password"])
}

fn failed(name: &'static str, how: String) -> Failure {
    Failure::Server { name, how }
}
