//! Counts the rows of a script as it passes: every `CREATE TABLE` names a table, every tuple of an `INSERT` is a row.
//!
//! Both tools write line feeds, quotes and backslashes of the data as escapes, so a line feed always ends a line of the
//! script. mariadb-dump gives every row a line of its own, and only its first byte is looked at; mysqldump writes a
//! whole statement into one line, where quotes and brackets are followed. What stands between `DELIMITER ;;` and
//! `DELIMITER ;` is code, and no row of anybody's.

use super::super::tally::Tally;
use memchr::{memchr, memchr2};

/// Kept of a line until it is known: a statement's head with a name of 64 characters, every one of them a quote.
const HEAD_LEN: usize = 1024;

const CREATE: &[u8] = b"CREATE TABLE `";
const INSERT: &[u8] = b"INSERT INTO `";
const USE: &[u8] = b"USE `";
const CODE: &[u8] = b"DELIMITER ;;";
const NO_CODE: &[u8] = b"DELIMITER ;";
const VALUES: &[u8] = b"VALUES";

/// A server keeps its own accounts there: a restored server has more of them than the dump.
const SYSTEM: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// In the beginning of a line, of which nothing is known yet.
    #[default]
    Head,
    /// In a line that has no rows.
    Line,
    /// Behind the name of an INSERT, perhaps in the names of its columns.
    Columns { quoted: bool },
    /// In the word VALUES, so many bytes before its end.
    Values(usize),
    /// In a line with many rows.
    Tuples { depth: u32, quote: u8, escaped: bool },
    /// Where a line with one row may begin.
    RowStart,
    /// In such a line.
    Row,
}

/// Where in the script the reader stands.
#[derive(Default)]
pub struct Rows {
    at: At,
    head: Vec<u8>,
    /// Of `USE`, in a dump of all databases.
    database: Option<String>,
    table: String,
    rows: u64,
    is_code: bool,
    tally: Tally,
}

impl Rows {
    /// The next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = match self.at {
                At::Head => self.head(bytes),
                At::Line => self.skip_line(bytes, At::Head),
                At::Row => self.skip_line(bytes, At::RowStart),
                At::Columns { quoted } => self.columns(bytes, quoted),
                At::Values(left) => self.values(bytes, left),
                At::Tuples { depth, quote, escaped } => self.tuples(bytes, depth, quote, escaped),
                At::RowStart => {
                    if bytes.first() == Some(&b'(') {
                        self.rows += 1;
                        self.at = At::Row;
                    } else {
                        self.end_insert();
                    }
                    0
                }
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// What was counted; the script is over.
    pub fn finish(&mut self) -> Tally {
        self.end_insert();
        std::mem::take(&mut self.tally)
    }

    fn end_insert(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if rows > 0 && self.tally.knows(&self.table) {
            self.tally.add(&self.table, rows);
        }
        self.at = At::Head;
    }

    fn skip_line(&mut self, bytes: &[u8], next: At) -> usize {
        match memchr(b'\n', bytes) {
            Some(at) => {
                self.at = next;
                at + 1
            }
            None => bytes.len(),
        }
    }

    /// Gathers the line's beginning, and finds out what it is.
    fn head(&mut self, bytes: &[u8]) -> usize {
        let room = (HEAD_LEN - self.head.len()).min(bytes.len());
        let near = bytes.get(..room).unwrap_or_default();
        let (used, ended) = match memchr(b'\n', near) {
            Some(at) => (at + 1, true),
            None => (room, false),
        };
        self.head.extend_from_slice(near.get(..used).unwrap_or_default());
        // A name may have a line feed in it.
        let ended = ended && !self.is_in_a_name();
        if ended || self.head.len() == HEAD_LEN {
            self.at = if ended { At::Head } else { At::Line };
            let mut head = std::mem::take(&mut self.head);
            self.judge(&head);
            head.clear();
            self.head = head;
        }
        used
    }

    fn is_in_a_name(&self) -> bool {
        let behind = |start: &&[u8]| self.head.strip_prefix(*start);
        !self.is_code
            && [CREATE, INSERT, USE].iter().find_map(behind).is_some_and(|name| quoted(name).is_none())
    }

    fn judge(&mut self, line: &[u8]) {
        if self.is_code {
            self.is_code = line.trim_ascii_end() != NO_CODE;
        } else if line.starts_with(CODE) {
            self.is_code = true;
        } else if let Some((table, _)) = line.strip_prefix(CREATE).and_then(quoted) {
            if let Some(name) = self.name(table) {
                self.tally.add(&name, 0);
            }
        } else if let Some((table, rest)) = line.strip_prefix(INSERT).and_then(quoted) {
            self.end_insert();
            self.table = self.name(table).unwrap_or_default();
            self.at = At::Columns { quoted: false };
            // No line begins in it, so this does not come here again.
            self.take(rest);
        } else if let Some((database, _)) = line.strip_prefix(USE).and_then(quoted) {
            self.database = Some(database);
        }
    }

    /// None for a table of the server's own.
    fn name(&self, table: String) -> Option<String> {
        match &self.database {
            None => Some(table),
            Some(database) if SYSTEM.contains(&database.as_str()) => None,
            Some(database) => Some(format!("{database}.{table}")),
        }
    }

