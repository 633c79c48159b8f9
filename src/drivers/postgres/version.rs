//! Versions of servers and tools.

/// What a server said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// 15, 16; before 10 all are 9.
    pub major: u32,
    /// `15.18 (Debian 15.18-0+deb12u1)`
    pub version: String,
    /// Of the database, indexes included.
    pub size_bytes: u64,
}

impl Server {
    /// One row of three columns.
    pub fn parse(answer: &str) -> Option<Self> {
        let mut columns = answer.trim_end_matches('\n').split('\t');
        let number: u32 = columns.next()?.trim().parse().ok()?;
        let version = columns.next()?.to_owned();
        let size_bytes = columns.next()?.trim().parse().ok()?;
        Some(Self { major: number / 10_000, version, size_bytes })
    }
}

/// Out of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
pub fn major_of_tool(said: &str) -> Option<u32> {
    let (_, version) = said.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Without what a distribution adds.
pub fn short(version: &str) -> &str {
    version.split_whitespace().next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_and_tools_write_them() {
        let server = Server::parse("150018\t15.18 (Debian 15.18-0+deb12u1)\t7500591\n").unwrap();
        assert_eq!((server.major, server.size_bytes, short(&server.version)), (15, 7_500_591, "15.18"));
        assert_eq!(Server::parse("90624\t9.6.24\t1").unwrap().major, 9);
        assert_eq!(Server::parse("psql: error"), None);
        assert_eq!(major_of_tool("pg_dump (PostgreSQL) 17beta1\n"), Some(17));
        assert_eq!(major_of_tool("pg_dump (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major_of_tool("something else 12"), None);
    }
}
