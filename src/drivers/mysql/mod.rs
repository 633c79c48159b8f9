//! MySQL and MariaDB by mariadb-dump or mysqldump: one transaction, with routines, triggers and events.
//!
//! Host, user and password reach the tools by an option file, 0600 in a directory of its own, inside a container by their
//! standard input in its place; their `HOME` has nothing else in it, so that nobody's `~/.my.cnf` or login path goes over it. A target without a database means every
//! database of the server, the grants included.

mod options;
mod rights;
mod rows;
mod script;
mod server;
mod version;

use super::call::Call;
use super::form::{Form, Streamed};
use super::ground::Ground;
use super::private::PrivateDir;
use super::tally::Tally;
use super::{Driver, DumpError, Scratch, form, place, secret, tool};
use crate::drivers::Sink;
use crate::model::{Engine, Secret, TargetSpec};
use crate::process::Cancel;
pub use script::Script;
use server::{History, Server};
use std::path::PathBuf;
use std::time::Duration;
use version::{Family, Version};
use zeroize::Zeroizing;

/// For one question to a server; the sizes of ten thousand tables take some seconds.
const ANSWER: Duration = Duration::from_secs(40);

/// Everything that belongs to a database, out of one transaction, row by row. No tablespaces: they need the right
/// PROCESS and say nothing that InnoDB does not know. The largest row is the server's own limit.
const COMPLETE: [&str; 10] = [
    "--single-transaction",
    "--quick",
    "--routines",
    "--triggers",
    "--events",
    "--hex-blob",
    "--comments",
    "--no-tablespaces",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",
];

/// Of a tool that knows MySQL's own ways. What MariaDB's writes, a MySQL does not take back in every case.
const MYSQL_PACKAGE: &str = "mysql-client of MySQL itself (Debian's default-mysql-client is MariaDB's)";

/// Inside a container: nobody's options are read there.
const NOWHERE: &str = "/nonexistent";

/// Options that only Oracle's tool knows: the restored server has a history of its own.
const ORACLE_ONLY: &str = "--set-gtid-purged=OFF";
/// Since version 8, and only servers of version 8 have what it asks for.
const NO_HISTOGRAMS: &str = "--column-statistics=0";
/// MariaDB's, since 10.11: every state that rows of system-versioned tables had, not only the present one.
const HISTORY: &str = "--dump-history";

/// A server, or one database of it.
pub struct Mysql {
    target: String,
    engine: Engine,
    database: String,
    ground: Ground,
    password: Secret,
    options: OptionFile,
    server: Option<Server>,
    /// What the dump's tool means for the dump, and what it warned of.
    notes: Vec<String>,
    /// What its user may not see all of.
    unseen: Vec<&'static str>,
    /// As the dump said.
    dumped: Option<Version>,
    tally: Option<Tally>,
}

/// Where the tools read host, user and password.
enum OptionFile {
    /// Kept as long as a tool may read it.
    Private { dir: PrivateDir, file: PathBuf },
    /// Inside a container: by their standard input.
    Fed(Zeroizing<String>),
}

impl Mysql {
    /// Resolves the password, finds a tool and writes the option file.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::ToolMissing`], [`DumpError::Scratch`].
    pub fn open(
        target: &TargetSpec,
        engine: Engine,
        ground: Ground,
        scratch: &Scratch,
        cancel: &Cancel,
    ) -> Result<Self, DumpError> {
        let password = secret::password(target)?;
        let text =
            options::text(&target.connection, &password).map_err(|what| place::problem(target, what))?;
        let options = match &ground {
            Ground::Host(_) => {
                let dir = PrivateDir::create(&scratch.dir)?;
                let file = dir.write("client.cnf", text.as_bytes())?;
                OptionFile::Private { dir, file }
            }
            Ground::Container(_) => OptionFile::Fed(text),
        };
        let mysql = Self {
            target: target.id.to_string(),
            engine,
            database: target.connection.database.clone(),
            ground,
            password,
            options,
            server: None,
            notes: Vec::new(),
            unseen: Vec::new(),
            dumped: None,
            tally: None,
        };
        mysql.find(cancel).map(|_| mysql)
    }

