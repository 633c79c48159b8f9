//! PostgreSQL.

use crate::contract::{Database, Engine, NAME, PASSWORD, USER, by_tcp};
use crate::restored::{Restorable, look_at, look_fails};
use crate::run::{Site, script};
use crate::server::{Server, as_user, fed, ok, succeeds};
use backupy_agent::drivers::{Scratch, open};
use backupy_agent::model::{Engine as Kind, TargetSpec};
use backupy_agent::process::Cancel;
use backupy_agent::spool::Room;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

crate::contract!(served Postgres, "password authentication failed");
crate::restored!(Postgres);

pub struct Postgres(Server);

/// Of the version that Debian brought.
pub fn program(name: &str) -> PathBuf {
    let mut found: Vec<_> =
        (9..40).map(|n| PathBuf::from(format!("/usr/lib/postgresql/{n}/bin/{name}"))).collect();
    found.retain(|path| path.is_file());
    found.pop().unwrap_or_else(|| panic!("{name} is not installed: run `make deps`"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl Postgres {
    /// psql as the superuser, without a password by the socket.
    fn psql(&self, database: &str) -> Command {
        let mut command = self.0.program(program("psql"));
        command.env("PGHOST", self.0.dir.path()).env("PGPORT", self.0.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// Somebody who holds a lock that a dump waits for.
    pub fn hold(&self, table: &str) -> std::process::Child {
        let mut psql = self.psql(NAME);
        psql.arg("-c").arg(format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(600)"));
        psql.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        ok(self.psql(database).arg("-c").arg(sql))
    }
}

impl Database for Postgres {
    const VERSION: &'static str = "PostgreSQL ";

    fn start() -> Self {
        let server = Server::start(
            "postgres",
            |dir| {
                let mut initdb = as_user("postgres", program("initdb"));
                initdb.arg("-D").arg(dir.join("data")).args(["-U", "postgres", "--no-sync", "-E", "UTF8"]);
                ok(initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--locale=C.UTF-8"]));
                // By the socket only the superuser comes in without a password.
                let rules =
                    "local all postgres trust\nlocal all all scram-sha-256\nhost all all all scram-sha-256\n";
                std::fs::write(dir.join("data/pg_hba.conf"), rules).unwrap();
            },
            |dir, port| {
                let mut command = as_user("postgres", program("postgres"));
                command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string(), "-F", "-k"]).arg(dir);
                command.args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=32MB"]);
                command
            },
            |dir, port| {
                let mut psql = Command::new(program("psql"));
                psql.args([
                    "-h",
                    &dir.display().to_string(),
                    "-p",
                    &port.to_string(),
                    "-U",
                    "postgres",
                    "-c",
                    "SELECT 1",
                ]);
                succeeds(&mut psql)
            },
        );
        let postgres = Self(server);
        let (name, user, password) = (quoted(NAME), quoted(USER), literal(PASSWORD));
        postgres.sql("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD {password}"));
        postgres.sql("postgres", "CREATE ROLE reader");
        postgres.sql("postgres", &format!("CREATE DATABASE {name} OWNER {user}"));
        postgres
    }

    fn tools() -> Vec<PathBuf> {
        ["pg_dump", "psql"].map(program).to_vec()
    }

    fn fill(&self, bytes: u64) {
        let user = quoted(USER);
        let rows = bytes / 200;
        self.sql(
            NAME,
            &format!(
                "SET ROLE {user}; CREATE SCHEMA s; CREATE TABLE s.t(id bigserial PRIMARY KEY, k uuid, v text, b bytea);
                 INSERT INTO s.t(k, v, b) SELECT gen_random_uuid(), repeat(md5(n::text), 3), decode(md5((n*7)::text), 'hex')
                   FROM generate_series(1, {rows}) n;
                 COMMENT ON TABLE s.t IS 'it''s a comment';
                 GRANT USAGE ON SCHEMA s TO reader; GRANT SELECT ON s.t TO reader;
                 CREATE TABLE \"-empty \u{fc}\"(a int); CREATE INDEX ON s.t(k);
                 CREATE VIEW s.w AS SELECT count(*) FROM s.t;
                 CREATE MATERIALIZED VIEW s.m AS SELECT max(id) FROM s.t;
                 CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 42';
                 SELECT lo_from_bytea(4242, decode(repeat('00ff10', 100000), 'hex'));"
            ),
        );
    }

    fn digest(&self) -> String {
        let is_filled = self.sql(NAME, "SELECT to_regclass('s.t') IS NOT NULL");
        if is_filled.trim() != "t" {
            return self
                .sql(NAME, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace");
        }
        self.sql(
            NAME,
            "SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY id)) FROM s.t;
             SELECT obj_description('s.t'::regclass), relacl, relowner::regrole FROM pg_class WHERE oid = 's.t'::regclass;
             SELECT (SELECT * FROM s.w), (SELECT * FROM s.m), s.f(), nextval('s.t_id_seq') > 1;
             SELECT md5(lo_get(4242)); SELECT count(*) FROM \"-empty \u{fc}\";
             SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 's'",
        )
    }

    fn restore(&self, dump: &Path) {
        let mut restore = self.0.program(program("pg_restore"));
        restore
            .env("PGHOST", self.0.dir.path())
            .env("PGPORT", self.0.port.to_string())
            .env("PGUSER", "postgres");
        // pg_restore takes no database out of the environment; a connection string is the safe way to say it.
        let name = NAME.replace('\\', "\\\\").replace('\'', "\\'");
        restore.args(["--exit-on-error", "--dbname", &format!("dbname='{name}'")]);
        fed(&mut restore, dump);
    }

    fn target(&self) -> TargetSpec {
        by_tcp(Kind::Postgresql, self.0.port, NAME, USER)
    }
}

impl Engine for Postgres {
    const TOOL: &'static str = "pg_dump";
    const PACKAGE: &'static str = "postgresql-client";

    fn server(&self) -> &Server {
        &self.0
    }

    fn socket(&self) -> PathBuf {
        self.0.dir.path().to_path_buf()
    }
}

impl Restorable for Postgres {
    /// Its programs are found beside the `PATH`.
    const NEEDED: Option<(&'static str, &'static str)> = None;

    fn delete_rows(&self) {
        self.sql(NAME, "DELETE FROM s.t WHERE id % 10 = 0");
    }

    fn size(&self) -> (u64, u64) {
        (2, self.sql(NAME, "SELECT count(*) FROM s.t").trim().parse().unwrap())
    }
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_tool_that_is_older_than_the_server_is_named_with_the_package_that_has_a_newer_one() {
    let server = Postgres::start();
    let site = Site::new(&Postgres::tools());
    script(&site.bin(), "pg_dump", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3 (Debian 12.3-1)'\n");
    let error = site.failure(&server.target());
    assert!(
        error.contains("PostgreSQL 1") && error.contains("12.3") && error.contains("postgresql-client-1"),
        "{error}"
    );

    // A newer one beside it is taken instead.
    let mut site = site;
    site.options.host.tools.postgres_dirs = vec![program("pg_dump").parent().unwrap().to_owned()];
    site.success(&server.target());
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_dump_that_is_cut_off_is_no_success_even_when_its_tool_says_so() {
    let server = Postgres::start();
    server.fill(2 << 20);
    let site = Site::new(&Postgres::tools());
    let real = program("pg_dump");
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec {0} --version;; esac\n{0} \"$@\" | head -c 500000\nexit 0\n",
        real.display()
    );
    script(&site.bin(), "pg_dump", &text);
    let error = site.failure(&server.target());
    assert!(error.contains("no whole one") && error.contains("ends in the middle"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_missing_database_is_told_in_the_tools_own_words() {
    let server = Postgres::start();
    let site = Site::new(&Postgres::tools());
    let mut target = server.target();
    target.connection.database = "nothing here".into();
    let error = site.failure(&target);
    assert!(error.contains("database \"nothing here\" does not exist"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn databases_of_every_kind_are_restored_for_a_look() {
    let server = Postgres::start();
    let site = Site::new(&Postgres::tools());
    let root = |database: &str| {
        let mut target = server.socket_target();
        target.connection.database = database.into();
        target.connection.username = "postgres".into();
        target.connection.password_ref = "".into();
        target
    };
    // Names and rows come in the encoding of their database; in the last one that is no encoding at all.
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let make = "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
        server.sql("postgres", &format!("CREATE DATABASE {name} ENCODING '{encoding}' {make}"));
        let table = "\"t\u{e4}\"";
        server.sql(
            &name,
            &format!(
                "SET client_encoding = 'UTF8'; CREATE TABLE {table}(a text);
                 INSERT INTO {table} VALUES ('\u{fc}' || chr(10)), ('\\.')"
            ),
        );
        let told = look_at(&site, site.success(&root(&name)), "PostgreSQL ");
        assert_eq!(told["restored"]["rows"], 2, "{told}");
    }
    // Roles are not in a dump; partitions are tables of their own; a table may have no columns.
    server.sql("postgres", "CREATE DATABASE kinds");
    server.sql(
        "kinds",
        "CREATE ROLE clerk; CREATE TABLE t(a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t TO clerk USING (a > 1); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO clerk;
         CREATE TABLE parts(a int) PARTITION BY LIST (a); CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1);
         INSERT INTO parts VALUES (1), (1);
         CREATE TABLE bare(); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES",
    );
    let told = look_at(&site, site.success(&root("kinds")), "PostgreSQL ");
    let expected = serde_json::json!({"public.t": 2, "public.part1": 2, "public.bare": 2});
    assert_eq!(told["restored"]["tables"], expected);
    assert!(
        told["restored"]["remarks"][0].as_str().unwrap().starts_with("1 statements name a role"),
        "{told}"
    );
    // A table that would not take its own rows any more: the backup is authentic, and does not restore.
    let check =
        |result: &str| format!("FUNCTION ok(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT {result}'");
    let (good, bad) = (check("true"), check("false"));
    server.sql("kinds", &format!("CREATE {good}; ALTER TABLE t ADD CHECK (ok(a)); CREATE OR REPLACE {bad}"));
    let (code, told, said) = look_fails(&site, site.success(&root("kinds")));
    assert_eq!((code, &told["error"]), (65, &"database_broken".into()), "{said}");
    assert!(said.contains("violates check constraint"), "{said}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_place_that_the_server_cannot_come_to_is_named_with_what_to_do() {
    let source = Postgres::start();
    source.fill(100_000);
    let site = Site::new(&Postgres::tools());
    let completed = site.success(&source.target());
    let closed = site.dir.path();
    std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (code, told, said) = look_fails(&site, completed);
    assert_eq!((code, &told["error"]), (73, &"output_not_created".into()), "{said}");
    let what = format!(
        "runs as postgres, who cannot enter {0}: let postgres through (chmod o+x {0})",
        closed.display()
    );
    assert!(said.contains(&what) && said.contains("restored here"), "{said}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn the_estimate_is_of_what_a_dump_has_and_needs_no_rights() {
    let server = Postgres::start();
    server.fill(4 << 20);
    let indexes = (0..12).map(|n| format!("CREATE INDEX i{n} ON s.t(v, id)")).collect::<Vec<_>>().join(";");
    server.sql(NAME, &indexes);
    let whole: u64 = server.sql(NAME, "SELECT pg_database_size(current_database())").trim().parse().unwrap();
    let site = Site::new(&Postgres::tools());
    let target = server.target();
    site.success(&target);
    let dumped = site.opened().metadata().unwrap().len();
    let estimate = |target: &TargetSpec| {
        let scratch = Scratch { dir: site.options.spool_dir.clone(), room: Room::default() };
        let cancel = Cancel::new();
        open(target, &site.options.host, scratch, &cancel).unwrap().estimate(&cancel).unwrap()
    };
    let expected = estimate(&target);
    assert!(
        whole > 4 * dumped && expected < 2 * dumped && expected > dumped / 2,
        "{whole} {expected} {dumped}"
    );
    // A table that somebody holds is not waited for: the whole must do.
    let mut holder = server.hold("s.t");
    crate::common::eventually("somebody holds the table", std::time::Duration::from_secs(10), || {
        let held =
            "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 's.t'::regclass";
        (server.sql(NAME, held).trim() == "1").then_some(())
    });
    assert!(estimate(&target) > whole / 2);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn nobody_borrows_the_rights_of_the_backups_user() {
    let server = Postgres::start();
    let user = quoted(USER);
    // What the database's owner may put in everybody's way: functions that make it a superuser.
    let mut traps = String::new();
    for (operator, left, right, gives) in [
        ("+", "numeric", "bigint", "numeric"),
        ("!~", "name", "name", "boolean"),
        ("=", "name", "name", "boolean"),
        ("<>", "name", "name", "boolean"),
    ] {
        traps.push_str(&format!(
            "CREATE FUNCTION public.f({left}, {right}) RETURNS {gives} LANGUAGE plpgsql AS $$BEGIN \
             IF current_user <> {role} THEN EXECUTE 'ALTER ROLE {user} SUPERUSER'; END IF; RETURN NULL; END$$; \
             CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.f); ",
            role = literal(USER),
            user = user.replace('\'', "''"),
        ));
    }
    traps = traps.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION");
    server.sql(NAME, &format!("GRANT CREATE ON SCHEMA public TO {user}; SET ROLE {user}; {traps}"));
    server.sql("postgres", "ALTER ROLE postgres PASSWORD 'pw'");
    let mut target = server.target();
    target.connection.username = "postgres".into();
    target.connection.password_ref = "literal:pw".into();
    Site::new(&Postgres::tools()).success(&target);
    let trapped = server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolsuper");
    assert_eq!(trapped.trim(), "1", "only postgres itself");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn what_pg_dump_leaves_out_with_a_warning_is_told() {
    let server = Postgres::start();
    server
        .sql(NAME, "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)");
    let (_, remarks) = Site::new(&Postgres::tools()).remarks(&server.target());
    let told = remarks
        .iter()
        .any(|remark| remark.contains("pg_dump said") && remark.contains("subscriptions not dumped"));
    assert!(told, "{remarks:?}");
}
