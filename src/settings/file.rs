//! The TOML file as a layer: every value knows its line, every syntax error its column, every
//! unknown key the name that was probably meant.

use super::fault::Fault;
use super::keys::{self, KEYS};
use super::layers::Layer;
use super::shown::shown;
use super::targets;
use crate::model::TargetSpec;
use config::{Value, ValueKind};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// A configuration is some hundred lines; beyond this it is another file, or `/dev/zero`.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Others may read a file with one of these bits.
const NOT_PRIVATE: u32 = 0o077;

/// What a file gives: a layer, faults that stand beside it, warnings.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub layer: Layer,
    pub targets: BTreeMap<String, TargetSpec>,
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
}

/// Reads the file.
///
/// # Errors
/// What makes the file unusable as a whole: unreadable, too large, no UTF-8, no TOML.
pub(super) fn read(path: &Path) -> Result<Parsed, Vec<Fault>> {
    let fault = |what: String| vec![Fault::of_place(path.display(), what)];
    let file = File::open(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let mode = file.metadata().map(|data| data.permissions().mode()).unwrap_or_default();
    // A buffer that grows leaves copies behind, of passwords too.
    let len = file.metadata().map_or(0, |data| data.len().min(MAX_FILE_BYTES)) as usize;
    let mut text = Zeroizing::new(String::with_capacity(len + 2));
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(fault(format!("is larger than {MAX_FILE_BYTES} bytes: not a configuration")));
    }
    let mut parsed = parse(&text, &path.display().to_string())?;
    let public = mode & NOT_PRIVATE != 0;
    let mut warn_of = |what: &str| {
        let place = path.display();
        parsed.warnings.push(format!("{place}: holds {what} and is readable by others: chmod 600 it"));
    };
    if public && parsed.layer.agent_key().is_some() {
        warn_of("the agent key");
    }
    let password = |target: &TargetSpec| target.connection.password_ref.is_literal();
    if public && parsed.targets.values().any(password) {
        warn_of("a password");
    }
    Ok(parsed)
}

/// The text of a file as a layer; `name` is how its lines are called.
///
/// # Errors
/// Every syntax error with its line and column.
pub(super) fn parse(text: &str, name: &str) -> Result<Parsed, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let place = |error: &toml::de::Error| position(text, error.span().map_or(0, |span| span.start));
        let mut errors: Vec<_> = errors.iter().map(|error| (place(error), error)).collect();
        errors.sort_by_key(|(place, _)| *place);
        // What follows on the same line is usually the parser finding its feet again.
        errors.dedup_by_key(|((line, _), _)| *line);
        let fault = |((line, column), error): ((usize, usize), &toml::de::Error)| {
            Fault::of_place(format!("{name}:{line}:{column}"), error.message().replace('\n', ", "))
        };
        return Err(errors.into_iter().map(fault).collect());
    }
    let mut parsed = Parsed::default();
    for (section, value) in table.into_inner() {
        let at = |start: usize| format!("{name}:{}", position(text, start).0);
        let origin = at(section.span().start);
        let section = section.into_inner();
        let is_section = KEYS.iter().any(|key| key.name.split('.').next() == Some(&section));
        if section == targets::SECTION {
            if let DeValue::Table(table) = value.into_inner() {
                parsed.targets = targets::parse(table, at, &mut parsed.faults);
            } else {
                parsed.faults.push(Fault::new(&section, origin, "must be tables: [targets.NAME]"));
            }
        } else if !is_section {
            parsed.faults.push(unknown(&section, &origin));
        } else if let DeValue::Table(table) = value.into_inner() {
            for (key, value) in table {
                let origin = at(key.span().start);
                put(&mut parsed, &format!("{section}.{}", key.into_inner()), &origin, value);
            }
        } else {
            parsed.faults.push(Fault::new(&section, origin, format!("must be a table: [{section}]")));
        }
    }
    Ok(parsed)
}

fn put(parsed: &mut Parsed, name: &str, origin: &str, value: Spanned<DeValue<'_>>) {
    let Some(key) = keys::find(name) else {
        return parsed.faults.push(unknown(name, origin));
    };
    match kind_of(value.into_inner()) {
        Ok(kind) => parsed.layer.put(key, origin, kind),
        Err(what) => parsed.faults.push(Fault::new(key.name, origin, what)),
    }
}

fn unknown(name: &str, origin: &str) -> Fault {
    let hint = keys::nearest_key(name).map(|near| format!("; did you mean {near}?"));
    Fault::new(shown(name), origin, format!("unknown key{}", hint.unwrap_or_default()))
}

/// The value as the `config` crate keeps it.
fn kind_of(value: DeValue<'_>) -> Result<ValueKind, &'static str> {
    match value {
        DeValue::String(text) => Ok(ValueKind::String(text.into_owned())),
        DeValue::Boolean(value) => Ok(ValueKind::Boolean(value)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(ValueKind::I64)
            .map_err(|_| "is a number that is too large"),
        DeValue::Float(_) => Ok(ValueKind::Float(0.0)),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| kind_of(item.into_inner()));
            Ok(ValueKind::Array(
                items.map(|kind| kind.map(|kind| Value::new(None, kind))).collect::<Result<_, _>>()?,
            ))
        }
        // Tables would be merged with what lies below instead of replacing it.
        DeValue::Table(_) => Err("must not be a table"),
        DeValue::Datetime(_) => Err("must not be a date"),
    }
}

/// Line and column of a byte, both from 1; the column counts characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
