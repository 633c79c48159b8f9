//! The two agent keys of `rekey`: each from a file, a variable or a credential, like the configured one,
//! and never from the command line itself.

use super::agent_key::{is_agent_key, not_a_key, read_text};
use super::fault::{Fault, Faults};
use super::layers::{CREDENTIALS_DIRECTORY, Sources};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichKey {
    /// The state is sealed under it.
    Old,
    /// The state will be.
    New,
}

impl WhichKey {
    /// Variable with the key itself, variable with its file, credential.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Old => ("BACKUPY_OLD_AGENT_KEY", "BACKUPY_OLD_AGENT_KEY_FILE", "old-agent-key"),
            Self::New => ("BACKUPY_NEW_AGENT_KEY", "BACKUPY_NEW_AGENT_KEY_FILE", "new-agent-key"),
        }
    }
}

/// The key from `file` where one is named, else from the environment; None where nothing names one.
///
/// # Errors
/// A file that cannot be read, a text that is no key: never with the text.
pub fn rekey_key(
    sources: &Sources,
    which: WhichKey,
    file: Option<&Path>,
) -> Result<Option<SecretString>, Faults> {
    let (inline, file_variable, credential) = which.names();
    let variable = |name: &str| sources.environment.get(name).filter(|value| !value.is_empty());
    let from_credential = || {
        let directory = variable(CREDENTIALS_DIRECTORY)?;
        Some(PathBuf::from(directory).join(credential)).filter(|path| path.exists())
    };
    let path = file.map(Path::to_path_buf).or_else(|| variable(file_variable).map(PathBuf::from));
    if let Some(path) = path.or_else(|| if variable(inline).is_none() { from_credential() } else { None }) {
        let place = path.display().to_string();
        let text = read_text(&path).map_err(|error| fault(&place, format!("cannot be read: {error}")))?;
        return key(&place, text).map(Some);
    }
    let Some(value) = variable(inline) else {
        return Ok(None);
    };
    let text = value.to_str().ok_or_else(|| fault(inline, "is not valid UTF-8".to_owned()))?;
    key(inline, Zeroizing::new(text.to_owned())).map(Some)
}

fn key(place: &str, text: Zeroizing<String>) -> Result<SecretString, Faults> {
    if is_agent_key(&text) {
        Ok(SecretString::from(text.as_str()))
    } else {
        Err(fault(place, not_a_key(&text)))
    }
}

fn fault(place: &str, what: String) -> Faults {
    Faults(vec![Fault::of_place(place, what)])
}
