//! How long to wait before the next dial (behaviour section 2): a pure function of what happened.

use super::frame::close_code;
use super::{DialError, LinkDown};
use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_secs(1);
/// No delay of the ordinary ladder is longer, jitter apart.
const CAP: Duration = Duration::from_secs(60);
/// Each delay is moved by up to a fifth, so that agents do not march in step.
const JITTER: f64 = 0.2;
/// A refused key is not going to work in a second. Somebody must act first.
const REFUSED_KEY_FIRST: Duration = Duration::from_secs(60);
/// But the agent finds out by itself when somebody has.
const REFUSED_KEY_CAP: Duration = Duration::from_secs(15 * 60);
/// Where another agent uses the same key, each dial throws the other one off: whoever comes back at
/// once makes both useless. The twins give way ever longer, until somebody acts.
const SUPERSEDED_FIRST: Duration = Duration::from_secs(60);
/// And not longer, for when the other one is gone.
const SUPERSEDED_CAP: Duration = Duration::from_secs(15 * 60);
/// A link that lasted longer than a twin waits at most, jitter included, has no twin any more.
const TWIN_GONE_AFTER: Duration = Duration::from_secs(20 * 60);
/// A server can ask for this much patience.
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(10 * 60);
/// After a server's restart its agents come back spread over this.
const RESTART_SPREAD: Duration = Duration::from_secs(30);
/// A connection of this age has proved itself, whatever its heartbeat interval.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Whether a connection has earned that the delays start over: registered, and a heartbeat interval
/// or 10 s old, whichever is shorter.
pub fn proven(established_for: Duration, heartbeat_interval: Duration) -> bool {
    established_for >= heartbeat_interval.min(PROVEN_AFTER)
}

/// The delays of one agent. They grow until [`Backoff::lasted`] starts them over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    refusals: u32,
    supersessions: u32,
}

impl Backoff {
    /// A connection was established for so long. Starts over where that is [`proven`]; but a twin proves
    /// every one of its connections, so how often they threw each other off is kept for longer.
    pub fn lasted(&mut self, established_for: Duration, heartbeat_interval: Duration) {
        if proven(established_for, heartbeat_interval) {
            self.failures = 0;
            self.refusals = 0;
        }
        if established_for >= TWIN_GONE_AFTER {
            self.supersessions = 0;
        }
    }

    /// Whether another agent with the same key threw this one off, and is not known to be gone.
    pub fn has_twin(&self) -> bool {
        self.supersessions > 0
    }

    /// The delay after this end of a connection. `unit` is random, at least 0 and under 1; what lies
    /// outside is moved in.
    pub fn next_delay(&mut self, down: &LinkDown, unit: f64) -> Duration {
        let unit = if unit.is_finite() { unit.clamp(0.0, 1.0) } else { 0.5 };
        if down.is_superseded() {
            return self.superseded(unit);
        }
        match down {
            LinkDown::Dial(DialError::Unauthorized { .. }) => self.refused(unit),
            LinkDown::Dial(DialError::Status { retry_after: Some(asked), .. }) => {
                self.climb(unit).max((*asked).min(RETRY_AFTER_CAP))
            }
            LinkDown::ClosedByPeer { code: Some(close_code::RESTART | close_code::TRY_LATER), .. }
                if self.failures == 0 =>
            {
                self.failures = 1;
                self.refusals = 0;
                RESTART_SPREAD.mul_f64(unit)
            }
            LinkDown::Dial(
                DialError::Status { retry_after: None, .. }
                | DialError::Timeout { .. }
                | DialError::Resolve { .. }
                | DialError::Connect { .. }
                | DialError::Proxy { .. }
                | DialError::Tls { .. }
                | DialError::Handshake { .. },
            )
            | LinkDown::ClosedByPeer { .. }
            | LinkDown::Hangup
            | LinkDown::RegisterTimeout(_)
            | LinkDown::NotRegisterAck(_)
            | LinkDown::Undecodable(_)
            | LinkDown::TooLarge { .. }
            | LinkDown::Protocol(_)
            | LinkDown::Idle(_)
            | LinkDown::BarrierTimeout(_)
            | LinkDown::AckTimeout(_)
            | LinkDown::TooHeavy { .. }
            | LinkDown::WriteTimeout(_)
            | LinkDown::Broken(_)
            | LinkDown::NeighbourGone(_) => self.climb(unit),
        }
    }

    fn climb(&mut self, unit: f64) -> Duration {
        self.refusals = 0;
        let delay = doubled(FIRST, self.failures, CAP);
        self.failures = self.failures.saturating_add(1);
        jittered(delay, unit)
    }

    fn refused(&mut self, unit: f64) -> Duration {
        let delay = doubled(REFUSED_KEY_FIRST, self.refusals, REFUSED_KEY_CAP);
        self.refusals = self.refusals.saturating_add(1);
        jittered(delay, unit)
    }

    fn superseded(&mut self, unit: f64) -> Duration {
        let delay = doubled(SUPERSEDED_FIRST, self.supersessions, SUPERSEDED_CAP);
        self.supersessions = self.supersessions.saturating_add(1);
        jittered(delay, unit)
    }
}

fn doubled(first: Duration, times: u32, cap: Duration) -> Duration {
    2_u32.checked_pow(times).and_then(|factor| first.checked_mul(factor)).map_or(cap, |delay| delay.min(cap))
}

