//! MariaDB: a data directory of its own, a socket in it, no network.
//!
//! A dump of all databases brings the accounts of its server with it. So the server is started again to be asked, this
//! time without looking at accounts; that its data were really stored is seen on the way. A dump of one database brings
//! none: a view over a view whose definer is not there cannot be made, and is only told.

use super::super::super::opening::Failure;
use super::place::Place;
use super::server::{self, Running};
use super::{Found, Restorer, tools};
use crate::drivers::{DumpReader, Tally};
use data_encoding::HEXUPPER;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SERVER_PACKAGE: &str = "mariadb-server";
const CLIENT_PACKAGE: &str = "mariadb-client";

/// Where a dump of one database goes. No dump of all has such a one.
const DATABASE: &str = "backupy_restored_copy";

/// The user that a new data directory has.
const ROOT: &str = "--user=root";

/// Nothing of this must outlast a crash, and nothing of it may act by itself.
const SETTINGS: [&str; 11] = [
    "--skip-networking",
    "--skip-log-bin",
    "--event-scheduler=OFF",
    "--local-infile=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=32M",
    "--max-allowed-packet=1G",
    "--lower-case-table-names=0",
    "--performance-schema=OFF",
];

/// How the client begins to tell of an error, and of the one for an account that is not there.
const ERROR: &str = "ERROR ";
const NO_DEFINER: &str = "ERROR 1449 ";

/// More errors help nobody.
const SHOWN_ERRORS: usize = 3;

/// Every table, but what the server keeps for itself; whether its rows end with the server; and whether it keeps rows that
/// are past.
const TABLES: &str = "SELECT HEX(TABLE_SCHEMA), HEX(TABLE_NAME), ENGINE <=> 'MEMORY', TABLE_TYPE = 'SYSTEM VERSIONED' FROM information_schema.TABLES \
     WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') \
     AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";

/// A throwaway server.
pub struct Mariadb {
    // Dropped in this order: nobody writes any more when the place goes.
    restoring: Running,
    server: Running,
    place: Place,
    programs: Programs,
    /// The dump is one of MySQL's.
    is_mysql: bool,
}

struct Programs {
    server: PathBuf,
    client: PathBuf,
}

impl Mariadb {
    /// Makes the data directory and starts the server.
    ///
    /// # Errors
    /// [`Failure::ServerTools`], [`Failure::Server`].
    pub fn create(place: Place, is_mysql: bool) -> Result<Self, Failure> {
        let programs = Programs {
            server: tools::find(&["mariadbd"], SERVER_PACKAGE)?,
            client: tools::find(&["mariadb", "mysql"], CLIENT_PACKAGE)?,
        };
        let install = tools::find(&["mariadb-install-db", "mysql_install_db"], SERVER_PACKAGE)?;
        let mut command = server::program(&place, install, "KILL");
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        // It is a shell script, which takes a blank in a path for the end of it.
        command.args(["--datadir=./data", "--tmpdir=."]);
        let installed = Running::start(&place, "mariadb-install-db", command)?.wait();
        installed.map_err(|how| Failure::Server { name: "mariadb-install-db", how })?;
        let server = start(&place, &programs, &[])?;
        let mut make = client(&place, &programs);
        make.arg("--execute").arg(format!("CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"));
        server::answer(&mut make).map_err(|how| Failure::Server { name: "mariadb", how })?;
        let mut command = client(&place, &programs);
        // Nothing in a dump is a command to the client itself. Whether it went well, its words say.
        command.args(["--binary-mode", "--force", "--max-allowed-packet=1G"]);
        command.arg(format!("--database={DATABASE}"));
        let restoring = Running::fed(&place, "mariadb", command)?;
        Ok(Self { restoring, server, place, programs, is_mysql })
    }

    fn refused(&mut self) -> Failure {
        let how = self.restoring.wait().err().unwrap_or_else(|| "ended before the dump did".into());
        self.unsound(&how)
    }

    /// Waits for the client's end; gives what it left out for want of an account.
    fn restored(&mut self) -> Result<Vec<String>, Failure> {
        if self.restoring.wait().is_err() {
            return Err(self.refused());
        }
        let Some(mut errors) = self.restoring.lines_with(ERROR) else {
            return Err(self.unsound("told of more errors than can be read"));
        };
        let left_out = errors.len();
        errors.retain(|error| !error.starts_with(NO_DEFINER));
        if !errors.is_empty() {
            errors.truncate(SHOWN_ERRORS);
            return Err(self.unsound(&format!("said {}", errors.join("; "))));
        }
        let remark = format!(
            "{left_out} statements need a definer, and accounts are not in a backup of one database: they were left out"
        );
        Ok(if left_out > 0 { vec![remark] } else { Vec::new() })
    }

