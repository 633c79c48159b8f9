//! Whether a store that takes the body so slowly will ever have it.

use std::time::Duration;

/// Fewer bytes a second than any line has on which a backup could be sent: four parts at once over a modem get more.
const LEAST_BYTES_PER_SEC: u64 = 1024;

/// Looks at the waits for one connection. What the host's owner holds back does not count.
pub struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Judges once that much waiting has come together.
    pub fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    /// The store took so many bytes after so long a wait.
    ///
    /// # Errors
    /// For people: too few for so much waiting.
    pub fn took(&mut self, bytes: u64, waited: Duration) -> Result<(), String> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return Ok(());
        }
        let (seconds, bytes) = (self.waited.as_secs(), self.bytes);
        *self = Self::new(self.window);
        if bytes < LEAST_BYTES_PER_SEC.saturating_mul(seconds) {
            return Err(format!("the store took only {bytes} bytes in {seconds} s"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_told_from_a_slow_line() {
        let (second, window) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut slow = Pace::new(window);
        assert!((0..600).all(|_| slow.took(2 * LEAST_BYTES_PER_SEC, second).is_ok()));
        let mut trickle = Pace::new(window);
        // What fits into the socket's buffers costs no waiting.
        trickle.took(20_000, Duration::ZERO).unwrap();
        let text = (0..60).find_map(|_| trickle.took(100, second).err()).unwrap();
        assert_eq!(text, "the store took only 23000 bytes in 30 s");
        let mut fast = Pace::new(window);
        assert!((0..1000).all(|_| fast.took(1, Duration::ZERO).is_ok()), "no wait, no judgement");
    }
}
