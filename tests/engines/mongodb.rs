//! MongoDB. No server of it can be had where these tests run: a scripted mongodump checks what it is given, asks a scripted
//! server, and writes an archive after the format's description. What a real one does with these arguments is not tried
//! here.

use crate::contract::{Database, Engine, NAME, PASSWORD, USER, by_tcp};
use crate::run::Site;
use crate::server::{Server, as_user};
use backupy_agent::model::{Engine as Kind, TargetSpec};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

crate::contract!(served Mongodb, "authentication failed");

pub struct Mongodb(Server);

/// What a document of the scripts takes in an archive, about.
const DOCUMENT_LEN: u64 = 290;

fn scripted(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/scripted").join(name)
}

impl Database for Mongodb {
    const VERSION: &'static str = "MongoDB 7.0.5";

    fn start() -> Self {
        let expected = serde_json::json!({
            "archive": "", "username": USER, "authenticationDatabase": "admin", "db": NAME, "password": PASSWORD,
        });
        let prepare = |dir: &Path| {
            fs::write(dir.join("expected.json"), expected.to_string()).unwrap();
            fs::write(dir.join("count"), "0").unwrap();
        };
        Self(Server::start(
            "root",
            prepare,
            |dir, port| {
                let mut command = as_user("root", scripted("mongod"));
                command.arg(dir).arg(port.to_string());
                command
            },
            |dir, port| {
                UnixStream::connect(dir.join("mongodb.sock")).is_ok()
                    && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            },
        ))
    }

    fn tools() -> Vec<PathBuf> {
        vec![scripted("mongodump")]
    }

    fn fill(&self, bytes: u64) {
        fs::write(self.0.dir.path().join("count"), (bytes / DOCUMENT_LEN).to_string()).unwrap();
    }

    fn digest(&self) -> String {
        fs::read_to_string(self.0.dir.path().join("count")).unwrap()
    }

    fn restore(&self, dump: &Path) {
        let dump = fs::read(dump).unwrap();
        let (mut rest, mut count) = (dump.strip_prefix(&[0x6d, 0xe2, 0x99, 0x81]).unwrap(), 0);
        while let Some((length, _)) = rest.split_first_chunk::<4>() {
            let length = if *length == [0xff; 4] { 4 } else { u32::from_le_bytes(*length) as usize };
            let (document, after) = rest.split_at(length);
            count += u64::from(document.get(5..8) == Some(b"_id"));
            rest = after;
        }
        self.fill(count * DOCUMENT_LEN);
    }

    fn target(&self) -> TargetSpec {
        by_tcp(Kind::Mongodb, self.0.port, NAME, USER)
    }
}

impl Engine for Mongodb {
    const TOOL: &'static str = "mongodump";
    const PACKAGE: &'static str = "mongodb-database-tools";

    fn server(&self) -> &Server {
        &self.0
    }

    fn socket(&self) -> PathBuf {
        self.0.dir.path().join("mongodb.sock")
    }
}

#[test]
#[ignore = "needs python3: make engines"]
fn an_archive_that_ends_in_the_middle_is_no_success_even_when_its_tool_says_so() {
    let server = Mongodb::start();
    server.fill(100_000);
    fs::write(server.0.dir.path().join("cut"), "").unwrap();
    let error = Site::new(&Mongodb::tools()).failure(&server.target());
    assert!(error.contains("collection d.c") && error.contains("ends in the middle"), "{error}");
}

#[test]
#[ignore = "needs python3: make engines"]
fn a_look_at_a_backup_of_it_is_refused_in_words() {
    let server = Mongodb::start();
    let site = Site::new(&Mongodb::tools());
    let completed = site.success(&server.target());
    let (code, told, said) = crate::restored::look_fails(&site, completed);
    assert_eq!((code, &told["error"]), (69, &"not_restorable".into()), "{said}");
    assert!(said.contains("a dump of MongoDB"), "{said}");
}

#[test]
#[ignore = "needs python3: make engines"]
fn addresses_with_colons_and_connection_strings_reach_the_server() {
    let server = Mongodb::start();
    server.fill(1_000);
    let site = Site::new(&Mongodb::tools());
    let mut target = server.target();
    target.connection.host = "::1".into();
    site.success(&target);
    target.connection.host = format!("mongodb://127.0.0.1:{}/?tls=false", server.0.port);
    site.success(&target);
    let socket = server.socket().display().to_string().replace('/', "%2F");
    target.connection.host = format!("mongodb://{socket}/");
    site.success(&target);
}

#[test]
#[ignore = "needs python3: make engines"]
fn a_database_that_is_not_there_is_no_backup_of_nothing() {
    let server = Mongodb::start();
    fs::write(server.0.dir.path().join("missing"), "").unwrap();
    let error = Site::new(&Mongodb::tools()).failure(&server.target());
    assert!(error.contains("has no collections") && error.contains("connection.database"), "{error}");
}
