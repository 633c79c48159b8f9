//! What is wrong with the configuration.

use super::shown::scrub;
use std::fmt;

/// One thing that is wrong: which key, where its value came from, what and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    key: String,
    origin: String,
    what: String,
}

impl Fault {
    /// A fault of a key. All three parts are cleaned of what looks like an agent key.
    pub fn new(key: impl fmt::Display, origin: impl fmt::Display, what: impl fmt::Display) -> Self {
        let clean = |text: String| scrub(&text).into_owned();
        Self { key: clean(key.to_string()), origin: clean(origin.to_string()), what: clean(what.to_string()) }
    }

    /// A fault of a place that is no key: a file that cannot be read.
    pub fn of_place(origin: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::new("", origin, what)
    }

    /// The key, empty where the fault is not about one.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, what } = self;
        match (key.is_empty(), origin.is_empty()) {
            (true, _) => write!(f, "{origin}: {what}"),
            (false, true) => write!(f, "{key}: {what}"),
            (false, false) => write!(f, "{key} ({origin}): {what}"),
        }
    }
}

/// Everything that is wrong, in the order of the table; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
