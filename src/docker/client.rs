//! Requests and their answers.

use super::line::{Line, Timing, strange};
use super::{Error, message_of};
use crate::http::Answer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The newest version that this client was written for. What it asks has not changed since 1.25.
const NEWEST: (u32, u32) = (1, 52);

/// The first version whose programs can be given an environment (Docker 1.13, of 2017).
const OLDEST: (u32, u32) = (1, 25);

/// An engine, with the version that both sides know.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timing: Timing,
    /// Before every path: `/v1.41`.
    prefix: String,
}

impl Client {
    /// Asks the engine which versions it speaks.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn connect(socket: PathBuf, timing: Timing) -> Result<Self, Error> {
        const WHAT: &str = "say its API version";
        let mut client = Self { socket, timing, prefix: String::new() };
        let (answer, _) = client.ask(WHAT, &client.head("GET", "/_ping", 0, "")).await?;
        // One that names none gets bare paths, and answers in its newest.
        if let Some(text) = answer.header("api-version") {
            let version = version(text).ok_or_else(|| strange(WHAT, "it is no version"))?;
            if version < OLDEST {
                return Err(Error::TooOld { version: format!("{}.{}", version.0, version.1) });
            }
            let (major, minor) = version.min(NEWEST);
            client.prefix = format!("/v{major}.{minor}");
        }
        Ok(client)
    }

    /// How long it may take.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// An object of the engine.
    pub(super) async fn get<T: DeserializeOwned>(&self, what: &'static str, path: &str) -> Result<T, Error> {
        let (_, body) = self.ask(what, &self.head("GET", path, 0, "")).await?;
        serde_json::from_slice(&body).map_err(|error| strange(what, error))
    }

    /// Makes something of the engine.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        given: &impl Serialize,
    ) -> Result<T, Error> {
        let (_, body) = self.ask(what, &self.request(path, given, "")?).await?;
        serde_json::from_slice(&body).map_err(|error| strange(what, error))
    }

    /// A request whose connection stops being HTTP.
    pub(super) async fn upgrade(
        &self,
        what: &'static str,
        path: &str,
        given: &impl Serialize,
    ) -> Result<(Line, Answer), Error> {
        let request = self.request(path, given, "connection: Upgrade\r\nupgrade: tcp\r\n")?;
        let mut line = Line::send(&self.socket, self.timing, what, &request).await?;
        let answer = line.head(what).await?;
        // Older engines and Podman say 200 and stop being HTTP all the same.
        if answer.status == 101 || answer.status == 200 {
            return Ok((line, answer));
        }
        Err(refused(what, &answer, &line.body(what, &answer).await.unwrap_or_default()))
    }

    async fn ask(&self, what: &'static str, request: &[u8]) -> Result<(Answer, Vec<u8>), Error> {
        let mut line = Line::send(&self.socket, self.timing, what, request).await?;
        let answer = line.head(what).await?;
        let body = line.body(what, &answer).await;
        // A refusal whose words do not arrive is one all the same.
        if !answer.is_success() {
            return Err(refused(what, &answer, &body.unwrap_or_default()));
        }
        Ok((answer, body?))
    }

    /// A request with JSON, which may have secrets in it: it is wiped.
    fn request(&self, path: &str, given: &impl Serialize, more: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let json = serde_json::to_vec(given).map(Zeroizing::new);
        let json = json.map_err(|error| strange("be asked at all", error))?;
        let head = self.head("POST", path, json.len(), more);
        // At once in its last place: a buffer that grows leaves copies behind.
        let mut request = Zeroizing::new(Vec::with_capacity(head.len() + json.len()));
        request.extend_from_slice(&head);
        request.extend_from_slice(&json);
        Ok(request)
    }

    fn head(&self, method: &str, path: &str, len: usize, more: &str) -> Vec<u8> {
        let more = if more.is_empty() { "connection: close\r\n" } else { more };
        let body = format!("content-type: application/json\r\ncontent-length: {len}\r\n");
        let body = if method == "GET" { "" } else { &body };
        format!("{method} {}{path} HTTP/1.1\r\nhost: docker\r\n{body}{more}\r\n", self.prefix).into_bytes()
    }
}

fn refused(what: &'static str, answer: &Answer, body: &[u8]) -> Error {
    Error::Refused { what, status: answer.status, message: message_of(body) }
}

/// `1.41`
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
