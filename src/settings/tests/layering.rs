//! Which layer wins, and what comes out.

use super::*;
use crate::settings::{LogFormat, LogLevel, load_state_dir, prepare};
use secrecy::ExposeSecret;

/// A case that may set `key` itself: the agent key does not stand in its way.
fn case_for(key: &str) -> Case {
    if key == "server.agent_key_file" { Case::without_key() } else { Case::new() }
}

fn one_key_file(key: &super::super::Key, text: &str) -> String {
    let (section, last) = key.name.split_once('.').unwrap();
    format!("[{section}]\n{last} = {}\n", toml(key.kind, text))
}

#[test]
fn without_any_layer_the_documented_defaults_hold() {
    let case = Case::new();
    let loaded = case.loaded();
    let settings = &loaded.settings;
    assert_eq!(settings.server.url.as_str(), "https://api.backupy.ru/");
    assert_eq!(settings.server.agent_key.expose_secret(), AGENT_KEY);
    assert!(settings.server.ca_file.is_none() && settings.server.pins.is_empty());
    assert!(!settings.server.allow_insecure && settings.server.proxy.is_none());
    assert_eq!(settings.state.dir, PathBuf::from("/var/lib/backup-agent"));
    assert_eq!(settings.state.max_queue_bytes, 256 << 20);
    assert_eq!(settings.state.min_free_bytes, 64 << 20);
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Info, LogFormat::Auto));
    assert_eq!(settings.metrics.listen, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(settings.docker.socket, PathBuf::from("/var/run/docker.sock"));
    assert!(settings.docker.discovery && !settings.hooks.enabled && !settings.update.enabled);
    assert_eq!(settings.backup.spool_dir, PathBuf::from("/var/lib/backup-agent/spool"));
    assert_eq!((settings.backup.zstd_level, settings.backup.gzip_level), (3, 6));
    assert!((1..=4).contains(&settings.backup.threads));
    for row in loaded.rows.iter().filter(|row| row.key != "server.agent_key") {
        assert_eq!(row.source, "default", "{}", row.key);
    }
    assert_eq!(loaded.rows.len(), KEYS.len());
}

#[test]
fn every_key_can_be_set_in_the_file_and_tells_its_line() {
    for key in settable() {
        let case = case_for(key.name);
        let (text, shown) = other_value(&case, key.name);
        let case = case.file(&one_key_file(key, &text));
        let line = format!("{}:2", case.sources.file.as_ref().unwrap().display());
        assert_eq!(row(&case.loaded(), key.name), (shown.as_str(), line.as_str()));
    }
}

#[test]
fn every_variable_wins_over_the_file() {
    for key in settable() {
        for variable in key.variables {
            let case = case_for(key.name);
            let (text, shown) = other_value(&case, key.name);
            let in_file = key.default.unwrap_or("");
            let case = case.file(&one_key_file(key, if key.kind == Kind::Integer { "1" } else { in_file }));
            let given = if key.inverted { "true".to_owned() } else { text };
            assert_eq!(row(&case.env(variable, given).loaded(), key.name), (shown.as_str(), *variable));
        }
    }
}

#[test]
fn every_flag_wins_over_variable_and_file() {
    for key in settable() {
        let case = case_for(key.name);
        let (text, shown) = other_value(&case, key.name);
        let before = if key.kind == Kind::Integer { "2" } else { key.default.unwrap_or("/lower") };
        let case = case.file(&one_key_file(key, before));
        let inverted = if key.inverted { "false" } else { before };
        let case = case.env(key.variables[0], inverted).flag(key.name, &text);
        let flag = format!("--{}", key.flag.unwrap());
        assert_eq!(row(&case.loaded(), key.name), (shown.as_str(), flag.as_str()), "{}", key.name);
    }
}