    /// The only letters outside of quotes are those of VALUES.
    fn columns(&mut self, bytes: &[u8], quoted: bool) -> usize {
        let found = if quoted { memchr(b'`', bytes) } else { memchr2(b'`', b'V', bytes) };
        let Some(at) = found else { return bytes.len() };
        self.at = match bytes.get(at) {
            Some(b'`') => At::Columns { quoted: !quoted },
            _ => At::Values(VALUES.len() - 1),
        };
        at + 1
    }

    fn values(&mut self, bytes: &[u8], left: usize) -> usize {
        let used = left.min(bytes.len());
        self.at = if used == left {
            At::Tuples { depth: 0, quote: 0, escaped: false }
        } else {
            At::Values(left - used)
        };
        used
    }

    /// Rows up to the end of the line; mariadb-dump ends it at once, or behind the first row.
    fn tuples(&mut self, bytes: &[u8], mut depth: u32, mut quote: u8, mut escaped: bool) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if escaped {
                escaped = false;
                at += 1;
            } else if quote != 0 {
                let rest = bytes.get(at..).unwrap_or_default();
                let Some(found) = memchr2(quote, b'\\', rest) else {
                    at = bytes.len();
                    break;
                };
                if rest.get(found) == Some(&b'\\') {
                    escaped = true;
                } else {
                    quote = 0;
                }
                at += found + 1;
            } else {
                at += 1;
                match byte {
                    b'\'' | b'"' => quote = *byte,
                    b'(' => {
                        self.rows += u64::from(depth == 0);
                        depth += 1;
                    }
                    b')' => depth = depth.saturating_sub(1),
                    b'\n' => {
                        self.at = At::RowStart;
                        return at;
                    }
                    _ => {}
                }
            }
        }
        self.at = At::Tuples { depth, quote, escaped };
        at
    }
}

/// A name up to its closing backtick, and what follows that.
fn quoted(text: &[u8]) -> Option<(String, &[u8])> {
    let mut name = Vec::new();
    let mut rest = text;
    loop {
        let at = memchr(b'`', rest)?;
        let (part, after) = rest.split_at(at);
        name.extend_from_slice(part);
        rest = after.get(1..)?;
        match rest.strip_prefix(b"`") {
            Some(more) => {
                name.push(b'`');
                rest = more;
            }
            None => return Some((String::from_utf8_lossy(&name).into_owned(), rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(script: &str, piece: usize) -> Vec<(String, u64)> {
        let mut rows = Rows::default();
        script.as_bytes().chunks(piece).for_each(|piece| rows.take(piece));
        rows.finish().rows().iter().map(|(name, rows)| (name.clone(), *rows)).collect()
    }

    fn holds(script: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        for piece in [1, 2, 3, 7, 100, script.len()] {
            assert_eq!(counted(script, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_line_a_row_as_mariadb_dump_writes_them() {
        let script = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump\nCREATE SEQUENCE `s` start with 1;\n\
            CREATE TABLE `we``ird (` (\n  `a` int COMMENT 'INSERT INTO `t` VALUES (1)'\n);\n\
            CREATE TABLE `t` (\n  `id` int\n);\nLOCK TABLES `t` WRITE;\n\
            INSERT INTO `t` VALUES\n(1,'a\\nb;(x),('),\n(2,'it\\'s \\\"q\\\"'),\n(3,'back\\\\');\n\
            INSERT INTO `t` VALUES\n(4,NULL);\nUNLOCK TABLES;\n\
            CREATE TABLE `inv` (\n);\nINSERT INTO `inv` (`a`, `V``ALUES (`) VALUES (1,4),\n(2,4);\n\
            /*!50001 CREATE VIEW `w` AS SELECT\n 1 AS `x` */;\n-- Dump completed\n";
        holds(script, &[("inv", 2), ("t", 4), ("we`ird (", 0)]);
    }

    #[test]
    fn a_name_with_a_line_feed_is_one_name() {
        let script =
            "CREATE TABLE `a``\nb` (\n  `c\nd` int\n);\nINSERT INTO `a``\nb` VALUES\n(1),\n(2);\n-- end\n";
        holds(script, &[("a`\nb", 2)]);
    }

    #[test]
    fn a_line_a_statement_as_mysqldump_writes_them() {
        let long = "x".repeat(3 * HEAD_LEN);
        let script = format!(
            "CREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES (1,'{long}'),(2,'),(\\'),('),(3,'it''s'),(4,_binary '\\\\'),\
             (5,0x28),(6,(7));\nINSERT INTO `t` (`a`) VALUES (1),(2);\nCREATE TABLE `u` (\n);\n-- end\n"
        );
        holds(&script, &[("t", 8), ("u", 0)]);
    }

    #[test]
    fn code_is_no_row_and_databases_are_told_apart() {
        let script = "USE `mysql`;\nCREATE TABLE `user` (\n);\nINSERT INTO `user` VALUES (1);\nUSE `a`;\n\
            CREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES\n(1);\nDELIMITER ;;\n\
            /*!50003 trigger g for each row begin\nINSERT INTO `t` VALUES (5);\nend */;;\nDELIMITER ;\n\
            USE `b`;\nCREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES (1),(2);\n";
        holds(script, &[("a.t", 1), ("b.t", 2)]);
    }

    #[test]
    fn a_script_that_ends_in_its_rows_is_counted_as_far_as_it_came() {
        holds("CREATE TABLE `t` (\n);\nINSERT INTO `t` VALUES\n(1),\n(2", &[("t", 2)]);
    }
}
