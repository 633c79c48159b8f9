//! What every part of the validation reads and fills.

use super::fault::Fault;
use super::layers::Sources;
use super::raw::{Field, Take};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Begins the origin of an agent key that was read from a file.
pub(super) const FROM_FILE: &str = "file ";

/// What the validation reads and fills.
pub(super) struct Check<'a> {
    pub sources: &'a Sources,
    pub origins: BTreeMap<&'static str, String>,
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
}

impl Check<'_> {
    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// Something is wrong with a key's value.
    pub fn fault(&mut self, key: &'static str, what: impl std::fmt::Display) {
        let origin = self.origins.get(key).cloned().unwrap_or_default();
        self.faults.push(Fault::new(key, origin, what));
    }

    /// The value where it is there and of the right type.
    pub fn take<T: Take>(&mut self, key: &'static str, field: Field<T>) -> Option<T> {
        match field {
            Field::Is(value) => Some(value),
            Field::Absent => None,
            Field::Wrong(found) => {
                self.fault(key, format_args!("must be {}, and is {found}", T::EXPECTED));
                None
            }
        }
    }

    /// A text that is not empty: an empty one means the same as none.
    pub fn take_text(&mut self, key: &'static str, field: Field<String>) -> Option<String> {
        self.take(key, field).filter(|text| !text.is_empty())
    }

    /// The file of the agent key, for `check-config`.
    pub fn agent_key_file(&self) -> Option<String> {
        let origin = self.origin("server.agent_key");
        origin.strip_prefix(FROM_FILE).map(str::to_owned)
    }
}

/// Relative paths are below the working directory, which may change later.
pub(super) fn absolute(path: String) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    Some(std::path::absolute(&path).unwrap_or(path))
}
