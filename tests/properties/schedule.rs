//! Whose turn it is, under any sequence of events.

use backupy_agent::model::{CheckKind, HealthCheck};
use backupy_agent::probe::health::schedule::{Key, MAX_AT_ONCE, MAX_TARDY_AT_ONCE, RunNow, Schedule, Turn};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

#[derive(Debug, Clone)]
enum Event {
    /// These checks: number and interval in seconds.
    Replace(Vec<(u16, u64)>),
    /// So many milliseconds pass.
    Pass(u64),
    /// To the next due time.
    Next,
    /// The n-th turn under way ends.
    End(usize, bool),
    RunNow(u16),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => prop::collection::vec((0..400_u16, 1..20_u64), 0..400).prop_map(Event::Replace),
        4 => (0..30_000_u64).prop_map(Event::Pass),
        8 => Just(Event::Next),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(n, late)| Event::End(n, late)),
        2 => (0..400_u16).prop_map(Event::RunNow),
    ]
}

fn check(number: u16, interval_s: u64) -> HealthCheck {
    HealthCheck {
        id: number.to_string().into(),
        name: String::new(),
        kind: CheckKind::Tcp,
        target: "h:1".into(),
        interval: Duration::from_secs(interval_s),
        timeout: Duration::from_secs(10),
        expected_status: 0,
    }
}

#[derive(Default)]
struct World {
    schedule: Schedule,
    now: Duration,
    going: Vec<Turn>,
    /// Checks whose last turn was late.
    late: HashSet<Key>,
    /// When a check had its last turn by its times alone.
    last: HashMap<Key, Duration>,
}

impl World {
    fn begun(&mut self, turns: Vec<Turn>) {
        for turn in turns {
            let doubled = self.going.iter().any(|going| going.check.id == turn.check.id);
            assert!(!doubled, "two turns of {} at once", turn.check.id);
            self.going.push(turn);
        }
        let late = self.going.iter().filter(|turn| self.late.contains(&turn.key)).count();
        assert!(self.going.len() <= MAX_AT_ONCE && late <= MAX_TARDY_AT_ONCE);
    }

    fn advance(&mut self) {
        let turns = self.schedule.advance(self.now);
        for turn in &turns {
            self.last.insert(turn.key, self.now);
        }
        self.begun(turns);
        let next = self.schedule.next_due();
        assert_eq!(next.is_none(), self.schedule.is_empty());
        assert!(next.is_none_or(|next| next > self.now), "what is due is left lying");
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Replace(checks) => {
                let mut seen = HashSet::new();
                let checks: Vec<_> = checks
                    .into_iter()
                    .filter(|(number, _)| seen.insert(*number))
                    .map(|(number, interval_s)| check(number, interval_s))
                    .collect();
                let ended = self.schedule.replace(&checks, self.now, || 0.3);
                self.going.retain(|turn| !ended.contains(&turn.key));
                assert!(self.going.iter().all(|turn| checks.contains(&turn.check)));
                assert_eq!(self.schedule.len(), checks.len());
                self.advance();
            }
            Event::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                self.advance();
            }
            Event::Next => {
                self.now = self.schedule.next_due().unwrap_or(self.now);
                self.advance();
            }
            Event::End(n, late) if !self.going.is_empty() => {
                let turn = self.going.swap_remove(n % self.going.len());
                if late {
                    self.late.insert(turn.key)
                } else {
                    self.late.remove(&turn.key)
                };
                let turns = self.schedule.ended(turn.key, late).expect("its check is there");
                assert_eq!(self.schedule.ended(turn.key, late), None, "it ended twice");
                self.begun(turns);
            }
            Event::End(..) => {}
            Event::RunNow(number) => {
                let id = number.to_string().into();
                match self.schedule.run_now(&id) {
                    RunNow::Unknown => assert!(self.schedule.check(&id).is_none()),
                    RunNow::UnderWay => assert!(self.schedule.check(&id).is_some()),
                    RunNow::Next(turns) => self.begun(turns),
                }
            }
        }
    }
}

proptest! {
    // Each case is hundreds of checks and minutes of their time.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_check_meets_itself_and_the_bounds_hold(events in prop::collection::vec(events(), 0..200)) {
        let mut world = World::default();
        for event in events {
            world.take(event);
        }
        // Whatever happened, everybody who waits gets a turn once the others end.
        for _ in 0..2_000 {
            if world.going.is_empty() {
                break;
            }
            world.take(Event::End(0, false));
        }
        prop_assert!(world.going.is_empty());
        // And every check comes up within its interval and the wait for a start.
        let begin = world.now;
        let mut missing: HashSet<Key> = HashSet::new();
        world.last.clear();
        while world.now < begin + Duration::from_secs(80) && !world.schedule.is_empty() {
            world.take(Event::Next);
            missing.extend(world.going.iter().map(|turn| turn.key));
            while !world.going.is_empty() {
                world.take(Event::End(0, false));
            }
        }
        prop_assert_eq!(missing.len(), world.schedule.len());
    }
}