    /// The dump tool: of the server's family where there is one.
    fn find(&self, cancel: &Cancel) -> Result<(&'static str, PathBuf), DumpError> {
        let family = self.server.as_ref().map(|server| server.version.family);
        let mariadb_first = family.map_or(self.engine == Engine::Mariadb, |family| family == Family::Mariadb);
        let (names, package) = if mariadb_first {
            (["mariadb-dump", "mysqldump"], "mariadb-client")
        } else {
            (["mysqldump", "mariadb-dump"], MYSQL_PACKAGE)
        };
        let found = self.ground.find_any(&names, cancel)?;
        found.ok_or_else(|| self.ground.missing(names[0], package))
    }

    fn call(&self, name: &str, program: PathBuf) -> Call {
        let call = Call::new(&self.ground, name, program).hiding(&self.password);
        // Must be the first of its arguments.
        let mut options = std::ffi::OsString::from("--defaults-extra-file=");
        match &self.options {
            OptionFile::Private { dir, file } => {
                options.push(file);
                call.env("HOME", dir.path()).arg(options)
            }
            OptionFile::Fed(text) => {
                options.push("/dev/stdin");
                call.env("HOME", NOWHERE).arg(options).feeding(text)
            }
        }
    }

    /// Asks the server. One that does not answer is no reason yet: the dump tool's own words are better.
    fn ask(&self, question: &str, cancel: &Cancel) -> Result<Option<String>, DumpError> {
        let client = self.ground.find_any(&["mariadb", "mysql"], cancel)?;
        let Some((name, program)) = client else { return Ok(None) };
        let call = self.call(name, program).args(["--batch", "--skip-column-names", "--execute"]);
        match tool::answer(&call.arg(question), ANSWER, cancel) {
            Ok(answer) => Ok(Some(answer)),
            Err(DumpError::Cancelled) => Err(DumpError::Cancelled),
            Err(error) => {
                tracing::debug!(target = self.target, %error, "the server could not be asked");
                Ok(None)
            }
        }
    }

    /// As the tool says; None where it says nothing that is understood.
    fn tool_version(
        &self,
        name: &str,
        program: PathBuf,
        cancel: &Cancel,
    ) -> Result<Option<Version>, DumpError> {
        let call = Call::new(&self.ground, name, program).arg("--version");
        match tool::answer(&call, ANSWER, cancel) {
            Ok(said) => Ok(Version::of_tool(&said)),
            Err(DumpError::Cancelled) => Err(DumpError::Cancelled),
            Err(_) => Ok(None),
        }
    }

    /// What to say where the tool stumbles over the database's name: to dump events it selects the database by its
    /// escaped name, and finds none (seen with mariadb-dump 10.11).
    fn unfit_name(&self) -> Option<String> {
        self.database.contains(['\'', '"', '\\']).then(|| {
            "the database has a quote or a backslash in its name: mariadb-dump cannot dump the events of such a one (it \
             looks for them under another name): rename the database"
                .to_owned()
        })
    }

    /// What to say where the tool is older than the server, or of the other family.
    fn misfit(&self, tool: Option<&Version>) -> Option<String> {
        let (server, tool) = (&self.server.as_ref()?.version, tool?);
        let older = server.family == tool.family && tool.series() < server.series();
        let package = match server.family {
            Family::Mariadb => "mariadb-client",
            Family::Mysql => MYSQL_PACKAGE,
        };
        (older || server.family != tool.family).then(|| {
            let what = if older { "older than the server" } else { "of another family than the server" };
            format!(
                "the dump tool ({tool}) is {what} ({server}): install the package {package}, of its version"
            )
        })
    }

    /// What to say where MariaDB's tool gives values to generated columns of a MySQL.
    fn ungenerated(&self, tool: Option<&Version>) -> Option<String> {
        let columns = self.server.as_ref()?.generated_columns.as_ref()?;
        tool.is_some_and(|tool| tool.family == Family::Mariadb).then(|| {
            format!(
                "the dump gives values to generated columns ({columns}), which a MySQL server refuses when it is restored: \
                 install the package {MYSQL_PACKAGE}"
            )
        })
    }
}

