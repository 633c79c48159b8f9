//! How mongodump is led to its server.
//!
//! mongodump takes a host apart: what stands before a slash is the name of a replica set, so that the path of a socket is
//! none, and an address with colons has no port. A socket goes into a connection string, where its slashes are escaped.

use crate::drivers::place::{self, LOOPBACK};
use crate::model::Connection;
use std::fmt::Write;
use std::net::Ipv6Addr;

/// The engine's own.
const PORT: u16 = 27017;

/// A host that begins so is a connection string.
const SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];

/// MongoDB's driver knows a socket by the end of its name, as its server gives it.
const SOCKET_END: &str = "sock";

/// Options whose values are secrets, in small letters.
const SECRETS: [&str; 2] = ["password", "aws_session_token"];

/// One of the two.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// Arguments.
    Host(Vec<String>),
    /// A connection string, without a secret.
    Uri(String),
}

impl Way {
    /// As the target says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(connection: &Connection) -> Result<Self, &'static str> {
        let Connection { host, port, .. } = connection;
        if let Some(rest) = SCHEMES.iter().find_map(|scheme| host.strip_prefix(scheme)) {
            return fit(rest).map(|()| Self::Uri(host.clone()));
        }
        if let Some(path) = place::socket(connection) {
            return match path.ends_with(SOCKET_END) {
                true => Ok(Self::Uri(format!("{}{}/", SCHEMES[0], escaped(path)))),
                false => Err(
                    "its host must be the absolute path of the server's socket, whose name ends with .sock, as mongodump knows them",
                ),
            };
        }
        let host = if host.is_empty() { LOOPBACK } else { host };
        let port = if *port == 0 { PORT } else { *port };
        let address = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self::Host(match address.parse::<Ipv6Addr>() {
            Ok(_) => vec![format!("--host=[{address}]:{port}")],
            Err(_) => vec![format!("--host={host}"), format!("--port={port}")],
        }))
    }

    /// Whether it says by itself where its user is kept.
    pub fn names_auth_source(&self) -> bool {
        matches!(self, Self::Uri(uri) if uri.to_ascii_lowercase().contains("authsource="))
    }
}

/// Whether a connection string is one that a target may have: its database would be the only one that is dumped, whatever
/// the target says, and a host is shown to people.
fn fit(after_scheme: &str) -> Result<(), &'static str> {
    let (place, options) = after_scheme.split_once('?').unwrap_or((after_scheme, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let options = options.to_ascii_lowercase();
    if user.contains(':') || SECRETS.iter().any(|name| options.contains(name)) {
        return Err("its host holds a password: name that in password_secret_ref");
    }
    if !database.is_empty() {
        return Err(
            "its host names a database: set that in connection.database, and the user's own as authSource=",
        );
    }
    Ok(())
}

/// Every byte that may have a meaning in a connection string as `%` and two digits.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(3 * path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Into a String: never an error.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Strategy;

    fn way(host: &str, port: u16, strategy: Strategy) -> Result<Way, &'static str> {
        Way::of(&Connection { host: host.into(), port, strategy, ..Connection::default() })
    }

    #[test]
    fn every_host_reaches_mongodump_in_the_form_that_it_takes() {
        let host = |host: &str, port, args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(way(host, port, Strategy::Tcp), Ok(Way::Host(args)));
        };
        host("", 0, &["--host=127.0.0.1", "--port=27017"]);
        host("rs0/a:1,b:2", 0, &["--host=rs0/a:1,b:2", "--port=27017"]);
        host("::1", 27018, &["--host=[::1]:27018"]);
        host("[2001:db8::7]", 0, &["--host=[2001:db8::7]:27017"]);
        let uri = |host: &str, strategy, uri: &str| {
            assert_eq!(way(host, 1, strategy), Ok(Way::Uri(uri.to_owned())));
        };
        uri("/tmp/mongodb-1.sock", Strategy::UnixSocket, "mongodb://%2Ftmp%2Fmongodb-1.sock/");
        uri("/t m/\u{fc}@.sock", Strategy::DockerExec, "mongodb://%2Ft%20m%2F%C3%BC%40.sock/");
        uri("mongodb+srv://a.example/?tls=true", Strategy::Tcp, "mongodb+srv://a.example/?tls=true");
        assert!(way("mongodb://u@h/?authSource=x", 0, Strategy::Tcp).unwrap().names_auth_source());
        for secret in
            ["u:p@h/", "h/?tlsCertificateKeyFilePassword=x", "h/?authMechanismProperties=AWS_SESSION_TOKEN:x"]
        {
            let refused = way(&format!("mongodb://{secret}"), 0, Strategy::Tcp).unwrap_err();
            assert!(refused.contains("password_secret_ref"), "{secret}");
        }
        let named = way("mongodb+srv://u@h/shop?tls=true", 0, Strategy::Tcp).unwrap_err();
        assert!(
            named.contains("connection.database"),
            "mongodump would dump nothing else, whatever the target names"
        );
        assert!(way("/run/mongo", 0, Strategy::UnixSocket).unwrap_err().contains(".sock"));
    }
}
