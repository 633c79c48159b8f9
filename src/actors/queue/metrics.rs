//! The queue's numbers for the exporter.

use crate::model::MessageKind;
use metrics::{counter, describe_counter, describe_gauge, gauge};

const PENDING: &str = "backupy_agent_dispatch_pending";
const PENDING_BYTES: &str = "backupy_agent_dispatch_pending_bytes";
const CONFIRMED: &str = "backupy_agent_dispatch_confirmed_total";
const REFUSED: &str = "backupy_agent_dispatch_refused_total";
const EVICTED: &str = "backupy_agent_dispatch_evicted_total";

/// Says what the metrics of this actor mean, and shows those that count from zero.
pub fn describe() {
    describe_gauge!(PENDING, "Durable messages on disk that the control plane has not confirmed");
    describe_gauge!(PENDING_BYTES, metrics::Unit::Bytes, "Their size");
    describe_counter!(CONFIRMED, "Durable messages that the control plane has taken");
    describe_counter!(
        REFUSED,
        "Durable messages that the control plane refused for good, kept in the quarantine"
    );
    describe_counter!(EVICTED, "Messages dropped because the queue was full");
    counter!(CONFIRMED).absolute(0);
    counter!(REFUSED).absolute(0);
    for kind in [MessageKind::Log, MessageKind::HealthResult] {
        counter!(EVICTED, "kind" => name(kind)).absolute(0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point; 2^53 messages are far")]
pub(super) fn pending(messages: u64, bytes: u64) {
    gauge!(PENDING).set(messages as f64);
    gauge!(PENDING_BYTES).set(bytes as f64);
}

pub(super) fn confirmed(messages: u64) {
    counter!(CONFIRMED).increment(messages);
}

pub(super) fn refused(messages: u64) {
    counter!(REFUSED).increment(messages);
}

pub(super) fn evicted(kind: MessageKind) {
    counter!(EVICTED, "kind" => name(kind)).increment(1);
}

fn name(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Run => "run",
        MessageKind::HealthResult => "health_result",
        MessageKind::Log => "log",
    }
}
