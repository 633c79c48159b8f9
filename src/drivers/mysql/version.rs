//! Which family a server and a tool are of, and which version.

use std::fmt;

/// Two families, which are no longer the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Oracle's, and Percona's.
    Mysql,
    /// MariaDB's.
    Mariadb,
}

/// A version of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Whose.
    pub family: Family,
    /// `10.11.19`
    pub number: String,
}

impl Version {
    /// Of a server: `10.11.19-MariaDB-0+deb12u1`, `8.0.36`, also behind MariaDB's old `5.5.5-`.
    pub fn of_server(text: &str) -> Option<Self> {
        let text = text.trim();
        let family = if text.contains("MariaDB") { Family::Mariadb } else { Family::Mysql };
        let text = if family == Family::Mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        Self::new(family, text)
    }

    /// Of a tool, as it says on `--version`: `Ver 10.19 Distrib 10.11.19-MariaDB, for`, `from 11.4.2-MariaDB, client`,
    /// `Ver 8.0.36 for`, `Distrib 5.7.44, for`.
    pub fn of_tool(said: &str) -> Option<Self> {
        let words: Vec<&str> = said.split_whitespace().collect();
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1));
        let text = after("from").or_else(|| after("Distrib")).or_else(|| after("Ver"))?;
        let family = if said.contains("MariaDB") { Family::Mariadb } else { Family::Mysql };
        Self::new(family, text)
    }

    fn new(family: Family, text: &str) -> Option<Self> {
        let number: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        number.starts_with(|c: char| c.is_ascii_digit()).then_some(Self { family, number })
    }

    /// Major and minor.
    pub fn series(&self) -> (u32, u32) {
        let mut parts = self.number.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::Mysql => "MySQL",
            Family::Mariadb => "MariaDB",
        };
        write!(f, "{family} {}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_and_tools_write_them() {
        let shown = |version: Option<Version>| version.map(|version| version.to_string());
        for (text, expected) in [
            ("10.11.19-MariaDB-0+deb12u1", "MariaDB 10.11.19"),
            ("5.5.5-10.4.3-MariaDB", "MariaDB 10.4.3"),
            ("8.0.36-0ubuntu0.22.04.1", "MySQL 8.0.36"),
        ] {
            assert_eq!(shown(Version::of_server(text)).as_deref(), Some(expected));
        }
        for (text, expected) in [
            (
                "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)",
                "MariaDB 10.11.19",
            ),
            ("mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)", "MariaDB 11.4.2"),
            ("mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", "MySQL 8.0.36"),
            ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", "MySQL 5.7.44"),
        ] {
            assert_eq!(shown(Version::of_tool(text)).as_deref(), Some(expected));
        }
        assert_eq!(Version::of_server("ERROR 1045"), None);
        assert!(Version::of_server("10.11.1-MariaDB").unwrap().series() > (10, 4));
    }
}
