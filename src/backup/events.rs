//! What a run has to say beyond its progress, bounded in rate and size.

use crate::model::{EventLevel, RunEvent, unix_ms};
use std::sync::{Mutex, PoisonError};

/// At most so many wait to be fetched, which happens once a second: so this is also the rate.
const MAX_WAITING: usize = 32;

/// Of a whole run. What says more than this says the same again and again.
const MAX_OF_RUN: u32 = 500;

/// Of one text: the end of a hook's output, and a line that says what is missing.
const MAX_TEXT_BYTES: usize = 9 * 1024;

/// Events on their way from a run's threads to whoever tells them.
#[derive(Debug, Default)]
pub struct Events(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    waiting: Vec<RunEvent>,
    taken_in: u32,
    left_out: u64,
}

impl Events {
    /// Takes an event in, or counts it where there are too many.
    pub fn put(&self, level: EventLevel, message: &str, fields: Vec<(&'static str, String)>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.waiting.len() >= MAX_WAITING || kept.taken_in >= MAX_OF_RUN {
            kept.left_out += 1;
            return;
        }
        kept.taken_in += 1;
        let fields = fields.into_iter().map(|(name, value)| (name, shortened(value))).collect();
        let message = shortened(message.to_owned());
        kept.waiting.push(RunEvent { ts_ms: unix_ms(), level, message, fields });
    }

    /// What waits, oldest first.
    pub fn take(&self) -> Vec<RunEvent> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut kept.waiting)
    }

    /// How many were left out since the last call.
    pub fn take_left_out(&self) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut kept.left_out)
    }
}

/// The text, or its beginning.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_what_is_too_long_is_cut() {
        let events = Events::default();
        let say = |count| (0..count).for_each(|_| events.put(EventLevel::Info, "said", Vec::new()));
        say(MAX_WAITING + 3);
        assert_eq!(events.take().len(), MAX_WAITING);
        assert_eq!((events.take_left_out(), events.take_left_out()), (3, 0));
        for _ in 0..MAX_OF_RUN {
            say(1);
            events.take();
        }
        say(1);
        assert!(events.take().is_empty(), "a run says no more than this");
        assert!(events.take_left_out() > 0);

        let events = Events::default();
        events.put(EventLevel::Warn, "x", vec![("output", "ü".repeat(MAX_TEXT_BYTES))]);
        let text = events.take().remove(0).fields.remove(0).1;
        assert!(text.ends_with("ü…") && text.len() <= MAX_TEXT_BYTES + '…'.len_utf8());
    }
}
