//! Everything that the control plane remembers, as a fold over its events: the journal holds the events,
//! so what a restart reads is what was there, by construction.

use super::agent_config::AgentConfig;
use super::records::{Agent, Heartbeat, Message, Register, Run};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Newest messages kept of each kind and agent: enough to look at, bounded in memory and in the snapshot.
pub const MESSAGES_PER_KIND: usize = 1000;

/// Newest results kept of each health check: a thousand checks of an agent share no list, so that each
/// has its last hours to show, within some 20 MB.
const RESULTS_PER_CHECK: usize = 100;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// By id.
    pub agents: BTreeMap<String, Agent>,
    /// By id.
    pub runs: BTreeMap<String, Run>,
    /// Order of creation of the next agent or run.
    pub next_no: u64,
}

/// A change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An agent that was not there, or one with a new key.
    AgentNamed {
        /// Of the agent.
        agent_id: String,
        /// Unique.
        name: String,
        /// Of its key.
        key_sha256: String,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// A new version of an agent's configuration.
    ConfigChanged {
        /// Of the agent.
        agent_id: String,
        /// Higher than the one before.
        version: u64,
        /// The whole.
        config: AgentConfig,
        /// Where the file said so.
        file_sha256: Option<String>,
    },
    /// An agent connected.
    Registered {
        /// Of the agent.
        agent_id: String,
        /// It counts from the start again: it has lost its state.
        started_over: bool,
        /// What it said.
        register: Register,
    },
    /// A message, for people to look at and for repetitions to be recognised by.
    Received {
        /// Of the agent.
        agent_id: String,
        /// As it came.
        message: Message,
    },
    /// A sign of life.
    HeartbeatCame {
        /// Of the agent.
        agent_id: String,
        /// What it said.
        heartbeat: Heartbeat,
    },
    /// What runs in containers there.
    Discovered {
        /// Of the agent.
        agent_id: String,
        /// What it said.
        discovered: Value,
    },
    /// A message that was there already.
    Duplicate {
        /// Of the agent.
        agent_id: String,
    },
    /// A run, new or changed: the whole.
    RunChanged {
        /// As it is now.
        run: Box<Run>,
    },
}

impl State {
    /// Takes a change in. Changes of agents that are not there are ignored.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::AgentNamed { agent_id, name, key_sha256, at_ms } => {
                let no = self.next_no;
                let agent = self.agents.entry(agent_id.clone()).or_insert_with(|| Agent {
                    id: agent_id,
                    no,
                    created_at_ms: at_ms,
                    ..Agent::default()
                });
                agent.name = name;
                agent.key_sha256 = key_sha256;
                self.next_no = self.next_no.max(agent.no + 1);
            }
            Event::ConfigChanged { agent_id, version, config, file_sha256 } => {
                self.with_agent(&agent_id, |agent| {
                    agent.config_version = version;
                    agent.config = config;
                    agent.forget_former_checks();
                    if file_sha256.is_some() {
                        agent.file_config_sha256 = file_sha256;
                    }
                });
            }
            Event::Registered { agent_id, started_over, register } => self.with_agent(&agent_id, |agent| {
                if started_over {
                    agent.seen = Default::default();
                }
                agent.register = Some(register);
            }),
            Event::Received { agent_id, message } => {
                self.with_agent(&agent_id, |agent| agent.remember(message));
            }
            Event::HeartbeatCame { agent_id, heartbeat } => {
                self.with_agent(&agent_id, |agent| agent.heartbeat = Some(heartbeat));
            }
            Event::Discovered { agent_id, discovered } => {
                self.with_agent(&agent_id, |agent| agent.discovered = Some(discovered));
            }
            Event::Duplicate { agent_id } => self.with_agent(&agent_id, |agent| agent.duplicates += 1),
            Event::RunChanged { run } => {
                self.next_no = self.next_no.max(run.no + 1);
                self.runs.insert(run.id.clone(), *run);
            }
        }
    }

    fn with_agent(&mut self, id: &str, change: impl FnOnce(&mut Agent)) {
        if let Some(agent) = self.agents.get_mut(id) {
            change(agent);
        }
    }

    /// The agent of that name.
    pub fn agent_named(&self, name: &str) -> Option<&Agent> {
        self.agents.values().find(|agent| agent.name == name)
    }

    /// Runs of an agent that are not over, in order of creation.
    pub fn open_runs(&self, agent_id: &str) -> Vec<&Run> {
        let mut open: Vec<_> =
            self.runs.values().filter(|run| run.agent_id == agent_id && !run.status.is_terminal()).collect();
        open.sort_by_key(|run| run.no);
        open
    }
}

impl Agent {
    fn remember(&mut self, mut message: Message) {
        message.no = self.next_message_no;
        self.next_message_no += 1;
        self.seen.insert(message.seq);
        *self.received.entry(message.kind.clone()).or_default() += 1;
        self.remember_result(&message);
        let kept = self.messages.entry(message.kind.clone()).or_default();
        kept.push_back(message);
        if kept.len() > MESSAGES_PER_KIND {
            kept.pop_front();
        }
    }