/// `unit` 0 is a fifth less, 1 a fifth more.
fn jittered(delay: Duration, unit: f64) -> Duration {
    delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The middle of the jitter.
    const MIDDLE: f64 = 0.5;

    fn broken() -> LinkDown {
        LinkDown::Broken("reset".into())
    }

    fn status(status: u16, retry_after_s: Option<u64>) -> LinkDown {
        let retry_after = retry_after_s.map(Duration::from_secs);
        DialError::Status { host: "h".into(), status, retry_after }.into()
    }

    fn refused() -> LinkDown {
        DialError::Unauthorized { host: "h".into(), status: 401 }.into()
    }

    fn closed(code: u16) -> LinkDown {
        LinkDown::ClosedByPeer { code: Some(code), reason: None }
    }

    fn seconds(backoff: &mut Backoff, down: &LinkDown) -> f64 {
        (backoff.next_delay(down, MIDDLE).as_secs_f64() * 1000.0).round() / 1000.0
    }

    #[test]
    fn delays_double_from_one_second_to_a_minute_and_start_over_on_proof() {
        let mut backoff = Backoff::default();
        let delays: Vec<f64> = (0..8).map(|_| seconds(&mut backoff, &broken())).collect();
        assert_eq!(delays, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        backoff.lasted(PROVEN_AFTER, Duration::from_secs(30));
        assert_eq!(seconds(&mut backoff, &broken()), 1.0);
    }

    #[test]
    fn jitter_is_a_fifth_either_way() {
        assert_eq!(Backoff::default().next_delay(&broken(), 0.0), Duration::from_millis(800));
        assert_eq!(Backoff::default().next_delay(&broken(), 1.0), Duration::from_millis(1200));
    }

    #[test]
    fn a_connection_proves_itself_by_one_interval_or_ten_seconds() {
        let (second, half_minute) = (Duration::from_secs(1), Duration::from_secs(30));
        assert!(!proven(Duration::from_millis(999), second));
        assert!(proven(second, second));
        assert!(!proven(Duration::from_millis(9_999), half_minute));
        assert!(proven(Duration::from_secs(10), half_minute));
    }

    #[test]
    fn retry_after_is_obeyed_when_longer_and_capped() {
        assert_eq!(seconds(&mut Backoff::default(), &status(503, Some(45))), 45.0);
        assert_eq!(seconds(&mut Backoff::default(), &status(429, Some(0))), 1.0);
        assert_eq!(seconds(&mut Backoff::default(), &status(429, Some(86_400))), 600.0);
        assert_eq!(seconds(&mut Backoff::default(), &status(503, None)), 1.0);
        let mut late = Backoff { failures: 9, ..Backoff::default() };
        assert_eq!(seconds(&mut late, &status(503, Some(5))), 60.0);
    }

    #[test]
    fn a_refused_key_is_tried_every_minute_rising_to_a_quarter_of_an_hour() {
        let mut backoff = Backoff::default();
        let delays: Vec<f64> = (0..6).map(|_| seconds(&mut backoff, &refused())).collect();
        assert_eq!(delays, [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]);
        // The key was put right, another fault shows: the ordinary ladder.
        assert_eq!(seconds(&mut backoff, &broken()), 1.0);
        assert_eq!(seconds(&mut backoff, &refused()), 60.0);
    }

    #[test]
    fn a_restarting_server_gets_its_agents_back_over_half_a_minute() {
        for code in [1012, 1013] {
            let delay = |unit| Backoff::default().next_delay(&closed(code), unit);
            assert_eq!(delay(0.0), Duration::ZERO);
            assert_eq!(delay(0.1), Duration::from_secs(3));
            assert!(delay(0.999) < RESTART_SPREAD);
        }
        let mut backoff = Backoff::default();
        backoff.next_delay(&closed(1012), MIDDLE);
        assert_eq!(seconds(&mut backoff, &closed(1012)), 2.0, "only the first delay is drawn so");
        assert_eq!(seconds(&mut Backoff::default(), &closed(1001)), 1.0);
    }

    #[test]
    fn twins_give_way_ever_longer_although_each_of_their_links_proves_itself() {
        let superseded = LinkDown::ClosedByPeer {
            code: Some(1008),
            reason: Some("superseded by another connection".into()),
        };
        let mut backoff = Backoff::default();
        let interval = Duration::from_secs(30);
        let delays: Vec<f64> = (0..6)
            .map(|_| {
                backoff.lasted(Duration::from_secs(60), interval);
                seconds(&mut backoff, &superseded)
            })
            .collect();
        assert_eq!(delays, [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]);
        // Another end of a proven link is not the twin's doing, and does not make it go.
        backoff.lasted(Duration::from_secs(60), interval);
        assert_eq!(seconds(&mut backoff, &broken()), 1.0);
        assert!(backoff.has_twin());
        // The longest that a twin waits is not enough to say that it is gone.
        assert!(SUPERSEDED_CAP.mul_f64(1.0 + JITTER) < TWIN_GONE_AFTER);
        backoff.lasted(TWIN_GONE_AFTER, interval);
        assert!(!backoff.has_twin());
        assert_eq!(seconds(&mut backoff, &superseded), 60.0);
    }
}