#[test]
fn the_agent_key_comes_from_file_variable_key_file_or_credential_and_is_shown_nowhere() {
    let in_file = Case::without_key().file(&format!("[server]\nagent_key = \"{AGENT_KEY}\"\n"));
    let in_variable = Case::new();
    let mut in_key_file = Case::without_key();
    let path = in_key_file.write("agent-key", &format!("{AGENT_KEY}\r\n"));
    in_key_file = in_key_file.env("BACKUPY_AGENT_KEY_FILE", path.as_os_str());
    let in_credential = Case::without_key();
    in_credential.write("agent-key", AGENT_KEY);
    let directory = in_credential.dir.path().as_os_str().to_owned();
    let in_credential = in_credential.env("CREDENTIALS_DIRECTORY", directory);
    for (case, source) in [
        (in_file, "agent.toml:2"),
        (in_variable, "BACKUPY_AGENT_KEY"),
        (in_key_file, "/agent-key"),
        (in_credential, "/agent-key"),
    ] {
        let loaded = case.loaded();
        assert_eq!(loaded.settings.server.agent_key.expose_secret(), AGENT_KEY);
        let (value, from) = row(&loaded, "server.agent_key");
        assert_eq!(value, "***");
        assert!(from.ends_with(source), "{from}");
        assert!(!format!("{loaded:?}").contains("0123456789"), "{loaded:?}");
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_variable_for_the_key_wins_over_the_key_in_the_file() {
    let other = AGENT_KEY.replace("live", "test");
    let case = Case::new().file(&format!("[server]\nagent_key = \"{other}\"\n"));
    assert_eq!(case.loaded().settings.server.agent_key.expose_secret(), AGENT_KEY);
}

#[test]
fn files_with_the_key_that_others_can_read_draw_a_warning() {
    let case = Case::without_key();
    let path = case.write("agent-key", AGENT_KEY);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = case.flag("server.agent_key_file", path.to_str().unwrap()).loaded();
    assert!(loaded.warnings[0].contains("chmod 600"), "{:?}", loaded.warnings);

    let case = Case::without_key().file(&format!("[server]\nagent_key = \"{AGENT_KEY}\"\n"));
    let path = case.sources.file.clone().unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(case.loaded().warnings[0].contains("chmod 600"));
}

#[test]
fn empty_variables_count_as_not_set_except_for_the_metrics_address() {
    let case = Case::new().env("BACKUPY_SERVER_URL", "").env("BACKUPY_METRICS_LISTEN_ADDR", "");
    let loaded = case.env("HTTPS_PROXY", "").env("BACKUPY_AGENT_KEY_FILE", "").loaded();
    assert_eq!(row(&loaded, "server.url").1, "default");
    assert_eq!(row(&loaded, "metrics.listen"), ("off", "BACKUPY_METRICS_LISTEN_ADDR"));
    assert!(loaded.settings.server.proxy.is_none());
}

#[test]
fn discovery_can_be_switched_off_by_its_variable_and_a_bare_proxy_is_an_http_one() {
    let case = Case::new().env("BACKUPY_DISABLE_DISCOVERY", "1").env("https_proxy", "proxy.corp:3128");
    let settings = case.loaded().settings;
    assert!(!settings.docker.discovery);
    assert_eq!(settings.server.proxy.unwrap().as_str(), "http://proxy.corp:3128/");
    assert!(Case::new().env("BACKUPY_DISABLE_DISCOVERY", "0").loaded().settings.docker.discovery);
}

#[test]
fn the_default_file_is_read_when_it_is_there_and_no_other_is_named() {
    let mut case = Case::new();
    case.sources.default_file = case.write("default.toml", "[log]\nlevel = \"warn\"\n");
    assert_eq!(case.loaded().settings.log.level, LogLevel::Warn);
    assert_eq!(case.file("").loaded().settings.log.level, LogLevel::Info);
}

#[test]
fn clear_text_and_public_metrics_are_possible_when_asked_for() {
    let case = Case::new()
        .env("BACKUPY_SERVER_URL", "http://127.0.0.1:8080")
        .env("BACKUPY_DEV_ALLOW_INSECURE", "true");
    let loaded = case.env("BACKUPY_METRICS_LISTEN_ADDR", "0.0.0.0:9090").loaded();
    assert_eq!(loaded.settings.server.url.scheme(), "http");
    assert!(loaded.warnings[0].contains("0.0.0.0:9090"));
}

#[test]
fn the_state_directory_is_known_without_an_agent_key() {
    let case = Case::without_key().env("BACKUPY_STATE_DIR", "/x/y").env("BACKUPY_LOG_LEVEL", "loud");
    assert_eq!(load_state_dir(&case.sources).unwrap(), PathBuf::from("/x/y"));
}

#[test]
fn missing_directories_are_made_private_and_open_ones_draw_a_warning() {
    let case = Case::new();
    let state = case.dir.path().join("a/b");
    let case = case.flag("state.dir", state.to_str().unwrap());
    assert_eq!(prepare(&case.loaded()).unwrap(), Vec::<String>::new());
    for dir in [state.clone(), state.join("spool")] {
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            std::fs::read_dir(dir).unwrap().filter(|e| e.as_ref().unwrap().path().is_file()).count(),
            0
        );
    }
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(prepare(&case.loaded()).unwrap()[0].contains("chmod 700"));
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_the_layer_that_named_it() {
    let case = Case::new();
    let below_a_file = case.write("file", "").join("state");
    let case = case.env("BACKUPY_STATE_DIR", below_a_file.as_os_str());
    let faults = prepare(&case.loaded()).unwrap_err().to_string();
    assert!(faults.starts_with("state.dir (BACKUPY_STATE_DIR): "), "{faults}");
    assert!(faults.contains(below_a_file.to_str().unwrap()) && !faults.contains('\n'), "{faults}");
}

/// The shipped file, and the same with every commented key put in force.
fn shipped_file() -> (String, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/agent.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let in_force: Vec<_> = text.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect();
    let in_force = in_force.join("\n");
    (text, in_force)
}

#[test]
fn the_shipped_file_changes_nothing() {
    let (text, _) = shipped_file();
    let built_in = Case::new().loaded();
    assert_eq!(Case::new().file(&text).loaded().rows, built_in.rows);
}

#[test]
fn the_shipped_file_shows_every_key_with_its_variable_flag_and_default() {
    let (text, in_force) = shipped_file();
    let parsed = super::super::file::parse(&in_force, "agent.toml").unwrap();
    assert_eq!(parsed.faults, []);
    let table: toml::Table = in_force.parse().unwrap();
    let built_in: Vec<_> = settable().filter(|key| key.default.is_some()).collect();
    for key in KEYS {
        let (section, last) = key.name.split_once('.').unwrap();
        assert!(table[section].get(last).is_some(), "{} is missing", key.name);
        assert!(text.contains(&format!("# {}", key.variables[0])), "{}", key.variables[0]);
        assert!(key.flag.is_none_or(|flag| text.contains(&format!("--{flag}"))), "{:?}", key.flag);
    }
    // The keys with a built-in default, written out as they stand in the file, give that default.
    let only_defaults: toml::Table = table
        .iter()
        .map(|(section, keys)| {
            let keep = |key: &str| built_in.iter().any(|known| known.name == format!("{section}.{key}"));
            let keys = keys.as_table().unwrap().iter().filter(|(key, _)| keep(key));
            (section.clone(), toml::Value::Table(keys.map(|(k, v)| (k.clone(), v.clone())).collect()))
        })
        .collect();
    let written_out = Case::new().file(&only_defaults.to_string()).loaded();
    let built_in_rows = Case::new().loaded().rows;
    for key in built_in {
        let of_file = row(&written_out, key.name);
        assert!(of_file.1.contains("agent.toml:"), "{} does not come from the file", key.name);
        let of_code = built_in_rows.iter().find(|row| row.key == key.name).unwrap();
        assert_eq!(of_file.0, of_code.value, "{}", key.name);
    }
}