    fn unsound(&self, how: &str) -> Failure {
        let hint = if self.is_mysql {
            "; the dump is MySQL's, and was given to a MariaDB, which does not know all of it: restore it into a MySQL"
        } else {
            ""
        };
        Failure::Restored(format!("mariadb {how}{hint}"))
    }
}

impl Restorer for Mariadb {
    fn feed(&mut self, bytes: &[u8], _: &DumpReader) -> Result<(), Failure> {
        let written = self.restoring.write(bytes);
        if written.is_err() { Err(self.refused()) } else { Ok(()) }
    }

    fn look(&mut self, _: &mut DumpReader) -> Result<Found, Failure> {
        let mut remarks = self.restored()?;
        self.server.stop()?;
        self.server = start(&self.place, &self.programs, &["--skip-grant-tables"])?;
        let failed = |how| Failure::Restored(format!("its rows cannot be counted: mariadb {how}"));
        let ask = |sql: &str| {
            let mut command = client(&self.place, &self.programs);
            server::answer(command.arg("--execute").arg(sql)).map_err(failed)
        };
        let version = ask("SELECT VERSION()")?;
        let engine = format!("MariaDB {}", version.trim().split('-').next().unwrap_or_default());
        let mut questions = String::new();
        let mut foreign = Vec::new();
        for line in ask(TABLES)?.lines() {
            let answered = || failed(format!("answered {line}"));
            let table = Table::parse(line).ok_or_else(answered)?;
            questions += &table.question();
            foreign.extend(table.is_in_memory.then(|| table.name()));
        }
        let script = self.place.join("count.sql");
        std::fs::write(&script, questions).map_err(Failure::Write)?;
        let mut count = client(&self.place, &self.programs);
        count.stdin(Stdio::from(File::open(&script).map_err(Failure::Write)?));
        let counted = server::answer(&mut count).map_err(failed)?;
        let mut tally = Tally::default();
        for line in counted.lines() {
            let (name, rows) = row(line).ok_or_else(|| failed(format!("answered {line}")))?;
            tally.add(&name, rows);
        }
        if self.is_mysql {
            remarks.push("a dump of MySQL, restored into MariaDB".into());
        }
        if !foreign.is_empty() {
            remarks.push(format!(
                "{} tables of the engine MEMORY were not compared: their rows end with their server",
                foreign.len()
            ));
        }
        Ok(Found { engine, tally, foreign, expired: None, remarks })
    }
}

fn start(place: &Place, programs: &Programs, more: &[&str]) -> Result<Running, Failure> {
    let mut command = server::program(place, &programs.server, "KILL");
    command.arg("--no-defaults").args(SETTINGS).args(more);
    command.arg(path("--datadir=", place, "data")).arg(path("--socket=", place, "s"));
    command.arg(path("--pid-file=", place, "pid")).arg(path("--tmpdir=", place, ""));
    command.arg(path("--secure-file-priv=", place, ""));
    let mut server = Running::start(place, "mariadbd", command)?;
    server.until(|| server::answer(client(place, programs).args(["--execute", "SELECT 1"])).is_ok())?;
    Ok(server)
}

fn client(place: &Place, programs: &Programs) -> Command {
    let mut command = server::program(place, &programs.client, "KILL");
    command.args(["--no-defaults", ROOT, "--batch", "--skip-column-names"]);
    command.arg("--default-character-set=utf8mb4").arg(path("--socket=", place, "s"));
    command
}

fn path(option: &str, place: &Place, name: &str) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(option);
    option.push(place.join(name));
    option
}

/// A table, whose names come and go as bytes.
struct Table {
    schema: String,
    name: String,
    is_in_memory: bool,
    has_history: bool,
}

impl Table {
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let (schema, name) = (text_of(columns.next()?)?, text_of(columns.next()?)?);
        let (is_in_memory, has_history) = (columns.next()? == "1", columns.next()? == "1");
        Some(Self { schema, name, is_in_memory, has_history })
    }

    /// As the dump calls it.
    fn name(&self) -> String {
        let Self { schema, name, .. } = self;
        if schema == DATABASE { name.clone() } else { format!("{schema}.{name}") }
    }

    /// Asks for its rows: all that the dump can have, the past ones too.
    fn question(&self) -> String {
        let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
        let (schema, name) = (quoted(&self.schema), quoted(&self.name));
        let all = if self.has_history { " FOR SYSTEM_TIME ALL" } else { "" };
        format!("SELECT '{}', COUNT(*) FROM {schema}.{name}{all};\n", HEXUPPER.encode(self.name().as_bytes()))
    }
}

fn row(line: &str) -> Option<(String, u64)> {
    let (name, rows) = line.split_once('\t')?;
    Some((text_of(name)?, rows.parse().ok()?))
}

fn text_of(hex: &str) -> Option<String> {
    String::from_utf8(HEXUPPER.decode(hex.as_bytes()).ok()?).ok()
}
