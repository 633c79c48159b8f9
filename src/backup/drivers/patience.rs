//! How long a tool may go on.

use crate::backup::cancel::Cancel;
use std::time::{Duration, Instant};

/// What a tool that was refused as a dump may go on saying before it is killed: its last words explain more than the
/// first wrong byte.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// The end of a tool's time, by whoever sets it.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// The run's switch.
    pub cancel: &'a Cancel,
    /// The end, and how long that was from the start.
    pub limit: Option<(Instant, Duration)>,
}

impl<'a> Patience<'a> {
    /// For a short answer.
    pub fn limited(cancel: &'a Cancel, limit: Duration) -> Self {
        Self { cancel, limit: Some((Instant::now() + limit, limit)) }
    }

    /// What to say of a tool whose time is over.
    pub fn overdue(&self) -> Option<String> {
        let (end, limit) = self.limit?;
        (Instant::now() >= end).then(|| format!("gave no answer for {} s and was ended", limit.as_secs()))
    }
}

impl<'a> From<&'a Cancel> for Patience<'a> {
    fn from(cancel: &'a Cancel) -> Self {
        Self { cancel, limit: None }
    }
}
