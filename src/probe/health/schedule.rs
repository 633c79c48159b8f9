//! Whose turn it is: a pure function of time. It never has two turns of one check at once, makes up
//! for none that was missed, and lets only so many be under way together.
//!
//! ```text
//! due ──▶ waiting (two lines) ──▶ going ──▶ idle ──▶ due again, on the check's own grid
//!  └── still waiting or going: skipped
//! ```

use crate::model::{CheckId, HealthCheck};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Turns under way at once: each is a socket, and a process has 1,024 descriptors where nobody raised
/// the limit. A thousand checks every ten seconds need it only when targets take over two seconds.
pub const MAX_AT_ONCE: usize = 256;

/// Of these, so many for checks whose last turn had no answer in time: however many targets hang, the
/// others find a place.
pub const MAX_TARDY_AT_ONCE: usize = 192;

/// The first turn comes at a random moment of the interval, but not later than this: who adds a check
/// with a long interval wants to see that it works.
pub const MAX_START_DELAY: Duration = Duration::from_secs(60);

/// A check of the schedule; never given twice, so a late word of a check that was replaced is known.
pub type Key = u64;

/// A turn that begins now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which check.
    pub key: Key,
    /// What to do.
    pub check: Arc<HealthCheck>,
}

/// What became of the wish to run a check now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunNow {
    /// No such check.
    Unknown,
    /// It waits or is going already: that turn's result serves.
    UnderWay,
    /// It is next; the turns that begin now.
    Next(Vec<Turn>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Going,
}

#[derive(Debug)]
struct Entry {
    check: Arc<HealthCheck>,
    due: Duration,
    state: State,
    /// Whether the last turn had no answer in time; it does not change while a turn is going.
    tardy: bool,
}

/// The checks and their times, counted from any fixed moment.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: HashMap<Key, Entry>,
    by_id: HashMap<CheckId, Key>,
    due: BTreeSet<(Duration, Key)>,
    /// Who waits for a place, each with a number that says since when.
    prompt: VecDeque<(u64, Key)>,
    tardy: VecDeque<(u64, Key)>,
    going: usize,
    tardy_going: usize,
    /// The last number given out, for keys and for places in the lines.
    number: u64,
    skipped: u64,
}

impl Schedule {
    /// Takes these checks instead of the ones before. One that looks alike keeps its times and its
    /// turn; any other starts at a random moment (`unit`: at least 0, under 1). The keys of the turns
    /// that have lost their check, to be ended.
    pub fn replace(
        &mut self,
        checks: &[HealthCheck],
        now: Duration,
        mut unit: impl FnMut() -> f64,
    ) -> Vec<Key> {
        let mut before = std::mem::take(&mut self.by_id);
        let mut kept = HashSet::with_capacity(checks.len());
        for check in checks {
            let key = before.remove(&check.id).filter(|key| self.keep(*key, check));
            let key = key.unwrap_or_else(|| self.add(check, now, unit()));
            if let Some(double) = self.by_id.insert(check.id.clone(), key) {
                kept.remove(&double);
            }
            kept.insert(key);
        }
        let gone: Vec<Key> = self.entries.keys().filter(|key| !kept.contains(key)).copied().collect();
        let ended = gone.into_iter().filter(|key| self.remove(*key)).collect();
        self.prompt.retain(|(_, key)| kept.contains(key));
        self.tardy.retain(|(_, key)| kept.contains(key));
        ended
    }

