//! MongoDB by `mongodump --archive`.
//!
//! Its password, and a connection string where the way to the server takes one, are in a 0600 file that only the tool reads;
//! users are looked up in the database `admin`, where
//! MongoDB's own tools make them. Without a database the whole server is dumped.
//!
//! No MongoDB could be had where this was built: the driver is tested with a scripted mongodump that checks its
//! arguments, environment and file and writes an archive after the format's description, not with a real server.

mod archive;
mod bson;
mod way;

use super::call::Call;
use super::form::Streamed;
use super::ground::Ground;
use super::private::PrivateDir;
use super::{Driver, DumpError, Scratch, form, place, secret};
use crate::drivers::Sink;
use crate::model::{Connection, Secret, TargetSpec};
use crate::process::Cancel;
use archive::Archive;
use std::fmt::Write;
use std::path::PathBuf;
use way::Way;
use zeroize::Zeroizing;

const TOOL: &str = "mongodump";
const PACKAGE: &str = "mongodb-database-tools";

/// Where users are kept who may read more than one database.
const USERS: &str = "admin";

/// A server, or one database of it.
pub struct Mongodb {
    target: TargetSpec,
    way: Way,
    ground: Ground,
    password: Secret,
    program: PathBuf,
    config: Config,
    server_version: Option<String>,
    warnings: Vec<String>,
}

/// Where the tool reads the password and the connection string.
enum Config {
    None,
    /// Kept as long as the tool may read its file.
    File {
        _dir: PrivateDir,
        file: PathBuf,
    },
    /// Inside a container: by its standard input.
    Fed(Zeroizing<String>),
}

impl Mongodb {
    /// Resolves the password, finds the tool and writes its file.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::ToolMissing`], [`DumpError::Scratch`].
    pub fn open(
        target: &TargetSpec,
        ground: Ground,
        scratch: &Scratch,
        cancel: &Cancel,
    ) -> Result<Self, DumpError> {
        let way = Way::of(&target.connection).map_err(|what| place::problem(target, what))?;
        let password = secret::password(target)?;
        let program = ground.find(TOOL, cancel)?.ok_or_else(|| ground.missing(TOOL, PACKAGE))?;
        let uri = match &way {
            Way::Host(_) => String::new(),
            Way::Uri(uri) => format!("uri: {}\n", *yaml(uri)),
        };
        let scalar = yaml(password.expose());
        let secret = if password.is_empty() { ["", "", ""] } else { ["password: ", &scalar, "\n"] };
        let text = Zeroizing::new([&uri, secret[0], secret[1], secret[2]].concat());
        let config = match &ground {
            _ if text.is_empty() => Config::None,
            Ground::Host(_) => {
                let dir = PrivateDir::create(&scratch.dir)?;
                let file = dir.write("mongodump.yaml", text.as_bytes())?;
                Config::File { _dir: dir, file }
            }
            Ground::Container(_) => Config::Fed(text),
        };
        let (target, server_version, warnings) = (target.clone(), None, Vec::new());
        Ok(Self { target, way, ground, password, program, config, server_version, warnings })
    }

    fn call(&self) -> Call {
        let Connection { database, username, .. } = &self.target.connection;
        let mut call = Call::new(&self.ground, TOOL, self.program.clone()).hiding(&self.password);
        call = match &self.config {
            Config::None => call,
            Config::File { file, .. } => {
                let mut config = std::ffi::OsString::from("--config=");
                config.push(file);
                call.arg(config)
            }
            Config::Fed(text) => call.arg("--config=/dev/stdin").feeding(text),
        };
        call = call.arg("--archive");
        if let Way::Host(args) = &self.way {
            call = call.args(args);
        }
        if !username.is_empty() {
            call = call.arg(format!("--username={username}"));
            if !self.way.names_auth_source() {
                call = call.arg(format!("--authenticationDatabase={USERS}"));
            }
        }
        if database.is_empty() { call } else { call.arg(format!("--db={database}")) }
    }
}

impl Driver for Mongodb {
    /// mongodump has no question to ask: the percent of such a run stays at the dump's beginning.
    fn estimate(&mut self, _: &Cancel) -> Result<u64, DumpError> {
        Ok(0)
    }

    fn engine_version(&self) -> String {
        let version = self.server_version.as_ref();
        version.map_or_else(|| "MongoDB".to_owned(), |version| format!("MongoDB {version}"))
    }

    fn remarks(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn magic(&self) -> &'static [u8] {
        archive::MAGIC
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let mut archive = Archive::new();
        let streamed = form::stream(&self.call(), "MongoDB", &mut archive, out, cancel)?;
        let Streamed { bytes, warnings } = streamed;
        self.warnings = warnings;
        self.server_version = archive.server_version().map(str::to_owned);
        // A database without collections is none, and mongodump takes every name: a misspelt one would be backed up as
        // nothing for ever.
        let database = &self.target.connection.database;
        if !database.is_empty() && !archive.has_collections() {
            let what = format!(
                "its database \"{database}\" has no collections, which for MongoDB is that there is no such database: correct connection.database, or make its first collection"
            );
            return Err(place::problem(&self.target, &what));
        }
        Ok(bytes)
    }
}

/// A text as a double-quoted scalar of YAML.
fn yaml(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(6 * text.len() + 2));
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            // Controls, and what YAML takes for a line's end or a byte order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // Room for every escape is there: a buffer that grows leaves copies behind.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_scalar() {
        assert_eq!(
            yaml("a\"b\\c\n\u{7f}#: \u{fc}\u{1f511}").as_str(),
            "\"a\\\"b\\\\c\\u000a\\u007f#: \u{fc}\u{1f511}\""
        );
    }
}
