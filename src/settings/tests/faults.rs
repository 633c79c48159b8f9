//! What is refused, and in which words.

use super::*;

#[test]
fn all_faults_of_all_layers_are_told_at_once_each_with_key_and_layer() {
    let case = Case::without_key()
        .file("[server]\nagent_key = \"bkpy_live_0short\"\nulr = \"x\"\n\n[log]\nlevel = 3\n\n[nonsense]\na = 1\n")
        .env("BACKUPY_SERVER_URL", "ftp://host")
        .env("BACKUPY_MAX_QUEUE_BYTES", "5 parsecs")
        .flag("backup.zstd_level", "23")
        .flag("metrics.listen", "here");
    let faults = case.faults();
    let file = case.sources.file.as_ref().unwrap().display().to_string();
    for expected in [
        format!("\"server.ulr\" ({file}:3): unknown key; did you mean server.url?"),
        format!("\"nonsense\" ({file}:8): unknown key"),
        "server.url (BACKUPY_SERVER_URL): the scheme \"ftp\" is none of https, wss, http, ws".to_owned(),
        format!("server.agent_key ({file}:2): is no agent key (it has 16 characters)"),
        "state.max_queue_bytes (BACKUPY_MAX_QUEUE_BYTES): \"5 parsecs\": must be".to_owned(),
        format!("log.level ({file}:6): must be a text, and is a number"),
        "metrics.listen (--metrics-listen): \"here\" is no address".to_owned(),
        "backup.zstd_level (--zstd-level): 23 is not in 1 to 22".to_owned(),
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(&expected)), "{expected}\nin {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
}

#[test]
fn a_missing_key_says_where_one_can_be_given() {
    let fault = Case::without_key().fault();
    assert!(
        fault.starts_with("server.agent_key: is missing: name a file in server.agent_key_file"),
        "{fault}"
    );
}

#[test]
fn a_key_of_the_wrong_form_is_refused_without_being_shown() {
    let bad = format!("{AGENT_KEY}x");
    assert!(Case::new().env("BACKUPY_AGENT_KEY", bad.as_str()).fault().contains("43 characters"));
    let case = Case::without_key();
    let path = case.write("agent-key", &format!("\n{AGENT_KEY}\n"));
    assert!(case.flag("server.agent_key_file", path.to_str().unwrap()).fault().contains("no agent key"));
}

#[test]
fn a_key_and_a_key_file_together_are_a_fault_that_names_both() {
    let case = Case::new();
    let path = case.write("agent-key", AGENT_KEY);
    let fault = case.flag("server.agent_key_file", path.to_str().unwrap()).fault();
    assert!(fault.contains("BACKUPY_AGENT_KEY") && fault.contains("--agent-key-file"), "{fault}");
}

#[test]
fn a_key_in_any_wrong_place_is_not_shown() {
    for key in settable() {
        for value in [AGENT_KEY.to_owned(), format!("https://{AGENT_KEY}@host"), format!("x {AGENT_KEY}")] {
            let case = Case::without_key().env("BACKUPY_AGENT_KEY", "bkpy_test_bad").flag(key.name, &value);
            case.faults();
        }
    }
    for text in [
        format!("{AGENT_KEY} = 1\n"),
        format!("[{AGENT_KEY}]\n"),
        format!("[server]\n{AGENT_KEY} = 1\n"),
        format!("[server]\nagent_key = {AGENT_KEY}\n"),
        format!("[server]\nagent_key = \"{AGENT_KEY}\n"),
        format!("[server]\nagent_key = [\"{AGENT_KEY}\"]\n"),
        format!("[server]\nurl = [\"{AGENT_KEY}\"]\n"),
        format!("[server.agent_key]\nvalue = \"{AGENT_KEY}\"\n"),
        format!("[server]\n\"{AGENT_KEY}\" = 1\n\"{AGENT_KEY}\" = 2\n"),
        format!("server = \"{AGENT_KEY}\"\n"),
    ] {
        Case::without_key().file(&text).faults();
    }
}

#[test]
fn wrong_types_are_named_for_every_key() {
    for key in settable() {
        let (section, last) = key.name.split_once('.').unwrap();
        for wrong in ["{ a = 1 }", "1979-05-27", "[[1]]", "1.5"] {
            let case = Case::new().file(&format!("[{section}]\n{last} = {wrong}\n"));
            let fault = case.fault();
            assert!(fault.starts_with(&format!("{} (", key.name)) && fault.contains("must "), "{fault}");
        }
    }
}

