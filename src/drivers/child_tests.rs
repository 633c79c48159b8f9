use super::*;
use crate::drivers::ground::{Ground, Host};
use crate::drivers::patience::Silence;
use crate::drivers::tool;
use crate::process::Cancel;
use std::path::PathBuf;
use std::time::Duration;

fn shell(script: &str) -> Call {
    Call::new(&Ground::Host(Host::default()), "sh", PathBuf::from("/bin/sh")).args(["-c", script])
}

fn pump(call: &Call, cancel: &Cancel) -> Result<Vec<u8>, DumpError> {
    let mut out = Vec::new();
    Child::start(call)?.pump(Patience::from(cancel), |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(out)
}

/// Whether a process of that number lives; a zombie does not.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn gone(pid: u32) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while lives(pid) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    !lives(pid)
}

#[test]
fn a_whole_output_comes_through_while_the_other_pipe_is_full() {
    let script = "head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2; head -c 1000000 /dev/zero";
    assert_eq!(pump(&shell(script), &Cancel::new()).unwrap().len(), 4_000_000);
}

#[test]
fn how_it_ended_is_told_after_its_output_with_its_last_words_and_no_secret() {
    let secret = "s3cr3t pw".into();
    let call = shell("echo half; echo \"FATAL: no way with $PW\" >&2; exit 3")
        .env("PW", "s3cr3t pw")
        .hiding(&secret);
    let error = pump(&call, &Cancel::new()).unwrap_err().to_string();
    assert_eq!(error, "sh ended with exit status 3: FATAL: no way with ***");
    let error = pump(&shell("echo half; kill -9 $$"), &Cancel::new()).unwrap_err().to_string();
    assert_eq!(error, "sh was killed (SIGKILL); it gave no reason");
}

#[test]
fn what_a_tool_that_went_well_warned_of_is_told_without_its_secrets() {
    let script =
        "echo dump; echo \"warning: $PW is not allowed to see it all\" >&2; echo 'dumping x.warnings' >&2";
    let call = shell(script).env("PW", "s3cr3t pw").hiding(&"s3cr3t pw".into());
    let cancel = Cancel::new();
    let warnings = Child::start(&call).unwrap().pump(Patience::from(&cancel), |_| Ok(())).unwrap();
    assert_eq!(warnings, ["warning: *** is not allowed to see it all"]);
}

#[test]
fn a_tool_gets_only_what_it_may_have() {
    let seen = String::from_utf8(pump(&shell("env"), &Cancel::new()).unwrap()).unwrap();
    let usual = ["PATH", "HOME", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    let allowed = [&INHERITED_BY_A_SHELL[..], &usual].concat();
    for line in seen.lines() {
        let name = line.split('=').next().unwrap();
        assert!(allowed.contains(&name) || name.starts_with("PGSSL") || name == "KRB5CCNAME", "{line}");
    }
    assert!(seen.contains("LC_ALL=C.UTF-8"), "{seen}");
}

/// What a shell sets for itself.
const INHERITED_BY_A_SHELL: [&str; 4] = ["PWD", "SHLVL", "_", "OLDPWD"];

#[test]
fn a_stopped_run_ends_the_whole_group_even_one_that_does_not_listen() {
    for script in
        ["sleep 600 & echo $!; wait", "trap '' TERM; sleep 600 & echo $!; while :; do sleep 1; done"]
    {
        let cancel = Cancel::new();
        let mut pid = String::new();
        let call = shell(script);
        let start = Instant::now();
        let ended = Child::start(&call).unwrap().pump(Patience::from(&cancel), |bytes| {
            pid.push_str(std::str::from_utf8(bytes).unwrap());
            cancel.cancel();
            Ok(())
        });
        assert!(matches!(ended, Err(DumpError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(gone(pid.trim().parse().unwrap()), "{script}");
    }
}

#[test]
fn what_a_tool_leaves_behind_does_not_hold_the_run() {
    let out = pump(&shell("sleep 600 & echo $!"), &Cancel::new()).unwrap();
    assert!(gone(String::from_utf8(out).unwrap().trim().parse().unwrap()));
}

#[test]
fn a_tool_that_is_asked_and_does_not_answer_is_ended() {
    let error = tool::answer(&shell("sleep 600"), Duration::from_millis(100), &Cancel::new()).unwrap_err();
    assert!(error.to_string().starts_with("sh gave no answer for 0 s and was ended"), "{error}");
    let answer = tool::answer(&shell("echo yes"), Duration::from_secs(60), &Cancel::new()).unwrap();
    assert_eq!(answer, "yes\n");
}

#[test]
fn a_wrong_dump_of_a_tool_that_then_fails_is_told_by_its_own_words() {
    let form =
        |_: &[u8]| Err(DumpError::Form { engine: "X", tool: "sh".into(), problem: "it is no X".into() });
    let cancel = Cancel::new();
    let failing = shell("echo NOAUTH; echo 'authentication required' >&2; exit 1");
    let error = Child::start(&failing).unwrap().pump(Patience::from(&cancel), form).unwrap_err();
    assert!(error.to_string().contains("authentication required"), "{error}");
    let fine = shell("echo hello");
    let error = Child::start(&fine).unwrap().pump(Patience::from(&cancel), form).unwrap_err();
    assert!(error.to_string().ends_with("it is no X"), "{error}");
    let endless = shell("while :; do echo hello; done");
    let error = Child::start(&endless).unwrap().pump(Patience::from(&cancel), form).unwrap_err();
    assert!(error.to_string().ends_with("it is no X"), "{error}");
}

#[test]
fn a_dump_that_falls_silent_is_ended_and_one_that_is_only_slow_is_not() {
    let cancel = Cancel::new();
    let limit = Duration::from_millis(600);
    let run = |script: &str| {
        let silence = Silence::new(limit);
        Child::start(&shell(script))?.pump(Patience::patient(&cancel, &silence), |_| {
            silence.end();
            Ok(())
        })
    };
    run("for i in 1 2 3 4 5 6; do sleep 0.2; echo more; done").unwrap();
    let error = run("echo some; echo 'waiting for a lock' >&2; sleep 600").unwrap_err().to_string();
    assert!(error.contains("gave nothing for 0 min") && error.contains("waiting for a lock"), "{error}");
}
