//! A dump's form: what every whole dump of an engine looks like, held against the stream as it passes.

use super::DumpError;
use super::call::Call;
use super::patience::{Patience, SILENCE, Silence};
use super::tally::Tally;
use super::tool;
use crate::drivers::Sink;
use crate::process::Cancel;
use std::io::{self, Write};

/// Looks at a dump on its way. Nothing of it is kept but a few bytes.
pub trait Form {
    /// The next bytes: looked at and written on, all of them or what belongs to the backup.
    ///
    /// # Errors
    /// [`FormError`]
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError>;

    /// There are no more, and the tool says that it went well: is it whole?
    ///
    /// # Errors
    /// [`FormError`]
    fn finish(&mut self, out: &mut dyn Write) -> Result<(), FormError>;

    /// What was counted on the way, once all of it has come; None where nobody counted.
    fn tally(&mut self) -> Option<Tally> {
        None
    }
}

/// Why a stream ended.
#[derive(Debug)]
pub enum FormError {
    /// It is no whole dump: what is wrong.
    Wrong(String),
    /// It could not be handed on.
    Output(io::Error),
}

impl From<io::Error> for FormError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What is wrong, as a form says it.
pub fn wrong<T>(problem: impl Into<String>) -> Result<T, FormError> {
    Err(FormError::Wrong(problem.into()))
}

/// What came of a dump that went well.
#[derive(Debug)]
pub struct Streamed {
    /// Its length.
    pub bytes: u64,
    /// What its tool warned of: something may be missing in it.
    pub warnings: Vec<String>,
}

/// Runs the tool and hands its dump on. The exit status is asked before the form's end:
/// a tool that failed has the better reason.
///
/// # Errors
/// [`DumpError`]
pub fn stream(
    call: &Call,
    engine: &'static str,
    form: &mut dyn Form,
    out: &mut dyn Sink,
    cancel: &Cancel,
) -> Result<Streamed, DumpError> {
    let explain = |error| match error {
        FormError::Wrong(problem) => DumpError::Form { engine, tool: call.title().to_owned(), problem },
        FormError::Output(error) => DumpError::Output(error),
    };
    let mut out = Counted { out, bytes: 0 };
    let silence = Silence::new(SILENCE);
    let warnings = tool::pump(call, Patience::patient(cancel, &silence), |bytes| {
        let taken = form.take(bytes, &mut out).map_err(explain);
        // What the tool waits for us is not its silence.
        silence.end();
        taken
    })?;
    form.finish(&mut out).map_err(explain)?;
    let warnings = warnings.into_iter().map(|said| format!("{} said: {said}", call.title())).collect();
    Ok(Streamed { bytes: out.bytes, warnings })
}

struct Counted<'a> {
    out: &'a mut dyn Sink,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
