//! Progress bars: on a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Read, stderr};
use std::time::Duration;

/// A bar with bytes, rate and time to go.
const KNOWN: &str =
    "{msg}[{wide_bar}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  eta {eta}";
/// The same where the end is not known.
const UNKNOWN: &str = "{msg}{spinner} {decimal_bytes}  {decimal_bytes_per_sec}";
/// Of something that is not bytes.
const PARTS: &str = "{msg}[{wide_bar}] {percent} %";
/// How often a bar moves when nothing else moves it.
const TICK: Duration = Duration::from_millis(120);

/// A bar on standard error, gone when it is finished; nothing at all in a pipe.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of bytes, up to `total` where it is known.
    pub fn bytes(total: Option<u64>) -> Self {
        if !stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// None.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Moves the bar with what is read.
    pub fn reader<R: Read>(&self, reader: R) -> impl Read + use<R> {
        self.0.wrap_read(reader)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// What a bar needs that is not moved by a reader.
impl Progress {
    /// Of a whole that is counted in `parts`.
    pub fn parts(parts: u64) -> Self {
        let progress = Self::bytes(Some(parts));
        if let Ok(style) = ProgressStyle::with_template(PARTS) {
            progress.0.set_style(style.progress_chars("=> "));
        }
        progress
    }

    /// Says what is going on.
    #[cfg(feature = "control-plane")]
    pub fn labelled(self, label: &str) -> Self {
        self.0.set_message(format!("   {label:<10} "));
        self
    }

    /// Moves the bar to a number of bytes.
    pub fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // An error must not be written behind half a bar.
        self.0.finish_and_clear();
    }
}