#[test]
fn a_syntax_error_gives_file_line_and_column() {
    let case = Case::new().file("[server]\nurl = \"https://x\"\nca_file == 1\n");
    let fault = case.fault();
    let place = format!("{}:3:", case.sources.file.as_ref().unwrap().display());
    assert!(fault.starts_with(&place), "{fault}");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let mut case = Case::new();
    case.sources.file = Some(case.dir.path().join("not-there.toml"));
    assert!(case.fault().contains("not-there.toml: cannot be read: "));
    case.sources.file = Some(case.dir.path().to_owned());
    assert!(case.fault().contains("cannot be read: "));
    case.sources.file = Some("/dev/zero".into());
    assert!(case.fault().contains("larger than"));
    let path = case.write("latin1.toml", "");
    std::fs::write(&path, b"[server]\nurl = \"\xe4\"\n").unwrap();
    case.sources.file = Some(path);
    assert!(case.fault().contains("cannot be read: "));
}

#[test]
fn urls_that_would_betray_the_key_or_lead_nowhere_are_refused() {
    for (url, expected) in [
        ("http://host", "clear text"),
        ("ws://host", "clear text"),
        ("ftp://host", "\"ftp\" is none of"),
        ("localhost:8443", "\"localhost\" is none of"),
        ("api.backupy.ru", "no scheme"),
        ("https://", "is not a URL"),
        ("https://me:hunter2@host/x", "https://***@host/x: no user or password"),
        ("https://host/#top", "fragment"),
        ("", "no scheme"),
    ] {
        let fault = Case::new().flag("server.url", url).fault();
        assert!(fault.contains(expected) && !fault.contains("hunter2"), "{url}: {fault}");
    }
}

#[test]
fn values_out_of_their_range_are_refused_with_the_range() {
    for (key, value, expected) in [
        ("log.level", "loud", "choose one of trace, debug, info, warn, error"),
        ("log.format", "xml", "choose one of auto, journald, text, json"),
        ("state.dir", "", "is empty"),
        ("state.max_queue_bytes", "1023 KiB", "at least 1 MiB"),
        ("state.max_queue_bytes", "-1", "must be a number of bytes"),
        ("state.min_free_bytes", "-1", "must be a number of bytes"),
        ("state.min_free_bytes", "a little", "must be a number of bytes"),
        ("backup.zstd_level", "0", "1 to 22"),
        ("backup.gzip_level", "10", "1 to 9"),
        ("backup.spool", "sometimes", "auto, always, never"),
        ("backup.threads", "65", "1 to 64"),
        ("backup.threads", "many", "must be a whole number"),
        ("hooks.enabled", "maybe", "must be true or false"),
        ("server.pins", "abc", "base64 of a SHA-256"),
        ("server.proxy", "socks5://proxy:1080", "\"socks5\" is not supported"),
        ("server.ca_file", "/not/there.pem", "/not/there.pem: No such file"),
        ("server.ca_file", "/dev/null", "no certificate"),
        ("metrics.listen", ":9090", "write one such as 127.0.0.1:9090"),
        ("update.enabled", "true", "needs update.public_key_file"),
    ] {
        let fault = Case::new().flag(key, value).fault();
        assert!(fault.contains(expected), "{key} = {value}: {fault}");
    }
}

#[test]
fn unknown_variables_of_ours_are_warned_about_with_the_nearest_name() {
    let loaded = Case::new().env("BACKUPY_LOGLEVEL", "debug").env("BACKUPY_STATE_DIR", "/x").loaded();
    assert_eq!(
        loaded.warnings,
        ["unknown variable \"BACKUPY_LOGLEVEL\" is ignored; did you mean BACKUPY_LOG_LEVEL?"]
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_a_fault_without_its_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let case = Case::new().env("BACKUPY_SERVER_URL", OsString::from_vec(b"https://\xff".to_vec()));
    assert_eq!(case.fault(), "server.url (BACKUPY_SERVER_URL): is not valid UTF-8");
}

#[test]
fn an_engine_of_another_host_is_refused_and_a_socket_may_be_written_as_docker_host_has_it() {
    let file = |socket: &str| Case::new().file(&format!("[docker]\nsocket = \"{socket}\"\n"));
    let fault = file("tcp://127.0.0.1:2375").fault();
    assert!(fault.contains("must be the path of a unix socket"), "{fault}");
    assert_eq!(row(&file("unix:///run/d.sock").loaded(), "docker.socket").0, "/run/d.sock");
}
