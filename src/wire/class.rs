//! Which message is of which delivery class (behaviour section 2): the one place that says so.

use super::Payload;
use super::v1::{JobStatus, JobUpdate};
use crate::model::{DeliveryClass, MessageKind, RunId, Slot};

/// The class of a message that the agent sends. None for a server's message: an agent never sends one.
///
/// The Ack of a `Ping` is ephemeral, every other Ack durable; the payload cannot tell them apart, so
/// this answers durable, and whoever answers a Ping submits it as ephemeral.
pub fn class_of(payload: &Payload) -> Option<DeliveryClass> {
    match payload {
        Payload::Register(_) | Payload::Heartbeat(_) | Payload::UploadUrlsRequest(_) => {
            Some(DeliveryClass::Ephemeral)
        }
        Payload::Discovery(_) => Some(DeliveryClass::Latest(Slot::Discovery)),
        Payload::JobUpdate(update) => Some(class_of_job_update(update)),
        Payload::BackupCompleted(_) | Payload::RestoreUpdate(_) | Payload::Ack(_) => {
            Some(DeliveryClass::Durable(MessageKind::Run))
        }
        Payload::HealthResult(_) => Some(DeliveryClass::Durable(MessageKind::HealthResult)),
        Payload::Log(_) => Some(DeliveryClass::Durable(MessageKind::Log)),
        Payload::RegisterAck(_)
        | Payload::ConfigUpdate(_)
        | Payload::RunBackup(_)
        | Payload::CancelJob(_)
        | Payload::RunHealthCheck(_)
        | Payload::SelfUpdate(_)
        | Payload::Ping(_) => None,
    }
}

/// The run that this message ends: its progress must not be told after it.
pub fn ended_run(payload: &Payload) -> Option<RunId> {
    let run_id = match payload {
        Payload::BackupCompleted(completed) => &completed.run_id,
        Payload::JobUpdate(update) if is_terminal(update.status()) => &update.run_id,
        Payload::JobUpdate(_)
        | Payload::Register(_)
        | Payload::Heartbeat(_)
        | Payload::Discovery(_)
        | Payload::HealthResult(_)
        | Payload::Log(_)
        | Payload::RestoreUpdate(_)
        | Payload::Ack(_)
        | Payload::UploadUrlsRequest(_)
        | Payload::RegisterAck(_)
        | Payload::ConfigUpdate(_)
        | Payload::RunBackup(_)
        | Payload::CancelJob(_)
        | Payload::RunHealthCheck(_)
        | Payload::SelfUpdate(_)
        | Payload::Ping(_) => return None,
    };
    Some(RunId::from(run_id.as_str()))
}

fn class_of_job_update(update: &JobUpdate) -> DeliveryClass {
    match update.status() {
        JobStatus::Running => DeliveryClass::Latest(Slot::Progress(RunId::from(update.run_id.as_str()))),
        // A status that this version does not know is kept rather than lost.
        JobStatus::Unspecified
        | JobStatus::Queued
        | JobStatus::Success
        | JobStatus::Failed
        | JobStatus::Cancelled => DeliveryClass::Durable(MessageKind::Run),
    }
}

fn is_terminal(status: JobStatus) -> bool {
    match status {
        JobStatus::Success | JobStatus::Failed | JobStatus::Cancelled => true,
        JobStatus::Unspecified | JobStatus::Queued | JobStatus::Running => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn job_update(status: JobStatus) -> Payload {
        Payload::JobUpdate(JobUpdate {
            run_id: "run-1".into(),
            status: status.into(),
            ..JobUpdate::default()
        })
    }

    #[test]
    fn progress_has_a_slot_per_run_and_every_other_job_update_is_durable() {
        let slot = DeliveryClass::Latest(Slot::Progress(RunId::from("run-1")));
        assert_eq!(class_of(&job_update(JobStatus::Running)), Some(slot));
        let durable = Some(DeliveryClass::Durable(MessageKind::Run));
        for status in [
            JobStatus::Unspecified,
            JobStatus::Queued,
            JobStatus::Success,
            JobStatus::Failed,
            JobStatus::Cancelled,
        ] {
            assert_eq!(class_of(&job_update(status)), durable, "{status:?}");
        }
    }

    #[test]
    fn results_are_durable_and_signs_of_life_are_not() {
        let kind = |payload| match class_of(&payload) {
            Some(DeliveryClass::Durable(kind)) => Some(kind),
            Some(DeliveryClass::Latest(_) | DeliveryClass::Ephemeral) | None => None,
        };
        assert_eq!(kind(Payload::BackupCompleted(Default::default())), Some(MessageKind::Run));
        assert_eq!(kind(Payload::Ack(Default::default())), Some(MessageKind::Run));
        assert_eq!(kind(Payload::HealthResult(Default::default())), Some(MessageKind::HealthResult));
        assert_eq!(kind(Payload::Log(Default::default())), Some(MessageKind::Log));
        assert_eq!(class_of(&Payload::Heartbeat(Default::default())), Some(DeliveryClass::Ephemeral));
        assert_eq!(
            class_of(&Payload::Discovery(Default::default())),
            Some(DeliveryClass::Latest(Slot::Discovery))
        );
    }

    #[test]
    fn a_server_message_has_no_class() {
        assert_eq!(class_of(&Payload::Ping(v1::Ping::default())), None);
        assert_eq!(class_of(&Payload::RunBackup(v1::RunBackup::default())), None);
    }

    #[test]
    fn only_the_end_of_a_run_ends_it() {
        assert_eq!(ended_run(&job_update(JobStatus::Failed)), Some(RunId::from("run-1")));
        assert_eq!(ended_run(&job_update(JobStatus::Cancelled)), Some(RunId::from("run-1")));
        assert_eq!(ended_run(&job_update(JobStatus::Queued)), None);
        assert_eq!(ended_run(&job_update(JobStatus::Running)), None);
        let completed = v1::BackupCompleted { run_id: "run-2".into(), ..Default::default() };
        assert_eq!(ended_run(&Payload::BackupCompleted(completed)), Some(RunId::from("run-2")));
    }
}