    /// Keeps a health check's result beside the others of that check. One of a check that is gone is
    /// only a message.
    fn remember_result(&mut self, message: &Message) {
        let Some(check) = message.body["check_id"].as_str().filter(|_| message.kind == HEALTH_RESULT) else {
            return;
        };
        if !self.config.health_checks.iter().any(|known| known.id == check) {
            return;
        }
        let kept = self.check_results.entry(check.to_owned()).or_default();
        kept.push_back(message.clone());
        if kept.len() > RESULTS_PER_CHECK {
            kept.pop_front();
        }
    }

    fn forget_former_checks(&mut self) {
        let checks = &self.config.health_checks;
        self.check_results.retain(|id, _| checks.iter().any(|check| check.id == *id));
    }
}

/// The kind of a health check's result among the messages.
const HEALTH_RESULT: &str = "health_result";

#[cfg(test)]
mod tests {
    use super::super::agent_config::HealthCheck;
    use super::*;
    use serde_json::json;

    fn named(state: &mut State, id: &str) {
        state.apply(Event::AgentNamed {
            agent_id: id.into(),
            name: format!("{id}-name"),
            key_sha256: "00".into(),
            at_ms: 1,
        });
    }

    fn received(id: &str, seq: u64) -> Event {
        let message = Message {
            no: 0,
            kind: "log".into(),
            seq,
            ts_ms: 1,
            received_at_ms: 2,
            correlation_id: String::new(),
            body: json!({}),
        };
        Event::Received { agent_id: id.into(), message }
    }

    #[test]
    fn the_newest_messages_are_kept_and_all_are_counted() {
        let mut state = State::default();
        named(&mut state, "a");
        let many = MESSAGES_PER_KIND as u64 + 5;
        (1..=many).for_each(|seq| state.apply(received("a", seq)));
        let agent = &state.agents["a"];
        assert_eq!(agent.received["log"], many);
        assert_eq!(agent.messages["log"].len(), MESSAGES_PER_KIND);
        assert_eq!(agent.messages["log"].back().unwrap().seq, many);
        assert!(agent.seen.contains(1));
    }

    #[test]
    fn each_check_keeps_its_newest_results_for_as_long_as_it_is_configured() {
        let mut state = State::default();
        named(&mut state, "a");
        let configured = |ids: &[&str], version| {
            let check = |id: &&str| HealthCheck { id: (*id).into(), ..HealthCheck::default() };
            let config =
                AgentConfig { health_checks: ids.iter().map(check).collect(), ..AgentConfig::default() };
            Event::ConfigChanged { agent_id: "a".into(), version, config, file_sha256: None }
        };
        let result = |check: &str, seq| {
            let Event::Received { agent_id, message } = received("a", seq) else { panic!() };
            let message = Message { kind: HEALTH_RESULT.into(), body: json!({"check_id": check}), ..message };
            Event::Received { agent_id, message }
        };
        state.apply(configured(&["rare", "busy"], 1));
        state.apply(result("rare", 1));
        (2..=2_000).for_each(|seq| state.apply(result("busy", seq)));
        state.apply(result("unknown", 2_001));
        let kept = |state: &State| -> Vec<(String, usize, u64)> {
            let results = &state.agents["a"].check_results;
            results.iter().map(|(id, of)| (id.clone(), of.len(), of.back().unwrap().seq)).collect()
        };
        assert_eq!(kept(&state), [("busy".into(), RESULTS_PER_CHECK, 2_000), ("rare".into(), 1, 1)]);
        state.apply(configured(&["rare"], 2));
        assert_eq!(kept(&state), [("rare".into(), 1, 1)]);
    }

    #[test]
    fn an_agent_that_counts_from_the_start_again_is_heard_again() {
        let mut state = State::default();
        named(&mut state, "a");
        state.apply(received("a", 7));
        let over = |started_over| Event::Registered {
            agent_id: "a".into(),
            started_over,
            register: Register::default(),
        };
        state.apply(over(false));
        assert!(state.agents["a"].seen.contains(7));
        state.apply(over(true));
        assert!(!state.agents["a"].seen.contains(7));
    }

    #[test]
    fn numbers_of_creation_never_repeat() {
        let mut state = State::default();
        named(&mut state, "a");
        let run = Run { id: "r".into(), no: state.next_no, agent_id: "a".into(), ..Run::default() };
        state.apply(Event::RunChanged { run: Box::new(run) });
        named(&mut state, "b");
        named(&mut state, "a");
        assert_eq!((state.agents["a"].no, state.runs["r"].no, state.agents["b"].no), (0, 1, 2));
        assert_eq!(state.open_runs("a").len(), 1);
        assert_eq!(state.open_runs("b").len(), 0);
    }
}
