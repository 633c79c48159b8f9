//! MongoDB by `mongodump --archive`.
//!
//! Its password is in a 0600 file that only the tool reads; users are looked up in the database `admin`, where
//! MongoDB's own tools make them. Without a database the whole server is dumped.
//!
//! No MongoDB could be had where this was built: the driver is tested with a scripted mongodump that checks its
//! arguments, environment and file and writes an archive after the format's description, not with a real server.

mod archive;
mod bson;

use super::call::{Call, Host};
use super::private::PrivateDir;
use super::{Driver, DumpError, Scratch, form, place, secret};
use crate::backup::cancel::Cancel;
use crate::backup::pipe::Sink;
use crate::model::{Connection, Secret, Strategy, TargetSpec};
use archive::Archive;
use std::path::PathBuf;

const TOOL: &str = "mongodump";
const PACKAGE: &str = "mongodb-database-tools";

/// The engine's own.
const PORT: u16 = 27017;

/// Where users are kept who may read more than one database.
const USERS: &str = "admin";

/// A server, or one database of it.
pub struct Mongodb {
    connection: Connection,
    host: Host,
    password: Secret,
    program: PathBuf,
    /// Kept as long as the tool may read its file.
    private: Option<(PrivateDir, PathBuf)>,
    server_version: Option<String>,
}

impl Mongodb {
    /// Resolves the password, finds the tool and writes its file.
    ///
    /// # Errors
    /// [`DumpError::Target`], [`DumpError::ToolMissing`], [`DumpError::Scratch`].
    pub fn open(target: &TargetSpec, host: &Host, scratch: &Scratch) -> Result<Self, DumpError> {
        let connection = target.connection.clone();
        if connection.strategy == Strategy::UnixSocket && connection.host.is_empty() {
            return Err(place::problem(target, "its host must be the absolute path of the server's socket"));
        }
        let password = secret::password(target)?;
        let program = host.tools.find(TOOL).ok_or_else(|| DumpError::missing(&host.tools, TOOL, PACKAGE))?;
        let private = if password.is_empty() {
            None
        } else {
            let dir = PrivateDir::create(&scratch.dir)?;
            let text = zeroize::Zeroizing::new(format!("password: {}\n", yaml(password.expose()).as_str()));
            let file = dir.write("mongodump.yaml", text.as_bytes())?;
            Some((dir, file))
        };
        Ok(Self { connection, host: host.clone(), password, program, private, server_version: None })
    }

    fn call(&self) -> Call {
        let Connection { host, port, database, username, strategy, .. } = &self.connection;
        let mut call = Call::new(&self.host, TOOL, self.program.clone()).hiding(&self.password);
        if let Some((_, file)) = &self.private {
            let mut config = std::ffi::OsString::from("--config=");
            config.push(file);
            call = call.arg(config);
        }
        let host = if host.is_empty() { place::LOOPBACK } else { host };
        call = call.args(["--archive".to_owned(), format!("--host={host}")]);
        if *strategy == Strategy::Tcp {
            call = call.arg(format!("--port={}", if *port == 0 { PORT } else { *port }));
        }
        if !username.is_empty() {
            call = call.args([format!("--username={username}"), format!("--authenticationDatabase={USERS}")]);
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

    fn magic(&self) -> &'static [u8] {
        archive::MAGIC
    }

    fn dump(&mut self, out: &mut dyn Sink, cancel: &Cancel) -> Result<u64, DumpError> {
        let mut archive = Archive::new();
        let bytes = form::stream(&self.call(), "MongoDB", &mut archive, out, cancel)?;
        self.server_version = archive.server_version().map(str::to_owned);
        Ok(bytes)
    }
}

/// A text as a double-quoted scalar of YAML.
fn yaml(text: &str) -> zeroize::Zeroizing<String> {
    let mut out = zeroize::Zeroizing::new(String::with_capacity(2 * text.len() + 2));
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            // Controls, and what YAML takes for a line's end or a byte order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
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
