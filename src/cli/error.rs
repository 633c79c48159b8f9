//! What a command ends with when it does not end well.

use crate::model::SysExit;
use std::fmt;
use std::io::Write;

/// What every command gives back.
pub type CliResult = Result<(), CliError>;

/// An exit code and what to tell: usually one line, one line a fault where there are several.
#[derive(Debug)]
pub struct CliError {
    exit: SysExit,
    lines: Vec<String>,
}

impl CliError {
    /// An error with one line: what happened, to what, why, what to do.
    pub fn new(exit: SysExit, message: impl fmt::Display) -> Self {
        Self { exit, lines: vec![message.to_string()] }
    }

    /// An error with one line a fault.
    pub fn many(exit: SysExit, faults: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        Self { exit, lines: faults.into_iter().map(|fault| fault.to_string()).collect() }
    }

    /// An exit code without a word: the output has said it.
    pub fn silent(exit: SysExit) -> Self {
        Self { exit, lines: Vec::new() }
    }

    /// The same, and more to its last line.
    pub fn and(mut self, more: impl fmt::Display) -> Self {
        match self.lines.last_mut() {
            Some(last) => last.push_str(&more.to_string()),
            None => self.lines.push(more.to_string()),
        }
        self
    }

    /// The chain of an anyhow error as one line.
    pub fn chain(exit: SysExit, error: &anyhow::Error) -> Self {
        Self::new(exit, format_args!("{error:#}"))
    }

    /// What the process ends with.
    pub fn exit(&self) -> SysExit {
        self.exit
    }

    /// Writes the lines on standard error; a closed one is no error of its own.
    pub fn report(&self) {
        let mut stderr = std::io::stderr().lock();
        for line in &self.lines {
            let _ = writeln!(stderr, "backupy-agent: {line}");
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("; "))
    }
}

impl std::error::Error for CliError {}
