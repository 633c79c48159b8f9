use super::*;
use crate::docker::Timing;
use crate::drivers::container::Access;
use crate::drivers::ground::Ground;
use crate::drivers::patience::Silence;
use crate::drivers::scripted_engine::{Say, ScriptedEngine, answer, frames, upgraded};
use crate::drivers::tool;
use crate::model::{Connection, Strategy, TargetSpec};
use crate::process::Cancel;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SECRET: &str = "s3cr3t p\"w";

fn target() -> TargetSpec {
    let connection =
        Connection { container_id: "/db".into(), strategy: Strategy::DockerExec, ..Connection::default() };
    TargetSpec { id: "t1".into(), engine: None, display_name: String::new(), connection }
}

fn open(engine: &ScriptedEngine, cancel: &Cancel) -> Result<Container, DumpError> {
    let brief = Duration::from_millis(300);
    let timing = Timing { answer: Duration::from_secs(2), silence: brief, settle: brief };
    Container::open(&target(), &Access { socket: engine.socket(), owner: None, timing }, cancel)
}

fn run_with(engine: &ScriptedEngine, cancel: &Cancel) -> Result<String, DumpError> {
    let ground = Ground::Container(Rc::new(open(engine, cancel)?));
    let call = Call::new(&ground, "pg_dump", "pg_dump".into())
        .arg("--db=-x 'y")
        .env("PGPASSWORD", SECRET)
        .hiding(&SECRET.into());
    let mut out = Vec::new();
    tool::pump(&call, Patience::from(cancel), |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(String::from_utf8(out).unwrap())
}

/// A dump by an engine that answers that request so.
fn run(line: &'static str, say: Say) -> Result<String, DumpError> {
    run_with(&ScriptedEngine::start(move |asked| (asked == line).then(|| say.clone())), &Cancel::new())
}

#[track_caller]
fn fails(line: &'static str, say: Say, words: &str) {
    let error = run(line, say).unwrap_err().to_string();
    assert!(error.contains(words), "{words:?} is not in: {error}");
    assert!(!error.contains("s3cr3t") && !error.contains('\n'), "{error}");
}

const START: &str = "POST /exec/e1/start";
const STATE: &str = "GET /exec/e1/json";
const MAKE: &str = "POST /containers/c0ffee/exec";

#[test]
fn a_dump_comes_whole_however_the_engine_frames_it() {
    let whole = frames(&[(2, "x"), (1, "whole "), (1, ""), (1, "dump")]);
    let raw = |head: &str, body: &[u8]| [head.as_bytes(), body].concat();
    let (first, second) = whole.split_at(11);
    let chunks = [
        format!("{:x}\r\n", first.len()).as_bytes(),
        first,
        format!("\r\n{:X};x=y\r\n", second.len()).as_bytes(),
        second,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for bytes in [
        upgraded(&whole),
        raw("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n", &whole),
        raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n", &chunks),
        raw(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len()), &whole),
    ] {
        assert_eq!(run(START, Say::Bytes(bytes.clone())).unwrap(), "whole dump");
        assert_eq!(run(START, Say::Slowly(bytes)).unwrap(), "whole dump");
    }
}

#[test]
fn the_program_is_an_argument_list_with_its_secrets_in_its_environment_alone() {
    let engine = ScriptedEngine::start(|_| None);
    run_with(&engine, &Cancel::new()).unwrap();
    let asked = engine.asked.lock().unwrap();
    let made = asked.iter().find_map(|asked| asked.strip_prefix("POST /containers/c0ffee/exec ")).unwrap();
    let made: serde_json::Value = serde_json::from_str(made).unwrap();
    assert_eq!(made["Cmd"], serde_json::json!(["pg_dump", "--db=-x 'y"]));
    assert_eq!((&made["Tty"], &made["AttachStdin"]), (&false.into(), &false.into()));
    let env: Vec<_> = made["Env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(env.contains(&format!("PGPASSWORD={SECRET}").as_str()), "{env:?}");
    let names: Vec<_> = env.iter().map(|variable| variable.split('=').next().unwrap()).collect();
    assert_eq!(names, ["LANG", "LC_ALL", "PGPASSWORD", "BACKUPY_EXEC"], "nothing of the agent's own");
}

#[test]
fn a_stream_that_is_not_whole_is_a_failure_and_its_tool_is_ended() {
    let half = frames(&[(1, "half of it")]);
    let boast = [1, 0, 0, 0, 255, 255, 255, 255, b'x'];
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc";
    for (bytes, words) in [
        (upgraded(&half[..half.len() - 1]), "ended in the middle of a frame"),
        (upgraded(&half[..5]), "ended in the middle of a frame"),
        (upgraded(&boast), "ended in the middle of a frame"),
        (upgraded(b"plain text instead"), "not Docker's stream of frames"),
        (upgraded(&frames(&[(1, "half"), (3, "containerd is gone")])), "containerd is gone"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_vec(), "cut off"),
        (chunked.to_vec(), "cut off"),
    ] {
        // The tool hears TERM not and KILL: two programs are made for that.
        let made = AtomicUsize::new(0);
        let engine = ScriptedEngine::start(move |asked| match asked {
            START => Some(Say::Bytes(bytes.clone())),
            MAKE => {
                made.fetch_add(1, Ordering::SeqCst);
                None
            }
            STATE if made.load(Ordering::SeqCst) < 3 => {
                Some(answer(200, r#"{"Running":true,"ExitCode":null,"Pid":1}"#))
            }
            _ => None,
        });
        let error = run_with(&engine, &Cancel::new()).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in: {error}");
        assert!(
            engine.times("\"TERM\"") > 0 && engine.times("\"KILL\"") > 0,
            "the tool was not ended: {error}"
        );
    }
}

#[test]
fn how_it_ended_is_believed_only_from_the_engine() {
    let state = |json: &str| answer(200, json);
    fails(STATE, state(r#"{"Running":false,"ExitCode":1}"#), "ended with exit status 1: a word");
    fails(STATE, state(r#"{"Running":false,"ExitCode":137}"#), "was killed (SIGKILL)");
    fails(STATE, state(r#"{"Running":false,"ExitCode":null}"#), "ended without a status");
    fails(STATE, state(r#"{"Running":true,"ExitCode":0}"#), "still runs although its output has ended");
    fails(STATE, state("{}"), "ended without a status");
    fails(STATE, state("[]"), "ended without a status");
    fails(STATE, state("null"), "cannot be asked how it ended");
    fails(STATE, state(r#"{"Running":false,"ExitCode":"0"}"#), "cannot be asked how it ended");
    fails(STATE, answer(500, r#"{"message":"out of memory"}"#), "(500): out of memory");
    fails(STATE, Say::Bytes(Vec::new()), "it ended before it began");
}

#[test]
fn a_tool_that_is_not_there_is_named_however_the_engine_says_it() {
    let said = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"pg_dump\": \
                executable file not found in $PATH: unknown\r\n";
    let engine = ScriptedEngine::start(move |asked| match asked {
        START => Some(Say::Bytes(upgraded(&frames(&[(1, said)])))),
        STATE => Some(answer(200, r#"{"Running":false,"ExitCode":126}"#)),
        _ => None,
    });
    let error = run_with(&engine, &Cancel::new()).unwrap_err();
    assert!(matches!(error, DumpError::ToolMissingInside { .. }), "{error}");
    let podman = "{\"message\":\"crun: executable file `pg_dump` not found in $PATH: No such file or directory: OCI \
                  runtime attempted to invoke a command that was not found\"}";
    let error = run(START, answer(404, podman)).unwrap_err();
    assert!(matches!(error, DumpError::ToolMissingInside { .. }), "{error}");
    fails(STATE, answer(200, r#"{"Running":false,"ExitCode":126}"#), "could not be run (status 126)");
}

#[test]
fn odd_answers_are_told_and_never_collected_without_an_end() {
    let huge = format!("{{\"Id\":\"{}\"}}", "a".repeat(5 << 20));
    let head = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(4000));
    const PING: &str = "GET /_ping";
    const SHOW: &str = "GET /containers/db/json";
    let ping = |version: &str| {
        Say::Bytes(format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\nContent-Length: 0\r\n\r\n").into())
    };
    fails(PING, ping("1.24"), "need 1.25");
    fails(PING, ping("new"), "it is no version");
    fails(PING, answer(403, "<html>\nno\n</html>"), "(403): <html> no </html>");
    fails(PING, Say::Bytes(head.clone().into()), "not HTTP");
    fails(PING, Say::AndHang(head.into()), "not HTTP");
    fails(PING, Say::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), "not HTTP");
    fails(
        SHOW,
        answer(404, r#"{"message":"No such container: db"}"#),
        "(404): No such container: db; `docker ps`",
    );
    let several = r#"{"message":"Multiple IDs found with provided prefix: db"}"#;
    fails(SHOW, answer(500, several), "prefix: db; `docker ps` shows the names");
    fails(SHOW, answer(200, "{}"), "cannot be used");
    fails(SHOW, answer(200, r#"{"Id":"../x","State":{}}"#), "its id is none");
    fails(SHOW, answer(200, &huge), "longer than 4 MiB");
    fails(SHOW, Say::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{".to_vec()), "cut off");
    fails(
        MAKE,
        answer(409, r#"{"message":"Container c0ffee is paused"}"#),
        "(409): Container c0ffee is paused",
    );
    fails(MAKE, answer(201, r#"{"Id":"e1/../../images"}"#), "its id is none");
    fails(MAKE, answer(500, &format!("no room for {SECRET}")), "(500): no room for ***");
    fails(START, answer(500, &format!("no room for {SECRET}")), "(500): no room for ***");
    let long = run(START, answer(500, &"x".repeat(100_000))).unwrap_err().to_string();
    assert!(long.len() < 1_000, "{}", long.len());
}

#[test]
fn an_engine_that_says_nothing_is_given_up() {
    for line in ["GET /_ping", "GET /containers/db/json", "POST /containers/c0ffee/exec", START] {
        fails(line, Say::AndHang(Vec::new()), "gave no answer for 2 s");
    }
    // The tool ended, and the end of its output never comes.
    let half = upgraded(&frames(&[(1, "whole dump")]));
    fails(START, Say::AndHang(half), "the end of its output got lost");
}

/// A job without a timeout would wait for it for ever.
#[test]
fn a_dump_that_gives_nothing_for_too_long_is_ended() {
    let engine = ScriptedEngine::start(|asked| match asked {
        START => Some(Say::AndHang(upgraded(&frames(&[(1, "half")])))),
        STATE => Some(answer(200, r#"{"Running":true,"ExitCode":null,"Pid":1}"#)),
        _ => None,
    });
    let cancel = Cancel::new();
    let ground = Ground::Container(Rc::new(open(&engine, &cancel).unwrap()));
    let call = Call::new(&ground, "pg_dump", "pg_dump".into());
    let silence = Silence::new(Duration::ZERO);
    let error = tool::pump(&call, Patience::patient(&cancel, &silence), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("gave nothing for"), "{error}");
    assert!(engine.times("\"TERM\"") > 0, "it was not ended: {error}");
}

/// Words on standard error are no dump.
#[test]
fn a_dump_that_only_talks_for_too_long_is_ended_too() {
    let engine = ScriptedEngine::start(|asked| match asked {
        START => Some(Say::Slowly(upgraded(&frames(&[(2, &"still waiting\n".repeat(20_000))])))),
        STATE => Some(answer(200, r#"{"Running":true,"ExitCode":null,"Pid":1}"#)),
        _ => None,
    });
    let cancel = Cancel::new();
    let ground = Ground::Container(Rc::new(open(&engine, &cancel).unwrap()));
    let call = Call::new(&ground, "pg_dump", "pg_dump".into());
    let silence = Silence::new(Duration::from_millis(50));
    let error = tool::pump(&call, Patience::patient(&cancel, &silence), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("gave nothing for") && error.contains("still waiting"), "{error}");
}

#[test]
fn what_a_tool_that_went_well_warned_of_is_told() {
    let said = upgraded(&frames(&[(1, "dump"), (2, "pg_dump: warning: not all of it\nprogress\n")]));
    let engine = ScriptedEngine::start(move |asked| (asked == START).then(|| Say::Bytes(said.clone())));
    let cancel = Cancel::new();
    let ground = Ground::Container(Rc::new(open(&engine, &cancel).unwrap()));
    let call = Call::new(&ground, "pg_dump", "pg_dump".into());
    let warnings = tool::pump(&call, Patience::from(&cancel), |_| Ok(())).unwrap();
    assert_eq!(warnings, ["pg_dump: warning: not all of it"]);
}

#[test]
fn a_stopped_run_ends_at_once_wherever_the_engine_hangs() {
    for line in ["GET /_ping", "GET /containers/db/json", "POST /containers/c0ffee/exec", START] {
        let engine = ScriptedEngine::start(move |asked| {
            (asked == line)
                .then(|| Say::AndHang(upgraded(&frames(&[(1, "half")]))[..line.len() / 2].to_vec()))
        });
        let cancel = Cancel::new();
        let (switch, begin) = (cancel.clone(), Instant::now());
        let stop = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            switch.cancel();
        });
        let ended = run_with(&engine, &cancel);
        assert!(matches!(ended, Err(DumpError::Cancelled)), "{line}: {ended:?}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{line}: {:?}", begin.elapsed());
        stop.join().unwrap();
    }
}

#[test]
fn a_container_that_runs_nothing_is_told() {
    for (state, words) in [
        (r#"{"Status":"paused","Running":true,"Paused":true}"#, "is paused"),
        (r#"{"Status":"exited","Running":false}"#, "is not running (exited)"),
    ] {
        let json = format!("{{\"Id\":\"c0ffee\",\"State\":{state}}}");
        fails("GET /containers/db/json", answer(200, &json), words);
    }
}
