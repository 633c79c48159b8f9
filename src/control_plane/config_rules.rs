//! What an agent's configuration must be, what of it is shown, and how a change is merged into it.

use super::agent_config::AgentConfig;
use std::collections::BTreeSet;

/// What stands where a password is not shown. Written back, it means: as it was.
pub const MASK: &str = "***";

/// References that say where a password lies are no secrets themselves.
const REFERENCES: [&str; 3] = ["env:", "file:", "credential:"];
const COMPRESSIONS: [&str; 4] = ["", "zstd", "gzip", "none"];
/// An id becomes a part of paths of the REST face and of names of objects.
const MAX_ID_CHARS: usize = 128;

/// Every fault of a configuration, each with where it is; none means that it can be used.
pub fn faults(config: &AgentConfig) -> Vec<String> {
    let mut faults = Vec::new();
    check_ids("targets", config.targets.iter().map(|target| &target.id), &mut faults);
    check_ids("jobs", config.jobs.iter().map(|job| &job.id), &mut faults);
    check_ids("health_checks", config.health_checks.iter().map(|check| &check.id), &mut faults);
    for (at, job) in config.jobs.iter().enumerate() {
        if !config.targets.iter().any(|target| target.id == job.target_id) {
            faults.push(format!("jobs[{at}].target_id: there is no target {:?}", job.target_id));
        }
        if !COMPRESSIONS.contains(&job.compression.as_str()) {
            let known = COMPRESSIONS[1..].join(", ");
            faults.push(format!("jobs[{at}].compression: {:?} is none of {known}", job.compression));
        }
    }
    if let Some(window) = &config.maintenance {
        for (key, time) in [("start_utc", &window.start_utc), ("end_utc", &window.end_utc)] {
            if !is_time_of_day(time) {
                faults.push(format!("maintenance.{key}: {time:?} is not HH:MM"));
            }
        }
    }
    faults
}

fn check_ids<'a>(list: &str, ids: impl Iterator<Item = &'a String>, faults: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for (at, id) in ids.enumerate() {
        if id.is_empty() || id.chars().count() > MAX_ID_CHARS || id.chars().any(char::is_control) {
            faults.push(format!("{list}[{at}].id: must have 1 to {MAX_ID_CHARS} printable characters"));
        } else if !known.insert(id) {
            faults.push(format!("{list}[{at}].id: {id:?} is there twice"));
        }
    }
}

fn is_time_of_day(text: &str) -> bool {
    let Some((hour, minute)) = text.split_once(':') else { return false };
    let number = |part: &str| part.parse::<u8>().ok().filter(|_| part.len() == 2);
    number(hour).is_some_and(|hour| hour < 24) && number(minute).is_some_and(|minute| minute < 60)
}

/// The configuration as it may be shown: passwords masked, references to passwords kept.
pub fn shown(config: &AgentConfig) -> AgentConfig {
    let mut shown = config.clone();
    for target in &mut shown.targets {
        let reference = &mut target.connection.password_secret_ref;
        if !reference.is_empty() && !REFERENCES.iter().any(|known| reference.starts_with(known)) {
            *reference = MASK.to_owned();
        }
    }
    shown
}

/// Puts the passwords of `current` where `wanted` has the mask.
pub fn unmask(mut wanted: AgentConfig, current: &AgentConfig) -> AgentConfig {
    for target in &mut wanted.targets {
        if target.connection.password_secret_ref == MASK {
            let before = current.targets.iter().find(|known| known.id == target.id);
            target.connection.password_secret_ref =
                before.map(|known| known.connection.password_secret_ref.clone()).unwrap_or_default();
        }
    }
    wanted
}

/// RFC 7396: what `patch` names is replaced, null removes, objects are merged, lists are replaced.
pub fn merge(value: &mut serde_json::Value, patch: serde_json::Value) {
    match (value, patch) {
        (serde_json::Value::Object(fields), serde_json::Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    fields.remove(&key);
                } else {
                    merge(fields.entry(key).or_insert(serde_json::Value::Null), change);
                }
            }
        }
        (value, patch) => *value = patch,
    }
}

#[cfg(test)]
mod tests {
    use super::super::agent_config::{Connection, Engine, Job, Maintenance, Target};
    use super::*;
    use serde_json::json;

    fn config() -> AgentConfig {
        let connection = Connection { password_secret_ref: "hunter2".into(), ..Default::default() };
        AgentConfig {
            targets: vec![Target {
                id: "db".into(),
                engine: Engine::Postgresql,
                connection,
                ..Default::default()
            }],
            jobs: vec![Job { id: "nightly".into(), target_id: "db".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut config = config();
        assert_eq!(faults(&config), Vec::<String>::new());
        config.jobs.push(Job {
            id: "nightly".into(),
            target_id: "x".into(),
            compression: "lz4".into(),
            ..Default::default()
        });
        config.maintenance = Some(Maintenance { start_utc: "24:00".into(), end_utc: "2:00".into() });
        let found = faults(&config);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].contains("twice"));
        assert!(found[1].contains("no target \"x\""));
        assert!(found[2].contains("lz4"));
    }

    #[test]
    fn a_password_is_masked_when_shown_and_kept_when_the_mask_comes_back() {
        let config = config();
        let shown = shown(&config);
        assert_eq!(shown.targets[0].connection.password_secret_ref, MASK);
        assert!(!serde_json::to_string(&shown).unwrap().contains("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(unmask(shown, &config), config);
    }

    #[test]
    fn a_reference_to_a_password_is_shown() {
        let mut config = config();
        config.targets[0].connection.password_secret_ref = "env:PGPASSWORD".into();
        assert_eq!(shown(&config), config);
    }

    #[test]
    fn a_patch_replaces_what_it_names_and_nothing_else() {
        let mut value = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        merge(&mut value, json!({"b": {"c": null, "x": 4}, "e": [3]}));
        assert_eq!(value, json!({"a": 1, "b": {"d": 3, "x": 4}, "e": [3]}));
    }

    #[test]
    fn the_wire_gets_what_the_file_says() {
        let wire = config().to_wire(7);
        assert_eq!(wire.version, 7);
        assert_eq!(wire.targets[0].r#type(), crate::wire::v1::DbType::Postgresql);
        assert_eq!(wire.jobs[0].target_id, "db");
        assert!(!wire.jobs[0].encryption_enabled, "as Default says; a file's default is true");
        let read: Job = serde_json::from_value(json!({"id": "j", "target_id": "t"})).unwrap();
        assert!(read.encryption_enabled);
    }
}
