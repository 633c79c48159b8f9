//! MariaDB, and what of MySQL can be tried with it.

use crate::contract::{self, Database, Engine, PASSWORD, USER, by_tcp};
use crate::restored::{Restorable, look_at, look_with};
use crate::run::{Site, script};
use crate::server::{Server, as_user, fed, ok, succeeds, tool};
use backupy_agent::model::{Engine as Kind, Strategy, TargetSpec};
use std::path::{Path, PathBuf};
use std::process::Command;

crate::contract!(served Mariadb, "Access denied");
crate::restored!(Mariadb);

pub struct Mariadb(Server);

/// Without quotes: mariadb-dump selects a database that has events by its escaped name, and finds none. A database
/// with quotes in its name has a test of its own.
const NAME: &str = "-d `q` a=b \u{fc}\u{4e16}%";

fn client(dir: &Path) -> Command {
    let mut command = Command::new(tool("mariadb"));
    command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"]);
    command.arg("--default-character-set=utf8mb4").arg(format!("--socket={}", dir.join("s").display()));
    command
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Mariadb {
    fn sql(&self, sql: &str) -> String {
        ok(client(self.0.dir.path()).arg("--execute").arg(sql))
    }

    fn sql_there(&self, sql: &str) -> String {
        self.sql(&format!("USE {}; {sql}", quoted(NAME)))
    }
}

impl Database for Mariadb {
    const VERSION: &'static str = "MariaDB 1";

    fn start() -> Self {
        let server = Server::start(
            "mysql",
            |dir| {
                let mut install = as_user("mysql", tool("mariadb-install-db"));
                install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                // Two at once in one directory remove each other's temporary tables.
                install.arg(format!("--tmpdir={}", dir.display()));
                ok(install.arg(format!("--datadir={}", dir.join("data").display())));
            },
            |dir, port| {
                let mut command = as_user("mysql", tool("mariadbd"));
                command.args([
                    "--no-defaults",
                    "--bind-address=127.0.0.1",
                    "--skip-name-resolve",
                    "--skip-log-bin",
                ]);
                command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]);
                command.args(["--innodb-log-file-size=16M", "--event-scheduler=OFF"]);
                command.arg(format!("--datadir={}", dir.join("data").display()));
                command.arg(format!("--socket={}", dir.join("s").display())).arg(format!("--port={port}"));
                command.arg(format!("--pid-file={}", dir.join("pid").display()));
                command
            },
            |dir, _| succeeds(client(dir).args(["--execute", "SELECT 1"])),
        );
        let mariadb = Self(server);
        let (name, user, password) = (quoted(NAME), literal(USER), literal(PASSWORD));
        mariadb.sql(&format!(
            "CREATE DATABASE {name}; CREATE USER {user}@'%' IDENTIFIED BY {password};
             GRANT ALL ON {name}.* TO {user}@'%'; GRANT SELECT ON mysql.* TO {user}@'%'"
        ));
        mariadb
    }

    fn tools() -> Vec<PathBuf> {
        ["mariadb-dump", "mariadb"].map(tool).to_vec()
    }

    fn fill(&self, bytes: u64) {
        let rows = bytes / 200;
        self.sql_there(&format!(
            "CREATE TABLE t(id BIGINT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(200) CHARACTER SET utf8mb4, b VARBINARY(40));
             INSERT INTO t(v, b) SELECT CONCAT(REPEAT(MD5(seq), 4), '\u{1f511}\\'\"'), UNHEX(SHA1(seq * 7)) FROM seq_1_to_{rows};
             CREATE TABLE `-empty \u{fc}`(a INT) COMMENT 'it''s a comment';
             CREATE TABLE old(a INT) ENGINE=MyISAM; INSERT INTO old VALUES(1), (2);
             CREATE VIEW w AS SELECT COUNT(*) AS n FROM t;
             CREATE FUNCTION f() RETURNS INT RETURN 42;
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.v = UPPER(NEW.v);
             CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;
             CREATE SEQUENCE s START WITH 100"
        ));
    }

    fn digest(&self) -> String {
        if self.sql_there("SHOW TABLES LIKE 't'").is_empty() {
            return self.sql_there("SHOW TABLES");
        }
        self.sql_there(
            "SELECT COUNT(*), SUM(CRC32(CONCAT_WS('|', id, v, HEX(b)))), BIT_XOR(CRC32(v)) FROM t;
             SELECT * FROM w; SELECT f(); SELECT COUNT(*) FROM `-empty \u{fc}`; SELECT SUM(a) FROM old; SHOW TRIGGERS LIKE 'x';
             SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE();
             SELECT EVENT_NAME, EVENT_DEFINITION, INTERVAL_VALUE FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE();
             SELECT TABLE_NAME, TABLE_COMMENT, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
        )
    }

    fn restore(&self, dump: &Path) {
        fed(client(self.0.dir.path()).arg(format!("--database={NAME}")), dump);
    }

    fn target(&self) -> TargetSpec {
        by_tcp(Kind::Mariadb, self.0.port, NAME, USER)
    }
}

