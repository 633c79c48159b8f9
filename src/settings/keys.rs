//! The table of the configuration: what the README shows, `config/agent.toml` explains and
//! `check-config` prints.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// `true` or `false`; in variables and flags also `1`, `0`, `yes`, `no`, `on`, `off`.
    Bool,
    /// A whole number.
    Integer,
    /// Bytes: a whole number, or a text with a unit.
    Size,
    /// A list of texts; in variables and flags separated by commas.
    List,
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// Environment variables, the first one wins.
    pub variables: &'static [&'static str],
    /// The variable means the opposite of the key.
    pub inverted: bool,
    /// The flag, without the dashes; None where a flag would show a secret to the whole host.
    pub flag: Option<&'static str>,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds when no layer says anything, as it would be written in the file.
    pub default: Option<&'static str>,
}

const fn key(
    name: &'static str,
    variables: &'static [&'static str],
    flag: &'static str,
    kind: Kind,
    default: Option<&'static str>,
) -> Key {
    Key { name, variables, inverted: false, flag: Some(flag), kind, default }
}

/// Every key, in the order of the file.
pub const KEYS: &[Key] = &[
    key("server.url", &["BACKUPY_SERVER_URL"], "server-url", Kind::Text, Some("https://api.backupy.ru")),
    Key {
        name: "server.agent_key",
        variables: &["BACKUPY_AGENT_KEY"],
        inverted: false,
        flag: None,
        kind: Kind::Secret,
        default: None,
    },
    key("server.agent_key_file", &["BACKUPY_AGENT_KEY_FILE"], "agent-key-file", Kind::Text, None),
    key("server.ca_file", &["BACKUPY_CA_FILE"], "ca-file", Kind::Text, None),
    key("server.pins", &["BACKUPY_PINS"], "pins", Kind::List, Some("")),
    key(
        "server.allow_insecure",
        &["BACKUPY_DEV_ALLOW_INSECURE"],
        "allow-insecure",
        Kind::Bool,
        Some("false"),
    ),
    key("server.proxy", &["HTTPS_PROXY", "https_proxy"], "proxy", Kind::Text, None),
    key("server.no_proxy", &["NO_PROXY", "no_proxy"], "no-proxy", Kind::List, Some("")),
    key("state.dir", &["BACKUPY_STATE_DIR"], "state-dir", Kind::Text, Some("/var/lib/backup-agent")),
    key(
        "state.max_queue_bytes",
        &["BACKUPY_MAX_QUEUE_BYTES"],
        "max-queue-bytes",
        Kind::Size,
        Some("256 MiB"),
    ),
    key("state.min_free_bytes", &["BACKUPY_MIN_FREE_BYTES"], "min-free-bytes", Kind::Size, Some("64 MiB")),
    key("log.level", &["BACKUPY_LOG_LEVEL"], "log-level", Kind::Text, Some("info")),
    key("log.format", &["BACKUPY_LOG_FORMAT"], "log-format", Kind::Text, Some("auto")),
    key(
        "metrics.listen",
        &["BACKUPY_METRICS_LISTEN_ADDR"],
        "metrics-listen",
        Kind::Text,
        Some("127.0.0.1:9090"),
    ),
    key(
        "docker.socket",
        &["BACKUPY_DOCKER_SOCKET"],
        "docker-socket",
        Kind::Text,
        Some("/var/run/docker.sock"),
    ),
    Key {
        name: "docker.discovery",
        variables: &["BACKUPY_DISABLE_DISCOVERY"],
        inverted: true,
        flag: Some("docker-discovery"),
        kind: Kind::Bool,
        default: Some("true"),
    },
    key("hooks.enabled", &["BACKUPY_HOOKS_ENABLED"], "hooks-enabled", Kind::Bool, Some("false")),
    key("hooks.timeout", &["BACKUPY_HOOKS_TIMEOUT"], "hooks-timeout", Kind::Text, Some("30s")),
    key("backup.spool_dir", &["BACKUPY_BACKUP_SPOOL_DIR"], "spool-dir", Kind::Text, None),
    key("backup.spool", &["BACKUPY_BACKUP_SPOOL"], "spool", Kind::Text, Some("auto")),
    key("backup.zstd_level", &["BACKUPY_BACKUP_ZSTD_LEVEL"], "zstd-level", Kind::Integer, Some("3")),
    key("backup.gzip_level", &["BACKUPY_BACKUP_GZIP_LEVEL"], "gzip-level", Kind::Integer, Some("6")),
    key("backup.threads", &["BACKUPY_BACKUP_THREADS"], "threads", Kind::Integer, None),
    key("backup.nice", &["BACKUPY_BACKUP_NICE"], "nice", Kind::Integer, Some("10")),
    key("backup.idle_io", &["BACKUPY_BACKUP_IDLE_IO"], "idle-io", Kind::Bool, Some("false")),
    key(
        "backup.max_read_bytes_per_sec",
        &["BACKUPY_BACKUP_MAX_READ_BYTES_PER_SEC"],
        "max-read-bytes-per-sec",
        Kind::Size,
        Some("0"),
    ),
    key(
        "backup.max_upload_bytes_per_sec",
        &["BACKUPY_BACKUP_MAX_UPLOAD_BYTES_PER_SEC"],
        "max-upload-bytes-per-sec",
        Kind::Size,
        Some("0"),
    ),
    key("update.enabled", &["BACKUPY_UPDATE_ENABLED"], "update-enabled", Kind::Bool, Some("false")),
    key(
        "update.public_key_file",
        &["BACKUPY_UPDATE_PUBLIC_KEY_FILE"],
        "update-public-key-file",
        Kind::Text,
        None,
    ),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Further from each other than this, two names are no slip of the finger.
const MIN_SIMILARITY: f64 = 0.65;

/// 0 to 1: by common beginnings, or by the few letters that are swapped, missing or too many.
fn similarity(left: &str, right: &str) -> f64 {
    let (left, right) = (left.to_lowercase(), right.to_lowercase());
    strsim::jaro_winkler(&left, &right).max(strsim::normalized_damerau_levenshtein(&left, &right))
}

/// The candidate that looks most like the name, where one looks like it at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (similarity(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// The key that somebody meant who wrote `section.key` (or `key` without a section).
pub(super) fn nearest_key(name: &str) -> Option<&'static str> {
    let (section, last) = name.rsplit_once('.').unwrap_or(("", name));
    let in_section = KEYS.iter().map(|key| key.name).filter(|full| full.split('.').next() == Some(section));
    let by_last = |names: &mut dyn Iterator<Item = &'static str>| {
        let names: Vec<_> = names.collect();
        let best = nearest(last, names.iter().filter_map(|full| full.rsplit('.').next()))?;
        names.into_iter().find(|full| full.rsplit('.').next() == Some(best))
    };
    by_last(&mut in_section.into_iter()).or_else(|| by_last(&mut KEYS.iter().map(|key| key.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_in_its_section_first_and_then_anywhere() {
        for (written, meant) in [
            ("server.ulr", "server.url"),
            ("server.agentkey", "server.agent_key"),
            ("log.lvl", "log.level"),
            ("agent_key_file", "server.agent_key_file"),
            ("state.max_queue_byte", "state.max_queue_bytes"),
            ("backup.thread", "backup.threads"),
            ("backup.zstdlevel", "backup.zstd_level"),
            ("server.dir", "state.dir"),
        ] {
            assert_eq!(nearest_key(written), Some(meant), "{written}");
        }
        assert_eq!(nearest_key("server.qqq"), None);
    }

    #[test]
    fn no_two_keys_share_a_name_a_variable_or_a_flag() {
        for (index, key) in KEYS.iter().enumerate() {
            for other in &KEYS[index + 1..] {
                assert_ne!(key.name, other.name);
                assert!(key.flag != other.flag || key.flag.is_none());
                assert!(!key.variables.iter().any(|name| other.variables.contains(name)));
            }
        }
    }
}
