//! How long a tool may go on.

use crate::process::Cancel;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a tool that was refused as a dump may go on saying before it is killed: its last words explain more than the
/// first wrong byte.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// A dump that gives nothing for so long hangs: the longest silence that is none is that of a server which writes a
/// snapshot before it sends it. Without this a job without a timeout would hold its place for ever, and every backup
/// behind it.
pub const SILENCE: Duration = Duration::from_secs(60 * 60);

/// When a dump last gave something, and how long it may give nothing.
pub struct Silence {
    since: Cell<Instant>,
    limit: Duration,
}

impl Silence {
    /// From now on.
    pub fn new(limit: Duration) -> Self {
        Self { since: Cell::new(Instant::now()), limit }
    }

    /// It gave something, which was taken.
    pub fn end(&self) {
        self.since.set(Instant::now());
    }
}

/// The end of a tool's time, by whoever sets it.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The run's switch.
    pub cancel: &'a Cancel,
    /// The end, and how long that was from the start.
    pub limit: Option<(Instant, Duration)>,
    /// Of a dump.
    pub silence: Option<&'a Silence>,
}

impl<'a> Patience<'a> {
    /// For a short answer.
    pub fn limited(cancel: &'a Cancel, limit: Duration) -> Self {
        Self { cancel, limit: Some((Instant::now() + limit, limit)), silence: None }
    }

    /// For a dump, which may take as long as it likes while something comes.
    pub fn patient(cancel: &'a Cancel, silence: &'a Silence) -> Self {
        Self { cancel, limit: None, silence: Some(silence) }
    }

    /// What to say of a tool whose time is over.
    pub fn overdue(&self) -> Option<String> {
        if let Some(Silence { since, limit }) = self.silence
            && since.get().elapsed() >= *limit
        {
            let minutes = limit.as_secs() / 60;
            return Some(format!(
                "gave nothing for {minutes} min and was ended; its server may hang, or somebody hold a lock"
            ));
        }
        let (end, limit) = self.limit?;
        (Instant::now() >= end).then(|| format!("gave no answer for {} s and was ended", limit.as_secs()))
    }
}

impl<'a> From<&'a Cancel> for Patience<'a> {
    fn from(cancel: &'a Cancel) -> Self {
        Self { cancel, limit: None, silence: None }
    }
}
