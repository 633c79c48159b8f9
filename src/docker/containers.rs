//! Containers.

use super::{Client, Error};
use serde::Deserialize;
use std::fmt;

/// Docker itself allows 253 characters of a host's name; ids have 64.
const MAX_NAME_LEN: usize = 256;

/// A container's name, its id, or the beginning of its id: something that can stand in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// The text names no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// Docker has no such names.
    #[error(
        "names and ids have letters, digits, `_`, `.` and `-`, begin with a letter or digit, and have at most 256 characters"
    )]
    Form,
}

impl Name {
    /// As people and Docker write it, also with the slash that Docker puts before names.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_plain && begins && text.len() <= MAX_NAME_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Form)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the engine says of a container, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Of 64 hexadecimal digits.
    pub id: String,
    /// How it does.
    pub state: State,
}

/// How a container does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// When it was started the last time, as the engine writes it.
    pub started_at: String,
    status: String,
    running: bool,
    paused: bool,
    restarting: bool,
}

impl Container {
    /// What came in between since it was started at that time, for people.
    pub fn fate(&self, started_at: &str) -> Option<String> {
        self.hindrance().or_else(|| (self.state.started_at != started_at).then(|| "was restarted".to_owned()))
    }

    /// Why no program can be started in it, for people.
    pub fn hindrance(&self) -> Option<String> {
        let State { status, running, paused, restarting, .. } = &self.state;
        if *paused {
            return Some("is paused: `docker unpause` lets it go on".into());
        }
        if *restarting {
            return Some("is restarting again and again: `docker logs` says why".into());
        }
        let status: String = status.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        (!running).then(|| format!("is not running ({status}): start it"))
    }
}

impl Client {
    /// The container of that name or id.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_not_found`] where there is none.
    pub async fn container(&self, name: &Name) -> Result<Container, Error> {
        const WHAT: &str = "show the container";
        let container: Container =
            self.get(WHAT, &format!("/containers/{name}/json")).await.map_err(with_advice)?;
        if container.id.is_empty() || !container.id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(super::line::strange(WHAT, "its id is none"));
        }
        Ok(container)
    }
}

/// There is no such container, or several are.
fn with_advice(error: Error) -> Error {
    let Error::Refused { what, status, message } = error else { return error };
    if status != 404 && !message.starts_with("Multiple IDs") {
        return Error::Refused { what, status, message };
    }
    let advice = "`docker ps` shows the names: give one whole, as it is written there";
    Error::Refused { what, status, message: format!("{message}; {advice}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_docker_allows_and_never_leaves_its_place_in_a_path() {
        for (text, name) in [("db", "db"), ("/shop-db_1.x", "shop-db_1.x"), ("0c0ffee", "0c0ffee")] {
            assert_eq!(Name::parse(text).unwrap().to_string(), name);
        }
        assert_eq!(Name::parse("/"), Err(NameError::Empty));
        let long = "x".repeat(257);
        for text in ["a/b", "../images", "a b", "a%2e", "-x", ".", "\u{fc}", "a?b", "a\r\nb", "//a", &long] {
            assert_eq!(Name::parse(text), Err(NameError::Form), "{text}");
        }
    }

    #[test]
    fn what_hinders_a_container_is_told_with_what_to_do() {
        let of = |state: &str| {
            let json = format!("{{\"Id\":\"c0ffee\",\"State\":{state}}}");
            serde_json::from_str::<Container>(&json).unwrap().hindrance()
        };
        assert_eq!(of("{\"Status\":\"running\",\"Running\":true}"), None);
        assert!(of("{\"Status\":\"paused\",\"Running\":true,\"Paused\":true}").unwrap().contains("unpause"));
        assert!(
            of("{\"Status\":\"restarting\",\"Running\":true,\"Restarting\":true}").unwrap().contains("logs")
        );
        assert_eq!(of("{\"Status\":\"exited\"}").unwrap(), "is not running (exited): start it");
    }

    #[test]
    fn a_container_that_was_started_again_is_told_from_one_that_went_on() {
        let json = r#"{"Id":"c0ffee","State":{"Status":"running","Running":true,"StartedAt":"at ten"}}"#;
        let container: Container = serde_json::from_str(json).unwrap();
        assert_eq!(container.fate("at ten"), None);
        assert_eq!(container.fate("at nine").unwrap(), "was restarted");
    }
}
