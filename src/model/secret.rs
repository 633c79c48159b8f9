//! A text that must not be seen.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroize;

/// A secret text: never shown by `Debug`, wiped when dropped. It serialises in the clear, which only
/// the sealed store may use.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Call it only where the secret is used, never where it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a reference to a password is the password itself (`literal:VALUE`, or no reference at all).
    pub fn is_literal(&self) -> bool {
        const ELSEWHERE: [&str; 3] = ["env:", "file:", "credential:"];
        !self.is_empty() && !ELSEWHERE.iter().any(|prefix| self.0.starts_with(prefix))
    }

    /// Whether there is any text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