impl Engine for Mariadb {
    const TOOL: &'static str = "mariadb-dump";
    const PACKAGE: &'static str = "mariadb-client";

    fn server(&self) -> &Server {
        &self.0
    }

    fn socket(&self) -> PathBuf {
        self.0.dir.path().join("s")
    }
}

impl Restorable for Mariadb {
    const NEEDED: Option<(&'static str, &'static str)> = Some(("mariadb", "mariadb-client"));

    fn delete_rows(&self) {
        self.sql_there("DELETE FROM t WHERE id % 10 = 0");
    }

    fn size(&self) -> (u64, u64) {
        let rows: u64 = self.sql_there("SELECT COUNT(*) FROM t").trim().parse().unwrap();
        // Two rows in the old table, none in the empty one.
        (3, rows + 2)
    }
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn every_character_of_a_password_comes_through_the_option_file() {
    let server = Mariadb::start();
    let site = Site::new(&Mariadb::tools());
    let all: String =
        (1..=126).map(char::from).filter(|c| *c != '\u{1a}').chain("\u{fc}\u{1f511}".chars()).collect();
    let user = literal(USER);
    for password in [all.as_str(), "\\", "\"", "'", "#", "\\\\\"", " ", "\\s\\t\\n", "\"quoted\"", "'quoted'"]
    {
        server.sql(&format!("ALTER USER {user}@'%' IDENTIFIED BY {}", literal(password)));
        let mut target = server.target();
        target.connection.password_ref = format!("literal:{password}").as_str().into();
        site.success(&target);
    }
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_database_with_quotes_in_its_name_is_dumped() {
    let name = quoted(contract::NAME);
    let make = format!("CREATE DATABASE {name}; USE {name}");
    let source = Mariadb::start();
    source.sql(&format!(
        "{make}; CREATE TABLE a(b INT); INSERT INTO a VALUES(5); CREATE VIEW c AS SELECT * FROM a;
         CREATE FUNCTION f() RETURNS INT RETURN 42"
    ));
    let mut target = source.target();
    target.connection.database = contract::NAME.into();
    target.connection.username = "root".into();
    target.connection.password_ref = "".into();
    let site = Site::new(&Mariadb::tools());
    site.success(&target);
    let second = Mariadb::start();
    second.sql(&make);
    fed(client(second.0.dir.path()).arg(format!("--database={}", contract::NAME)), &site.opened());
    assert_eq!(second.sql(&format!("SELECT *, {name}.f() FROM {name}.c")), "5\t42\n");

    // With an event in it the tool itself fails, and never leaves the event out.
    source.sql(&format!("USE {name}; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1"));
    let error = site.failure(&target);
    assert!(error.contains("Unknown database") && error.contains("in its name"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_target_without_a_database_is_the_whole_server() {
    let source = Mariadb::start();
    source.fill(100_000);
    source.sql("CREATE DATABASE other; CREATE TABLE other.o(a INT); INSERT INTO other.o VALUES(5); CREATE SEQUENCE other.s START WITH 100");
    let mut target = source.target();
    target.connection.database.clear();
    target.connection.username = "root".into();
    target.connection.password_ref = "".into();
    let site = Site::new(&Mariadb::tools());
    site.success(&target);
    let second = Mariadb::start();
    fed(&mut client(second.0.dir.path()), &site.opened());
    assert_eq!(second.digest(), source.digest());
    assert_eq!(second.sql("SELECT a, NEXTVAL(other.s) FROM other.o"), "5\t100\n");

    // A dump brings the accounts of its server, and still a restored one can be asked.
    source.sql("SET PASSWORD FOR root@localhost = PASSWORD('theirs')");
    target.connection.password_ref = "literal:theirs".into();
    target.connection.host = source.0.dir.path().join("s").display().to_string();
    target.connection.strategy = Strategy::UnixSocket;
    let told = look_at(&site, site.success(&target), "MariaDB 1");
    assert_eq!(told["restored"]["tables"]["other.o"], 1, "{told}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_dump_that_is_cut_off_is_no_success_even_when_its_tool_says_so() {
    let server = Mariadb::start();
    server.fill(2 << 20);
    let site = Site::new(&Mariadb::tools());
    let real = tool("mariadb-dump").display().to_string();
    script(&site.bin(), "mariadb-dump", &format!("#!/bin/sh\n{real} \"$@\" | head -c 500000\nexit 0\n"));
    let error = site.failure(&server.target());
    assert!(error.contains("no whole one") && error.contains("Dump completed"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_tool_that_is_older_than_the_server_is_named_when_it_fails() {
    let server = Mariadb::start();
    let site = Site::new(&Mariadb::tools());
    let old = "#!/bin/sh\ncase \"$1\" in\n--version) echo 'mysqldump  Ver 10.19 Distrib 10.1.2-MariaDB, for x' ;;\n*) echo 'unknown table type' >&2; exit 2 ;;\nesac\n";
    script(&site.bin(), "mariadb-dump", old);
    let error = site.failure(&server.target());
    assert!(error.contains("unknown table type") && error.contains("MariaDB 10.1.2"), "{error}");
    assert!(error.contains("older than the server") && error.contains("mariadb-client"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_target_that_says_mysql_is_dumped_with_what_is_there() {
    let source = Mariadb::start();
    source.fill(100_000);
    let mut target = source.target();
    target.engine = Some(Kind::Mysql);
    let site = Site::new(&[tool("mariadb-dump"), tool("mariadb"), tool("mysqldump")]);
    let completed = site.success(&target);
    assert!(completed.engine_version.starts_with("MariaDB 1"), "{}", completed.engine_version);
    let second = Mariadb::start();
    second.restore(&site.opened());
    assert_eq!(second.digest(), source.digest());
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn what_a_database_needs_of_its_server_is_no_fault_of_its_backup() {
    let source = Mariadb::start();
    // A view over a view whose definer the restored server does not have, rows that end with their server; and a name
    // with a line feed.
    source.sql_there(
        "CREATE TABLE `line\nfeed`(a INT); INSERT INTO `line\nfeed` VALUES (1), (2);
         CREATE TABLE fleeting(a INT) ENGINE = MEMORY; INSERT INTO fleeting VALUES (1);
         CREATE USER clerk@localhost; GRANT ALL ON *.* TO clerk@localhost;
         CREATE DEFINER = clerk@localhost VIEW under AS SELECT a FROM fleeting;
         CREATE DEFINER = clerk@localhost VIEW upon AS SELECT a FROM under",
    );
    let site = Site::new(&Mariadb::tools());
    let (code, told, said) = look_with(&site, site.success(&source.target()), |_| {});
    assert_eq!(code, 0, "{said}");
    assert_eq!(told["restored"]["tables"]["line\nfeed"], 2, "{told}");
    let remarks = told["restored"]["remarks"].to_string();
    assert!(remarks.contains("1 statements need a definer"), "{remarks}");
    assert!(remarks.contains("1 tables of the engine MEMORY"), "{remarks}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn the_history_of_system_versioned_tables_is_backed_up_and_counted() {
    let source = Mariadb::start();
    source.sql_there(
        "CREATE TABLE v(id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING; INSERT INTO v VALUES (1, 1), (2, 2);
         UPDATE v SET a = 5 WHERE id = 1; DELETE FROM v WHERE id = 2",
    );
    let all = "SELECT id, a, row_start FROM v FOR SYSTEM_TIME ALL ORDER BY id, row_start";
    let site = Site::new(&Mariadb::tools());
    let (completed, remarks) = site.remarks(&source.target());
    assert_eq!(remarks, [""; 0]);
    let second = Mariadb::start();
    second.restore(&site.opened());
    assert_eq!(second.sql_there(all), source.sql_there(all));
    assert_eq!(second.sql_there(all).lines().count(), 3);
    let told = look_at(&site, completed, "MariaDB 1");
    assert_eq!(told["restored"]["tables"]["v"], 3, "{told}");

    // What the tool refuses to dump with its history is dumped without, and says so.
    source.sql_there(
        "CREATE TABLE x(id INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS
         ROW END, PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING ENGINE = InnoDB; INSERT INTO x(id) VALUES (7)",
    );
    let (completed, remarks) = site.remarks(&source.target());
    assert!(
        matches!(&remarks[..], [one] if one.contains("2 system-versioned") && one.contains(".x keeps")),
        "{remarks:?}"
    );
    let told = look_at(&site, completed, "MariaDB 1");
    assert_eq!(
        (&told["restored"]["tables"]["v"], &told["restored"]["tables"]["x"]),
        (&1.into(), &1.into()),
        "{told}"
    );
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_mysql_that_is_dumped_by_mariadbs_tool_is_told_what_that_costs() {
    let site = Site::new(&[]);
    let client = "#!/bin/sh\nfor last; do :; done\ncase \"$last\" in\n*VERSION*) printf '8.0.36\\t1\\t0\\t0\\n' ;;\n\
        *GENERATED*) printf 'shop.orders.total\\t2\\n' ;;\n\
        *) echo 'GRANT ALL PRIVILEGES ON *.* TO `u`@`h`' ;;\nesac\n";
    let dump = "#!/bin/sh\ncase \"$1\" in\n--version) echo 'mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux' ;;\n\
        *) printf -- '-- MariaDB dump 10.19\\n-- Server version\\t8.0.36\\n-- Dump completed\\n' ;;\nesac\n";
    script(&site.bin(), "mysql", client);
    script(&site.bin(), "mariadb-dump", dump);
    let (_, remarks) = site.remarks(&by_tcp(Kind::Mysql, 1, "shop", USER));
    let [family, generated] = &remarks[..] else { panic!("{remarks:?}") };
    assert!(
        family.contains("of another family") && family.contains("mysql-client of MySQL itself"),
        "{family}"
    );
    assert!(generated.contains("shop.orders.total and 1 more"), "{generated}");

    std::fs::remove_file(site.bin().join("mariadb-dump")).unwrap();
    let error = site.failure(&by_tcp(Kind::Mysql, 1, "shop", USER));
    assert!(
        error.contains("mysqldump is not installed") && error.contains("mysql-client of MySQL"),
        "{error}"
    );
}
