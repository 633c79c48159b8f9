//! What systemd is told (sd_notify). Without NOTIFY_SOCKET nobody listens, and nothing is said.

use crate::actors::supervisor::InitSystem;
use sd_notify::NotifyState;
use std::time::Duration;

/// A status line is for `systemctl status`; the log has the whole story.
const MAX_STATUS_CHARS: usize = 200;

/// systemd, where it runs us.
#[derive(Debug)]
pub struct Systemd {
    listens: bool,
}

impl Systemd {
    /// Looks whether somebody listens.
    pub fn from_env() -> Self {
        Self { listens: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    /// How long the watchdog waits for a sign of life, where it is on for this process.
    pub fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled().filter(|time| self.listens && !time.is_zero())
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if !self.listens {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            // The next word may arrive; a watchdog that hears none acts by itself.
            tracing::debug!(%error, "the init system cannot be told");
        }
    }
}

impl InitSystem for Systemd {
    fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    fn status(&mut self, line: &str) {
        self.tell(&[NotifyState::Status(&one_line(line))]);
    }

    fn alive(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    }
}

/// The protocol is lines: a peer's words in an error must not become one of their own.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_STATUS_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_peer_never_become_a_line_of_their_own() {
        assert_eq!(one_line("closed (bye\nWATCHDOG=trigger)"), "closed (bye WATCHDOG=trigger)");
        assert_eq!(one_line(&"ä".repeat(500)).chars().count(), MAX_STATUS_CHARS);
    }
}
