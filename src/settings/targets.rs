//! `[targets.NAME]`: databases that `backup` reads without a control plane. The daemon has its own from there, and only
//! checks these.

use super::fault::Fault;
use super::keys::nearest;
use super::shown::shown;
use crate::model::{Connection, Engine, Strategy, TargetSpec};
use std::collections::BTreeMap;
use std::fmt::Display;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The section.
pub(super) const SECTION: &str = "targets";

/// What a target may say of itself, in the words of the wire (protocol section 3).
const FIELDS: [&str; 8] =
    ["type", "host", "port", "database", "username", "password_ref", "container_id", "strategy"];

const ENGINES: [(&str, Engine); 6] = [
    ("postgresql", Engine::Postgresql),
    ("mysql", Engine::Mysql),
    ("mariadb", Engine::Mariadb),
    ("mongodb", Engine::Mongodb),
    ("redis", Engine::Redis),
    ("sqlite", Engine::Sqlite),
];

const STRATEGIES: [(&str, Strategy); 3] =
    [("tcp", Strategy::Tcp), ("unix_socket", Strategy::UnixSocket), ("docker_exec", Strategy::DockerExec)];

/// The target of that name.
///
/// # Errors
/// A name that the file does not have, with those that it has.
pub(super) fn find(
    mut targets: BTreeMap<String, TargetSpec>,
    file: impl Display,
    name: &str,
) -> Result<TargetSpec, Fault> {
    targets.remove(name).ok_or_else(|| {
        let known = targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
        Fault::of_place(file, format!("has no [targets.{}]: {known}", shown(name)))
    })
}

/// Every target of the section; what is wrong with one does not hide the others.
pub(super) fn parse(
    section: DeTable<'_>,
    at: impl Fn(usize) -> String,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, TargetSpec> {
    let mut targets = BTreeMap::new();
    for (name, value) in section {
        let origin = at(name.span().start);
        let name = name.into_inner().into_owned();
        if let DeValue::Table(table) = value.into_inner() {
            if let Some(target) = target(&name, table, &origin, &at, faults) {
                targets.insert(name, target);
            }
        } else {
            faults.push(Fault::new(format!("{SECTION}.{name}"), origin, "must be a table"));
        }
    }
    targets
}

fn target(
    name: &str,
    table: DeTable<'_>,
    origin: &str,
    at: &impl Fn(usize) -> String,
    faults: &mut Vec<Fault>,
) -> Option<TargetSpec> {
    let before = faults.len();
    let mut engine = None;
    let mut connection = Connection::default();
    for (key, value) in table {
        let place = at(key.span().start);
        let key = key.into_inner();
        if let Err(what) = field(&key, value, &mut engine, &mut connection) {
            // The text of a value stays out of this: it may be a password in the wrong line.
            faults.push(Fault::new(format!("{SECTION}.{name}.{key}"), place, what));
        }
    }
    if engine.is_none() && faults.len() == before {
        let names = ENGINES.map(|(name, _)| name).join(", ");
        faults.push(Fault::new(
            format!("{SECTION}.{name}.type"),
            origin,
            format!("is missing: one of {names}"),
        ));
    }
    (faults.len() == before).then(|| TargetSpec {
        id: name.into(),
        engine,
        display_name: name.to_owned(),
        connection,
    })
}

fn field(
    key: &str,
    value: Spanned<DeValue<'_>>,
    engine: &mut Option<Engine>,
    connection: &mut Connection,
) -> Result<(), String> {
    let value = value.into_inner();
    if key == "port" {
        let DeValue::Integer(number) = &value else { return Err("must be a whole number".to_owned()) };
        let port = u16::from_str_radix(number.as_str(), number.radix());
        connection.port = port.map_err(|_| "must be a port, 1 to 65535".to_owned())?;
        return Ok(());
    }
    let text = || {
        let DeValue::String(text) = value else { return Err("must be a text".to_owned()) };
        Ok(text.into_owned())
    };
    match key {
        "type" => *engine = Some(choice(&text()?, &ENGINES)?),
        "strategy" => connection.strategy = choice(&text()?, &STRATEGIES)?,
        "host" => connection.host = text()?,
        "database" => connection.database = text()?,
        "username" => connection.username = text()?,
        "password_ref" => connection.password_ref = text()?.into(),
        "container_id" => connection.container_id = text()?,
        _ => {
            let hint = nearest(key, FIELDS.into_iter()).map(|near| format!("; did you mean {near}?"));
            return Err(format!("unknown key{}", hint.unwrap_or_default()));
        }
    }
    Ok(())
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!("is unknown: one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load_for_target};

    fn load(text: &str, name: &str) -> Result<TargetSpec, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let nothing = BTreeMap::new();
        let sources = Sources { file: None, default_file: path, environment: nothing, flags: Vec::new() };
        load_for_target(&sources, name).map(|loaded| loaded.target).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_target_is_read_beside_the_daemons_own_keys() {
        let text = "[server]\nurl = \"https://x\"\n[targets.shop]\ntype = \"postgresql\"\nhost = \"db\"\nport = 5433\n\
                    database = \"shop\"\nusername = \"me\"\npassword_ref = \"env:PW\"\nstrategy = \"unix_socket\"\n";
        let target = load(text, "shop").unwrap();
        assert_eq!((target.id.as_str(), target.engine), ("shop", Some(Engine::Postgresql)));
        let Connection { host, port, password_ref, strategy, .. } = target.connection;
        assert_eq!((host.as_str(), port, strategy), ("db", 5433, Strategy::UnixSocket));
        assert_eq!(password_ref.expose(), "env:PW");
        assert!(load(text, "shp").unwrap_err().contains("it has shop"));
        assert!(load("", "shop").unwrap_err().contains("it has none"));
    }

    #[test]
    fn every_fault_is_named_with_its_line_and_no_value() {
        let text = "[targets.a]\ntyp = \"sqlite\"\nport = 70000\npassword_ref = 12345678\nstrategy = \"ssh\"\n\
                    [targets.b]\nhost = \"x\"\n[targets]\nc = 1\n";
        let faults = load(text, "a").unwrap_err();
        for part in [
            "targets.a.typ (",
            "agent.toml:2)",
            "did you mean type?",
            "targets.a.port",
            "65535",
            "targets.a.password_ref",
            "must be a text",
            "one of tcp, unix_socket",
            "targets.b.type",
            "targets.c",
        ] {
            assert!(faults.contains(part), "{part} is not in {faults}");
        }
        assert!(!faults.contains("12345678"));
    }
}
