//! A second beginning of the daemon: with memory that is given back, and without the agent key in its environment.
//!
//! glibc raises the size from which it maps blocks one by one with every such block that is freed. The buffers of a
//! run then come out of heaps that keep them for ever: 42 MiB stayed resident after ten runs, instead of 15. Only the
//! environment pins that size, and glibc reads it only at the start of a program.
//!
//! What a program got as its environment stands in `/proc/PID/environ` as long as it lives, whatever it does to its
//! variables, and every tool that it starts inherits them. So the key goes over by a pipe, which is empty once
//! it was read.

use secrecy::SecretString;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use zeroize::Zeroizing;

/// glibc's name for it (mallopt(3), `M_MMAP_THRESHOLD`).
const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";

/// Bytes. Below it are what actors and connections juggle with, above it the buffers of runs (1 MiB and more).
const THRESHOLD: &str = "524288";

/// The agent key's variable, and what stands in it when the key comes by standard input.
const KEY_VARIABLE: &str = "BACKUPY_AGENT_KEY";
const KEY_BY_STDIN: &str = "-";

/// A pipe takes so much without a reader on every Linux (a page); a longer text is no agent key.
const MAX_KEY_BYTES: usize = 4096;

/// Begins this program again, once, with the threshold pinned and the agent key out of sight: same process, same
/// arguments. Where that cannot be done it goes on as it is. Answers the key that the first beginning handed over.
pub fn begin_again() -> Option<SecretString> {
    let key = std::env::var_os(KEY_VARIABLE);
    if key.as_ref().is_some_and(|key| key == KEY_BY_STDIN) {
        return read_key();
    }
    let key = key.filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
    let pipe = key.and_then(|key| hand_over(&key).ok());
    let pinned = std::env::var_os(VARIABLE).is_some();
    // Nothing to gain; and what failed once would fail again and again.
    if pinned && pipe.is_none() {
        return None;
    }
    let binary = std::env::current_exe().ok()?;
    let mut arguments = std::env::args_os();
    let mut again = Command::new(binary);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    if !pinned {
        again.env(VARIABLE, THRESHOLD);
    }
    if let Some(pipe) = pipe {
        again.env(KEY_VARIABLE, KEY_BY_STDIN).stdin(pipe);
    }
    // It returns only where it failed.
    let _ = again.exec();
    None
}

/// A pipe that holds the key and nobody writes to any more.
fn hand_over(key: &OsString) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(key.as_bytes())?;
    Ok(reader)
}

/// The key out of standard input, which is empty then.
fn read_key() -> Option<SecretString> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES + 1));
    io::stdin().lock().take(MAX_KEY_BYTES as u64 + 1).read_to_string(&mut text).ok()?;
    Some(SecretString::from(text.as_str()))
}