impl Driver for Mysql {
    fn estimate(&mut self, cancel: &Cancel) -> Result<u64, DumpError> {
        self.server =
            self.ask(&server::question(&self.database), cancel)?.and_then(|answer| server::parse(&answer));
        if let Some(mut server) = self.server.take() {
            if server.versioned_tables > 0 {
                let answer = self.ask(&server::precise_question(&self.database), cancel)?;
                server.precise_table =
                    answer.and_then(|answer| answer.lines().next().map(str::trim).map(str::to_owned));
            }
            if server.version.family == Family::Mysql {
                let answer = self.ask(&server::generated_question(&self.database), cancel)?;
                server.generated_columns = answer.and_then(|answer| server::parse_generated(&answer));
            }
            self.server = Some(server);
            let grants = self.ask("SHOW GRANTS", cancel)?.unwrap_or_default();
            self.unseen = rights::unseen(&grants, &self.database);
        }
        Ok(self.server.as_ref().map_or(0, |server| server.size_bytes))
    }

    fn engine_version(&self) -> String {
        let asked = self.server.as_ref().map(|server| &server.version);
        asked.or(self.dumped.as_ref()).map_or_else(|| super::name(self.engine).to_owned(), Version::to_string)
    }

    fn magic(&self) -> &'static [u8] {
        // The banner may come behind another line: the script's form looks for it.
        b""
    }

    fn tally(&mut self) -> Option<Tally> {
        self.tally.take()
    }

    fn remarks(&self) -> Vec<String> {
        let loose = self.server.as_ref().map_or(0, |server| server.loose_tables);
        let apart = format!(
            "{loose} tables have an engine without transactions (MyISAM, Aria ...): what changed in them during the dump may not fit together"
        );
        let blind = format!(
            "the target's user has no right to see all {}: what the server does not show it is not in the dump; grant the right",
            self.unseen.join(", ")
        );
        let remarks = [(loose > 0, apart), (!self.unseen.is_empty(), blind)];
        let remarks = remarks.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark);
        self.notes.iter().cloned().chain(remarks).collect()
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let (name, program) = self.find(cancel)?;
        let version = self.tool_version(name, program.clone(), cancel)?;
        let misfit = self.misfit(version.as_ref());
        self.notes.extend(misfit.clone());
        self.notes.extend(self.ungenerated(version.as_ref()));
        let mut call = self.call(name, program).args(COMPLETE);
        match self.server.as_ref().map(|server| server.history(version.as_ref())) {
            Some(History::Dumped) => call = call.arg(HISTORY),
            Some(History::Lost(why)) => self.notes.push(why),
            Some(History::None) | None => {}
        }
        if let Some(tool) = version.filter(|tool| tool.family == Family::Mysql) {
            call = call.arg(ORACLE_ONLY);
            let has_histograms = self.server.as_ref().is_some_and(|server| {
                server.version.family == Family::Mysql && server.version.series() >= (8, 0)
            });
            if tool.series() >= (8, 0) && !has_histograms {
                call = call.arg(NO_HISTOGRAMS);
            }
        }
        call = if self.database.is_empty() {
            call.args(["--all-databases", "--flush-privileges"])
        } else {
            call.args(["--", &self.database])
        };
        let mut script = Script::default();
        let dumped = form::stream(&call, super::name(self.engine), &mut script, out, cancel);
        self.dumped = script.server_version().and_then(|text| Version::of_server(&text));
        self.tally = script.tally();
        match (dumped, misfit.or_else(|| self.unfit_name())) {
            (Err(DumpError::Tool { tool, how, said }), Some(hint)) => {
                Err(DumpError::Tool { tool, how, said: format!("{said}\n{hint}") })
            }
            (Ok(Streamed { bytes, warnings }), _) => {
                self.notes.extend(warnings);
                Ok(bytes)
            }
            (Err(error), _) => Err(error),
        }
    }
}