    /// Whether the check goes on as it is, under a name that may be new.
    fn keep(&mut self, key: Key, check: &HealthCheck) -> bool {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.check.looks_alike(check)) else {
            return false;
        };
        if *entry.check != *check {
            entry.check = Arc::new(check.clone());
        }
        true
    }

    fn add(&mut self, check: &HealthCheck, now: Duration, unit: f64) -> Key {
        let key = self.next_number();
        let due = now + check.interval.min(MAX_START_DELAY).mul_f64(unit.clamp(0.0, 1.0));
        let entry = Entry { check: Arc::new(check.clone()), due, state: State::Idle, tardy: false };
        self.due.insert((due, key));
        self.entries.insert(key, entry);
        key
    }

    /// Whether it had a turn.
    fn remove(&mut self, key: Key) -> bool {
        let Some(entry) = self.entries.remove(&key) else { return false };
        self.due.remove(&(entry.due, key));
        let going = entry.state == State::Going;
        if going {
            self.leave(entry.tardy);
        }
        going
    }

    fn leave(&mut self, tardy: bool) {
        self.going -= 1;
        self.tardy_going -= usize::from(tardy);
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The turns that begin at this time.
    pub fn advance(&mut self, now: Duration) -> Vec<Turn> {
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.due = after(at, entry.check.interval, now);
            self.due.insert((entry.due, key));
            match entry.state {
                State::Idle => self.wait(key, false),
                State::Waiting | State::Going => self.skipped += 1,
            }
        }
        self.begin()
    }

    /// Puts a check into its line; `first` before all others.
    fn wait(&mut self, key: Key, first: bool) {
        let number = self.next_number();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = State::Waiting;
        let line = if entry.tardy { &mut self.tardy } else { &mut self.prompt };
        if first { line.push_front((0, key)) } else { line.push_back((number, key)) }
    }

    /// Gives free places to those who wait, the longest wait first.
    fn begin(&mut self) -> Vec<Turn> {
        let mut turns = Vec::new();
        while self.going < MAX_AT_ONCE {
            let tardy = self.tardy.front().filter(|_| self.tardy_going < MAX_TARDY_AT_ONCE);
            let line = match (self.prompt.front(), tardy) {
                (None, None) => break,
                (Some(prompt), Some(tardy)) if tardy < prompt => &mut self.tardy,
                (Some(_), _) => &mut self.prompt,
                (None, Some(_)) => &mut self.tardy,
            };
            let Some(entry) = line.pop_front().and_then(|(_, key)| Some((key, self.entries.get_mut(&key)?)))
            else {
                continue;
            };
            let (key, entry) = entry;
            entry.state = State::Going;
            self.going += 1;
            self.tardy_going += usize::from(entry.tardy);
            turns.push(Turn { key, check: Arc::clone(&entry.check) });
        }
        turns
    }

    /// A turn is over; `timed_out` where it had no answer in time. None where its check is gone, else
    /// the turns that begin in its place.
    pub fn ended(&mut self, key: Key, timed_out: bool) -> Option<Vec<Turn>> {
        let entry = self.entries.get_mut(&key).filter(|entry| entry.state == State::Going)?;
        entry.state = State::Idle;
        let was_tardy = std::mem::replace(&mut entry.tardy, timed_out);
        self.leave(was_tardy);
        Some(self.begin())
    }

    /// Runs a check now, before all who wait. Its times stay as they are.
    pub fn run_now(&mut self, id: &CheckId) -> RunNow {
        let Some(&key) = self.by_id.get(id) else { return RunNow::Unknown };
        match self.entries.get(&key).map(|entry| entry.state) {
            None => RunNow::Unknown,
            Some(State::Waiting | State::Going) => RunNow::UnderWay,
            Some(State::Idle) => {
                self.wait(key, true);
                RunNow::Next(self.begin())
            }
        }
    }

    /// When to look again; None where there is no check.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many checks there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The check of that name.
    pub fn check(&self, id: &CheckId) -> Option<&Arc<HealthCheck>> {
        self.by_id.get(id).and_then(|key| self.entries.get(key)).map(|entry| &entry.check)
    }

    /// Turns that were skipped since the last question, because the one before was not over.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }
}

/// The first time of the check's grid that lies after `now`: what was missed, by a suspended host or a
/// stalled thread, is not made up for.
fn after(at: Duration, interval: Duration, now: Duration) -> Duration {
    // Nothing makes a schedule with an interval under a second; a shorter one must not stop the agent.
    let interval = interval.max(Duration::from_millis(1));
    let missed = now.saturating_sub(at).as_millis() / interval.as_millis();
    let steps = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
    at.saturating_add(interval.saturating_mul(steps)).max(now.saturating_add(Duration::from_millis(1)))
}
