//! What an agent says, taken into the state: in order, each durable message once.

use super::describe;
use super::records::{Heartbeat, Message, Register, RunStatus};
use super::runs;
use super::state::Event;
use super::store::Change;
use crate::model::{DeliveryClass, unix_ms};
use crate::wire::{Envelope, Payload, class_of, v1};
use std::collections::BTreeMap;

/// What is to be done once the messages are on the disk.
#[derive(Debug, Default)]
pub struct Todo {
    /// Runs whose objects are to be verified.
    pub verify: Vec<String>,
    /// The last question of each run for upload URLs.
    pub urls: BTreeMap<String, v1::UploadUrlsRequest>,
    /// A run ended: its upload may be left behind.
    pub ended: bool,
}

/// Takes messages in.
pub fn absorb(change: &mut Change<'_>, agent_id: &str, envelopes: Vec<Envelope>) -> Todo {
    let mut todo = Todo::default();
    for envelope in envelopes {
        let seq = envelope.seq;
        let Some(payload) = &envelope.payload else {
            tracing::debug!(agent_id, seq, "a message of a newer contract was ignored");
            continue;
        };
        let Some((kind, body)) = describe::describe(payload) else {
            tracing::warn!(agent_id, seq, "a message that only a server sends was ignored");
            continue;
        };
        let durable = matches!(class_of(payload), Some(DeliveryClass::Durable(_)));
        if durable && is_known(change, agent_id, seq, payload) {
            tracing::debug!(agent_id, seq, kind, "a message came again");
            change.note(Event::Duplicate { agent_id: agent_id.to_owned() });
            continue;
        }
        let message = Message {
            no: 0,
            kind: kind.to_owned(),
            seq,
            ts_ms: envelope.ts_ms,
            received_at_ms: unix_ms(),
            correlation_id: envelope.correlation_id.clone(),
            body,
        };
        let received = Event::Received { agent_id: agent_id.to_owned(), message };
        if durable {
            change.apply(received)
        } else {
            change.note(received)
        }
        effect(change, agent_id, payload, &mut todo);
    }
    todo
}

/// Whether a durable message was taken before: a result by its run, anything else by its seq (protocol
/// section 4, rule 6). Seq 0 means that the peer does not count.
fn is_known(change: &Change<'_>, agent_id: &str, seq: u64, payload: &Payload) -> bool {
    let state = change.state();
    if let Payload::BackupCompleted(report) = payload
        && let Some(run) = state.runs.get(&report.run_id)
    {
        return run.status.is_terminal() || run.result.is_some();
    }
    seq != 0 && state.agents.get(agent_id).is_some_and(|agent| agent.seen.contains(seq))
}

fn effect(change: &mut Change<'_>, agent_id: &str, payload: &Payload, todo: &mut Todo) {
    match payload {
        Payload::Heartbeat(heartbeat) => {
            let heartbeat = Heartbeat {
                at_ms: unix_ms(),
                config_version: heartbeat.config_version,
                active_job_ids: heartbeat.active_job_ids.clone(),
                metrics: heartbeat.metrics.as_ref().map(describe::metrics),
            };
            change.note(Event::HeartbeatCame { agent_id: agent_id.to_owned(), heartbeat });
        }
        Payload::Discovery(report) => {
            let discovered = describe::discovered(report);
            change.apply(Event::Discovered { agent_id: agent_id.to_owned(), discovered });
        }
        Payload::JobUpdate(update) => {
            todo.ended |= edit_run(change, agent_id, &update.run_id, |run| runs::updated(run, update));
        }
        Payload::BackupCompleted(report) => {
            let mut new = false;
            todo.ended |=
                edit_run(change, agent_id, &report.run_id, |run| new = runs::completed(run, report));
            if new {
                todo.verify.push(report.run_id.clone());
            }
        }
        Payload::Ack(ack) => {
            todo.ended |= edit_run(change, agent_id, &ack.correlation_id, |run| runs::acked(run, ack));
        }
        Payload::UploadUrlsRequest(request) => {
            todo.urls.insert(request.run_id.clone(), request.clone());
        }
        Payload::Register(_) => tracing::warn!(agent_id, "a second Register on one connection was ignored"),
        Payload::HealthResult(_) | Payload::Log(_) | Payload::RestoreUpdate(_) => {}
        Payload::RegisterAck(_)
        | Payload::ConfigUpdate(_)
        | Payload::RunBackup(_)
        | Payload::CancelJob(_)
        | Payload::RunHealthCheck(_)
        | Payload::SelfUpdate(_)
        | Payload::Ping(_) => {}
    }
}

/// Changes a run of this agent's; whether that ended it. Progress inside of RUNNING is not worth a write.
fn edit_run(
    change: &mut Change<'_>,
    agent_id: &str,
    run_id: &str,
    edit: impl FnOnce(&mut super::records::Run),
) -> bool {
    let Some(before) = change.state().runs.get(run_id).filter(|run| run.agent_id == agent_id) else {
        return false;
    };
    let mut run = before.clone();
    edit(&mut run);
    let ended = run.status.is_terminal() && !before.status.is_terminal();
    let was_running = before.status == RunStatus::Running && before.result == run.result;
    let only_progress = was_running && run.status == RunStatus::Running;
    let unchanged = run == *before;
    let event = Event::RunChanged { run: Box::new(run) };
    if only_progress || unchanged {
        change.note(event)
    } else {
        change.apply(event)
    }
    ended
}

/// Takes a registration in. Where the agent knows a higher version of its configuration than there is
/// here (this control plane was set back to an older backup), the configuration is numbered above it:
/// the agent would ignore it otherwise.
pub fn register(change: &mut Change<'_>, agent_id: &str, envelope: &Envelope, register: &v1::Register) {
    let Some(agent) = change.state().agents.get(agent_id) else { return };
    let known = register.last_known_config_version;
    let overtaken =
        (agent.config_version > 0 && known > agent.config_version).then(|| (known + 1, agent.config.clone()));
    // An agent's seqs go on across its restarts; one that starts over has lost its state.
    let started_over = envelope.seq != 0 && envelope.seq <= agent.seen.highest();
    if started_over {
        tracing::warn!(
            agent_id,
            seq = envelope.seq,
            "the agent counts from the start again: it lost its state"
        );
    }
    if let Some((version, config)) = overtaken {
        tracing::warn!(agent_id, known, version, "the agent knew a higher configuration version");
        let agent_id = agent_id.to_owned();
        change.apply(Event::ConfigChanged { agent_id, version, config, file_sha256: None });
    }
    change.apply(Event::Registered {
        agent_id: agent_id.to_owned(),
        started_over,
        register: Register {
            at_ms: unix_ms(),
            agent_version: register.agent_version.clone(),
            hostname: register.hostname.clone(),
            os: register.os.clone(),
            arch: register.arch.clone(),
            docker_version: register.docker_version.clone(),
            capabilities: register.capabilities.clone(),
            last_known_config_version: known,
        },
    });
    if let Some((kind, body)) = describe::describe(&Payload::Register(register.clone())) {
        let message = Message {
            no: 0,
            kind: kind.to_owned(),
            seq: envelope.seq,
            ts_ms: envelope.ts_ms,
            received_at_ms: unix_ms(),
            correlation_id: envelope.correlation_id.clone(),
            body,
        };
        change.note(Event::Received { agent_id: agent_id.to_owned(), message });
    }
}
