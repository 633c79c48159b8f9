//! MongoDB. No server of it can be had where these tests run: a scripted mongodump checks what it is given and writes an
//! archive after the format's description. What a real one does with these arguments is not tried here.

use crate::contract::{NAME, PASSWORD, USER};
use crate::run::{CANCEL_LIMIT, Site, Watch, failed, script, timed};
use backupy_agent::model::{Connection, Engine as Kind, RunOutcome, Strategy, TargetSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Writes an archive of so many documents; before that it looks at everything that it was given.
pub const MONGODUMP: &str = r#"#!/usr/bin/python3
import json, os, stat, struct, sys

def document(*fields):
    body = b''
    for name, value in fields:
        if isinstance(value, bool):
            body += b'\x08' + name.encode() + b'\0' + bytes([value])
        elif isinstance(value, int):
            body += b'\x12' + name.encode() + b'\0' + struct.pack('<q', value)
        else:
            text = value.encode()
            body += b'\x02' + name.encode() + b'\0' + struct.pack('<i', len(text) + 1) + text + b'\0'
    return struct.pack('<i', len(body) + 5) + body + b'\0'

def refuse(why):
    sys.exit('Failed: ' + why)

given = dict(arg[2:].partition('=')[::2] for arg in sys.argv[1:])
expected = json.load(open(os.path.join(os.path.dirname(sys.argv[0]), 'expected.json')))
file = given.pop('config')
if stat.S_IMODE(os.stat(file).st_mode) != 0o600 or stat.S_IMODE(os.stat(os.path.dirname(file)).st_mode) != 0o700:
    refuse('its file is not private')
line = open(file, encoding='utf-8').read()
if json.loads(line.split(': ', 1)[1]) != expected['password']:
    refuse('authentication failed for ' + line)
if given != expected['given']:
    refuse('arguments ' + repr(given))
if any(name.startswith('BACKUPY') or name == 'CREDENTIALS_DIRECTORY' for name in os.environ):
    refuse('the agent\'s environment')
out, end = sys.stdout.buffer, b'\xff' * 4
out.write(b'\x6d\xe2\x99\x81' + document(('version', '0.1'), ('server_version', '7.0.5'), ('tool_version', '100.9')))
out.write(document(('db', 'd'), ('collection', 'c'), ('metadata', '{}')) + end)
out.write(document(('db', 'd'), ('collection', 'c'), ('EOF', False), ('CRC', 0)))
for n in range(expected['documents']):
    out.write(document(('_id', n), ('text', '%064d' % (n * 2654435761) * 4)))
out.write(end)
if expected['whole']:
    out.write(document(('db', 'd'), ('collection', 'c'), ('EOF', True), ('CRC', 7)) + end)
"#;

fn site(documents: u32, whole: bool) -> Site {
    let site = Site::new(&[]);
    script(&site.bin(), "mongodump", MONGODUMP);
    expect(&site, documents, whole);
    site
}

/// What the script is to be given.
pub fn expect(site: &Site, documents: u32, whole: bool) {
    let expected = serde_json::json!({
        "password": PASSWORD,
        "documents": documents,
        "whole": whole,
        "given": {
            "archive": "", "host": "-h evil", "port": "27018", "username": USER,
            "authenticationDatabase": "admin", "db": NAME,
        },
    });
    std::fs::write(site.bin().join("expected.json"), expected.to_string()).unwrap();
}

pub fn target() -> TargetSpec {
    TargetSpec {
        id: "t1".into(),
        engine: Some(Kind::Mongodb),
        display_name: "main".into(),
        connection: Connection {
            host: "-h evil".into(),
            port: 27018,
            database: NAME.into(),
            username: USER.into(),
            password_ref: format!("literal:{PASSWORD}").into(),
            container_id: String::new(),
            strategy: Strategy::Tcp,
        },
    }
}

#[test]
#[ignore = "needs python3: make engines"]
fn a_scripted_mongodump_gets_what_it_needs_and_nothing_else() {
    let site = site(20_000, true);
    let watch = Watch::for_secret(PASSWORD);
    let completed = site.success(&target());
    watch.end();
    assert_eq!(completed.engine_version, "MongoDB 7.0.5");
    let dump = std::fs::read(site.opened()).unwrap();
    assert!(dump.starts_with(&[0x6d, 0xe2, 0x99, 0x81]) && dump.ends_with(&[0xff; 4]));
    let (code, told, said) = crate::restored::look_fails(&site, completed);
    assert_eq!((code, &told["error"]), (69, &"not_restorable".into()), "{said}");
    assert!(said.contains("a dump of MongoDB"), "{said}");
}

#[test]
#[ignore = "needs python3: make engines"]
fn a_scripted_mongodump_that_fails_or_ends_in_the_middle_is_no_success() {
    let mut wrong = target();
    wrong.connection.password_ref = "literal:another".into();
    let error = site(10, true).failure(&wrong);
    assert!(error.contains("mongodump ended with exit status 1: Failed: authentication failed"), "{error}");
    assert!(!error.contains("another"), "{error}");

    let error = site(10, false).failure(&target());
    assert!(error.contains("collection d.c") && error.contains("ends in the middle"), "{error}");

    let error = Site::new(&[]).failure(&target());
    assert!(
        error.contains("mongodump is not installed") && error.contains("mongodb-database-tools"),
        "{error}"
    );

    let slow = site(100_000, true).slow();
    let going = slow.begin(&target());
    let tool = slow.until_dumping("mongodump");
    kill(Pid::from_raw(tool), Signal::SIGKILL).unwrap();
    let error = failed(slow.end(going), &target());
    assert!(error.contains("mongodump was killed (SIGKILL)"), "{error}");

    let going = slow.begin(&target());
    slow.until_dumping("mongodump");
    going.cancel.cancel();
    let (outcome, took) = timed(|| slow.end(going));
    assert_eq!(outcome, RunOutcome::Cancelled);
    assert!(took < CANCEL_LIMIT, "{took:?}");
}
