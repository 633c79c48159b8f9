//! A tool run where its target's tools run: as a child of the agent, or inside a container.

use super::DumpError;
use super::call::Call;
use super::child::Child;
use super::ground::Ground;
use super::inside::Running;
use super::patience::Patience;
use crate::process::Cancel;
use std::time::Duration;

/// Kept of an answer: it is a line or two, not a dump.
const ANSWER_LEN: usize = 64 * 1024;

/// Runs the tool and hands its whole output on. How it ended is asked after its output ended: a tool that died half-way is
/// a failure, never a short success. Gives what a tool that went well warned of, without secrets.
///
/// # Errors
/// [`DumpError::Cancelled`], [`DumpError::ToolStart`], [`DumpError::ToolMissingInside`], [`DumpError::Docker`],
/// [`DumpError::Tool`], or what `take` said.
pub fn pump(
    call: &Call,
    patience: Patience<'_>,
    take: impl FnMut(&[u8]) -> Result<(), DumpError>,
) -> Result<Vec<String>, DumpError> {
    match call.ground() {
        Ground::Host(_) => Child::start(call)?.pump(patience, take),
        Ground::Container(container) => Running::start(container, call, patience)?.pump(patience, take),
    }
}

/// A short answer. A tool that takes longer than `limit` is ended.
///
/// # Errors
/// As [`pump`].
pub fn answer(call: &Call, limit: Duration, cancel: &Cancel) -> Result<String, DumpError> {
    let mut answer = Vec::new();
    pump(call, Patience::limited(cancel, limit), |bytes| {
        // The rest of a chatterbox is read and dropped.
        let room = ANSWER_LEN.saturating_sub(answer.len()).min(bytes.len());
        answer.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
