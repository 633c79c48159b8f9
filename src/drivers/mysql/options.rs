//! The option file that leads MySQL's and MariaDB's tools to the server: every name and the password, quoted.

use crate::drivers::place::{self, LOOPBACK};
use crate::model::{Connection, Secret, Strategy};
use zeroize::Zeroizing;

/// The tools read lines into 4096 bytes.
const LINE_LEN_MAX: usize = 4000;

/// The group, the character set, and what a target says.
const LINES_MAX: usize = 7;

/// The file's text. Both tools read the group `client`.
///
/// # Errors
/// What is wrong with the target.
pub fn text(connection: &Connection, password: &Secret) -> Result<Zeroizing<String>, &'static str> {
    // Room for every line that fits: a buffer that grows leaves copies of the password behind.
    let mut text = Zeroizing::new(String::with_capacity(LINES_MAX * (LINE_LEN_MAX + 1)));
    text.push_str("[client]\ndefault-character-set=utf8mb4\n");
    let mut put = |name: &str, value: &str| {
        let line = Zeroizing::new([name, "=", &quoted(value), "\n"].concat());
        if line.len() <= LINE_LEN_MAX {
            text.push_str(&line);
        }
        line.len() <= LINE_LEN_MAX
    };
    let mut fits = true;
    match place::socket(connection) {
        Some(path) => {
            fits &= put("protocol", "socket");
            if !path.is_empty() {
                fits &= put("socket", path);
            }
        }
        // Inside the server's container its tools know where it listens.
        None if connection.strategy == Strategy::DockerExec && connection.host.is_empty() => {}
        None => {
            fits &= put("protocol", "tcp");
            fits &= put("host", if connection.host.is_empty() { LOOPBACK } else { &connection.host });
            if connection.port != 0 {
                fits &= put("port", &connection.port.to_string());
            }
        }
    }
    if !connection.username.is_empty() {
        fits &= put("user", &connection.username);
    }
    if !password.is_empty() {
        fits &= put("password", password.expose());
    }
    if fits { Ok(text) } else { Err("its host, user or password is longer than the tools can read") }
}

/// In double quotes, in which `#` and `;` are no comments and a backslash escapes.
fn quoted(value: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    out.push('"');
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
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
    fn every_value_is_one_quoted_line() {
        let connection = Connection {
            host: "-h #x".into(),
            port: 3307,
            username: "o'b \"q\"\n[mysqldump]\nno-data".into(),
            ..Connection::default()
        };
        let text = text(&connection, &"a\\b;#\tc ".into()).unwrap();
        assert_eq!(
            text.as_str(),
            "[client]\ndefault-character-set=utf8mb4\nprotocol=\"tcp\"\nhost=\"-h #x\"\nport=\"3307\"\n\
             user=\"o'b \\\"q\\\"\\n[mysqldump]\\nno-data\"\npassword=\"a\\\\b;#\\tc \"\n"
        );
    }

    #[test]
    fn a_socket_has_no_port_and_a_password_that_would_be_cut_is_refused() {
        let socket = Connection {
            host: "/run/mysqld/s".into(),
            port: 1,
            strategy: Strategy::UnixSocket,
            ..Connection::default()
        };
        let text = super::text(&socket, &"".into()).unwrap();
        assert!(text.ends_with("protocol=\"socket\"\nsocket=\"/run/mysqld/s\"\n"), "{}", *text);
        assert!(super::text(&socket, &"x".repeat(5_000).as_str().into()).is_err());
    }
}
