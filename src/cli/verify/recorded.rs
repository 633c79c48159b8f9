//! What the run that made an object noted of it: given by its path, lying beside the object, or kept by the agent of
//! this host.

use super::super::opening::{Failure, Key, OpeningArgs};
use crate::daemon::client;
use crate::daemon::control::Request;
use crate::model::Manifest;
use crate::object::{Opener, Order};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A manifest has at most some kilobytes; a list of many runs is none.
const MAX_BYTES: u64 = 1024 * 1024;

/// Behind the object's name: the manifest that lies beside it.
const EXTENSION: &str = "manifest";

/// The agent answers within this, or is left alone.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A manifest and where it was found.
pub struct Recorded {
    /// For people.
    pub source: String,
    /// It.
    pub manifest: Manifest,
}

/// The result of `backup --json` has one in it.
#[derive(Deserialize)]
struct Told {
    manifest: Manifest,
}

/// Looks for it: `given`, then beside the object, then in the local agent. One that is given must be there.
///
/// # Errors
/// [`Failure::Input`], [`Failure::Manifest`].
pub fn find(
    opening: &OpeningArgs,
    key: &Key,
    given: Option<&Path>,
    state_dir: &Path,
) -> Result<Option<Recorded>, Failure> {
    if let Some(given) = given {
        return read(given, key).map(Some);
    }
    if let Some(object) = opening.input_file() {
        let mut name = object.as_os_str().to_owned();
        name.push(".");
        name.push(EXTENSION);
        let beside = PathBuf::from(name);
        if beside.is_file() {
            return read(&beside, key).map(Some);
        }
    }
    Ok(key.run_id().and_then(|run| of_agent(state_dir, run)))
}

/// A file of the clear text, or sealed as `backup --manifest-out` writes it, with the object's own key.
fn read(path: &Path, key: &Key) -> Result<Recorded, Failure> {
    let name = path.display().to_string();
    let unreadable = |cause| Failure::Input { name: name.clone(), cause };
    let malformed = |cause: String| Failure::Manifest { name: name.clone(), cause };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(unreadable)?;
    let text = if bytes.trim_ascii_start().starts_with(b"{") {
        bytes
    } else {
        let mut opener =
            Opener::new(bytes.as_slice(), key.dek()?, Order::Strict).map_err(Failure::Internal)?;
        let mut text = Vec::new();
        while let Some(chunk) = opener.next_chunk().map_err(|error| malformed(error.to_string()))? {
            text.extend_from_slice(chunk);
        }
        text
    };
    let manifest = serde_json::from_slice::<Told>(&text)
        .map(|result| result.manifest)
        .or_else(|_| serde_json::from_slice::<Manifest>(&text));
    let manifest = manifest.map_err(|error| malformed(error.to_string()))?;
    Ok(Recorded { source: name, manifest })
}

/// What the agent of this host keeps of the run. None where there is none, or it cannot be asked: nobody asked for it.
fn of_agent(state_dir: &Path, run: &str) -> Option<Recorded> {
    let state: Value = client::ask(state_dir, Request::DumpState { allow_secrets: false }, ASK_LIMIT).ok()?;
    let known = state["runs"].as_array()?.iter().find(|known| known["run_id"] == run)?;
    let manifest = known["phase"]["finished"]["outcome"]["completed"]["manifest"].clone();
    let manifest = serde_json::from_value(manifest).ok()?;
    Some(Recorded { source: format!("the agent on {}", state_dir.display()), manifest })
}
