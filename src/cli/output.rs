//! Standard output: a reader that goes away early (`| head`) ends the command quietly, where
//! `println!` would panic.

use super::{CliError, CliResult};
use crate::model::SysExit;
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Writes the bytes on standard output.
///
/// # Errors
/// 74 when standard output refuses them for another reason than a reader that left.
pub fn print(bytes: impl AsRef<[u8]>) -> CliResult {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::new(SysExit::Io, format_args!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes the value as indented JSON with a newline.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> CliResult {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::new(SysExit::Internal, format_args!("cannot write JSON: {error}")))?;
    text.push('\n');
    print(text)
}
