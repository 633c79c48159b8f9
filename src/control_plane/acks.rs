//! End-to-end acks (protocol section 5): what an agent that agreed on them is told after the commit.

use crate::model::DeliveryClass;
use crate::wire::{Envelope, class_of, v1};

/// The acks of these messages, to be sent once they are on disk: one for each that the agent keeps until
/// then, the ones that came again included. Seq 0 means that the peer does not count, and cannot be told.
pub fn of(envelopes: &[Envelope]) -> Vec<v1::Ack> {
    envelopes.iter().filter(|envelope| envelope.seq != 0).filter_map(of_one).collect()
}

fn of_one(envelope: &Envelope) -> Option<v1::Ack> {
    let correlation_id = envelope.seq.to_string();
    let Some(payload) = &envelope.payload else {
        // Whether it is durable only a newer version knows. The agent keeps what is refused.
        let reason = "this control plane does not know such a message".to_owned();
        return Some(v1::Ack { correlation_id, accepted: false, reason });
    };
    match class_of(payload)? {
        DeliveryClass::Durable(_) => Some(v1::Ack { correlation_id, accepted: true, reason: String::new() }),
        DeliveryClass::Latest(_) | DeliveryClass::Ephemeral => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Payload;

    #[test]
    fn what_the_agent_keeps_is_acknowledged_by_its_seq_and_nothing_else_is() {
        let envelope = |seq, payload| Envelope { seq, payload, ..Default::default() };
        let log = || Some(Payload::Log(v1::LogEvent::default()));
        let envelopes = [
            envelope(7, log()),
            envelope(8, Some(Payload::Heartbeat(v1::Heartbeat::default()))),
            envelope(9, Some(Payload::Discovery(v1::DiscoveryReport::default()))),
            envelope(10, Some(Payload::Ack(v1::Ack { correlation_id: "cmd".into(), ..Default::default() }))),
            envelope(0, log()),
            envelope(11, None),
            envelope(7, log()),
        ];
        let acks: Vec<_> = of(&envelopes).into_iter().map(|ack| (ack.correlation_id, ack.accepted)).collect();
        let expected = [("7", true), ("10", true), ("11", false), ("7", true)];
        assert_eq!(acks, expected.map(|(id, accepted)| (id.to_owned(), accepted)));
    }
}
