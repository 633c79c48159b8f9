//! What is asked of a server before its dump, and what its answers mean for the dump.

use super::version::{Family, Version};

/// Kept by one transaction; other tables are dumped as they are when their turn comes.
const TRANSACTIONAL: &str =
    "'InnoDB', 'ROCKSDB', 'TokuDB', 'ndbcluster', 'SEQUENCE', 'MRG_MyISAM', 'BLACKHOLE'";

/// Not the user's.
const SYSTEM_SCHEMAS: &str = "'mysql', 'information_schema', 'performance_schema', 'sys'";

/// Of server and tool: before it, nobody could write the history of a table back.
const HISTORY_SINCE: (u32, u32) = (10, 11);

/// What a server said of itself.
pub struct Server {
    /// Its version.
    pub version: Version,
    /// Of its tables, without indexes.
    pub size_bytes: u64,
    /// Tables that one transaction does not hold together.
    pub loose_tables: u64,
    /// Tables with a history of their rows (MariaDB's system versioning).
    pub versioned_tables: u64,
    /// One of those whose history is told by transactions instead of times: the tool cannot dump that.
    pub precise_table: Option<String>,
    /// A generated column and how many more there are; asked of a MySQL only.
    pub generated_columns: Option<String>,
}

/// Version, bytes, tables without transactions, tables with a history.
pub fn question(database: &str) -> String {
    format!(
        "SELECT VERSION(), COALESCE(SUM(data_length), 0), COALESCE(SUM(engine NOT IN ({TRANSACTIONAL})), 0), \
         COALESCE(SUM(table_type = 'SYSTEM VERSIONED'), 0) FROM information_schema.tables \
         WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND table_schema {}",
        schemas(database)
    )
}

/// A table whose history is told by transactions, if any. A server opens every table to answer.
pub fn precise_question(database: &str) -> String {
    format!(
        "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.columns \
         WHERE generation_expression = 'ROW START' AND data_type = 'bigint' AND table_schema {} LIMIT 1",
        schemas(database)
    )
}

/// A generated column, and how many there are. A server opens every table to answer.
pub fn generated_question(database: &str) -> String {
    format!(
        "SELECT MIN(CONCAT(table_schema, '.', table_name, '.', column_name)), COUNT(*) FROM information_schema.columns \
         WHERE (extra LIKE 'VIRTUAL GENERATED%' OR extra LIKE 'STORED GENERATED%') AND table_schema {}",
        schemas(database)
    )
}

/// The name goes in as bytes: nothing in it is taken for SQL.
fn schemas(database: &str) -> String {
    if database.is_empty() {
        format!("NOT IN ({SYSTEM_SCHEMAS})")
    } else {
        format!("= CONVERT(X'{}' USING utf8)", data_encoding::HEXUPPER.encode(database.as_bytes()))
    }
}

/// The answer to [`question`].
pub fn parse(answer: &str) -> Option<Server> {
    let mut columns = answer.trim_end().split('\t');
    let version = Version::of_server(columns.next()?)?;
    Some(Server {
        version,
        size_bytes: columns.next()?.parse().ok()?,
        loose_tables: columns.next()?.parse().ok()?,
        versioned_tables: columns.next()?.parse().ok()?,
        precise_table: None,
        generated_columns: None,
    })
}

/// The answer to [`generated_question`]; None where there are none.
pub fn parse_generated(answer: &str) -> Option<String> {
    let (first, count) = answer.trim_end().split_once('\t')?;
    match count.parse::<u64>().ok()? {
        0 => None,
        1 => Some(first.to_owned()),
        count => Some(format!("{first} and {} more", count - 1)),
    }
}

/// How the history of tables fares.
#[derive(Debug, PartialEq, Eq)]
pub enum History {
    /// No table has one.
    None,
    /// It is in the dump.
    Dumped,
    /// It is not, and this is why.
    Lost(String),
}

impl Server {
    /// Whether this tool can dump the history of its tables.
    pub fn history(&self, tool: Option<&Version>) -> History {
        if self.versioned_tables == 0 {
            return History::None;
        }
        let can = |version: &Version| version.family == Family::Mariadb && version.series() >= HISTORY_SINCE;
        let why = match (&self.precise_table, tool) {
            (Some(table), _) => format!(
                "{table} keeps its history by transactions (ROW START is a bigint), which the dump tool cannot write"
            ),
            (None, Some(tool)) if !can(tool) => {
                format!("the dump tool ({tool}) is not of MariaDB 10.11 or later")
            }
            (None, None) => "the dump tool does not say its version".to_owned(),
            (None, Some(_)) if !can(&self.version) => {
                format!("the server ({}) could not take it back: MariaDB can from 10.11 on", self.version)
            }
            (None, Some(_)) => return History::Dumped,
        };
        History::Lost(format!(
            "{} system-versioned tables are in the dump as they are now, without the history of their rows: {why}",
            self.versioned_tables
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_and_a_name_is_never_sql() {
        let server = parse("10.11.19-MariaDB-0+deb12u1\t16384\t2\t3\n").unwrap();
        assert_eq!(
            (
                server.version.to_string().as_str(),
                server.size_bytes,
                server.loose_tables,
                server.versioned_tables
            ),
            ("MariaDB 10.11.19", 16384, 2, 3)
        );
        assert!(parse("ERROR 1045 (28000)").is_none());
        assert!(question("x'; DROP").contains("X'78273B2044524F50'"));
        assert!(question("").contains("NOT IN ('mysql'"));
        assert_eq!(parse_generated("d.t.c\t1\n").as_deref(), Some("d.t.c"));
        assert_eq!(parse_generated("d.t.c\t3\n").as_deref(), Some("d.t.c and 2 more"));
        assert_eq!(parse_generated("NULL\t0\n"), None);
    }

    #[test]
    fn a_history_that_is_not_in_the_dump_is_told_with_the_reason() {
        let tool = |said: &str| Version::of_tool(said);
        let new = tool("mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux");
        let of = |version: &str, versioned, precise: Option<&str>| Server {
            precise_table: precise.map(str::to_owned),
            ..parse(&format!("{version}\t1\t0\t{versioned}")).unwrap()
        };
        let lost = |server: &Server, tool: Option<&Version>| match server.history(tool) {
            History::Lost(why) => why,
            other @ (History::None | History::Dumped) => panic!("{other:?}"),
        };
        assert_eq!(of("11.4.2-MariaDB", 0, None).history(new.as_ref()), History::None);
        assert_eq!(of("10.11.2-MariaDB", 2, None).history(new.as_ref()), History::Dumped);
        let precise = lost(&of("11.4.2-MariaDB", 2, Some("d.x")), new.as_ref());
        assert!(precise.contains("2 system-versioned") && precise.contains("d.x keeps"), "{precise}");
        let old = tool("mysqldump  Ver 10.19 Distrib 10.6.2-MariaDB, for x");
        assert!(lost(&of("11.4.2-MariaDB", 1, None), old.as_ref()).contains("MariaDB 10.6.2"));
        let oracle = tool("mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)");
        assert!(lost(&of("11.4.2-MariaDB", 1, None), oracle.as_ref()).contains("MySQL 8.0.36"));
        assert!(lost(&of("10.6.2-MariaDB", 1, None), new.as_ref()).contains("the server (MariaDB 10.6.2)"));
    }
}
