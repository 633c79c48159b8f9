//! What a server's message takes in memory once it is decoded, told before it is.
//!
//! Two bytes on the wire can be an empty element of a list, and some 250 bytes in memory: 4 MiB of them
//! would become half a gigabyte. The wire's fields are walked along the lists of the contract, which costs
//! no memory, and what would be too heavy is not decoded.

use super::fields::{Fields, Value};
use super::v1;
use prost::Message as _;
use std::mem::size_of;

/// A decoded message may take so much. Ten thousand jobs with their targets and checks stay below it, and
/// so does a message of [`super::MAX_MESSAGE_BYTES`] that is mostly text.
pub const MAX_DECODED_BYTES: usize = 8 * 1024 * 1024;

/// A list grows by doubling: up to half of it is not used.
const GROWTH: usize = 2;

/// What a field of a message adds.
enum Part {
    /// A message that is there once.
    Once(&'static [(u32, Part)]),
    /// One more element of a list, of that size and with these fields.
    Element(usize, &'static [(u32, Part)]),
    /// One more string of a list.
    Text,
    /// Numbers of a list, packed or not.
    Numbers,
}

const TARGET: &[(u32, Part)] = &[];
const JOB: &[(u32, Part)] = &[(7, Part::Text), (8, Part::Text), (9, Part::Once(&[(2, Part::Numbers)]))];
const CONFIG: &[(u32, Part)] = &[
    (2, Part::Element(size_of::<v1::Target>(), TARGET)),
    (3, Part::Element(size_of::<v1::BackupJobSpec>(), JOB)),
    (4, Part::Element(size_of::<v1::HealthCheckSpec>(), &[])),
];
/// RegisterAck and ConfigUpdate; no other message of a server's has lists.
const ENVELOPE: &[(u32, Part)] =
    &[(50, Part::Once(&[(2, Part::Once(CONFIG))])), (51, Part::Once(&[(1, Part::Once(CONFIG))]))];

/// About what the envelope takes once it is decoded, its text included: rather too much than too little.
pub fn decoded_bytes(envelope: &[u8]) -> usize {
    weigh(envelope, ENVELOPE)
}

/// The same of a configuration that is decoded already.
pub fn held_bytes(config: &v1::AgentConfig) -> usize {
    let job = |job: &v1::BackupJobSpec| {
        let hooks = (job.pre_hooks.capacity() + job.post_hooks.capacity()) * size_of::<String>();
        let numbers = job.retry.as_ref().map_or(0, |retry| retry.backoff_seconds.capacity());
        hooks + numbers * size_of::<u32>()
    };
    config.encoded_len()
        + config.targets.capacity() * size_of::<v1::Target>()
        + config.jobs.capacity() * size_of::<v1::BackupJobSpec>()
        + config.health_checks.capacity() * size_of::<v1::HealthCheckSpec>()
        + config.jobs.iter().map(job).sum::<usize>()
}

fn weigh(message: &[u8], parts: &[(u32, Part)]) -> usize {
    let mut weight = 0_usize;
    for (number, value) in Fields(message) {
        let part = parts.iter().find(|(known, _)| *known == number).map(|(_, part)| part);
        weight = weight.saturating_add(match (part, value) {
            (Some(Part::Once(fields)), Value::Bytes(bytes)) => weigh(bytes, fields),
            (Some(Part::Element(size, fields)), Value::Bytes(bytes)) => GROWTH * size + weigh(bytes, fields),
            (Some(Part::Text), Value::Bytes(bytes)) => GROWTH * size_of::<String>() + bytes.len(),
            (Some(Part::Numbers), Value::Bytes(bytes)) => {
                GROWTH * size_of::<u32>() * bytes.iter().filter(|byte| **byte & 0x80 == 0).count()
            }
            (Some(Part::Numbers), Value::Number(_)) => GROWTH * size_of::<u32>(),
            (_, Value::Bytes(bytes)) => bytes.len(),
            (_, Value::Number(_) | Value::Other) => 0,
        });
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MAX_MESSAGE_BYTES, Payload, encode};

    fn update(config: v1::AgentConfig) -> Payload {
        Payload::ConfigUpdate(v1::ConfigUpdate { config: Some(config) })
    }

    fn jobs(count: usize) -> Vec<v1::BackupJobSpec> {
        let job = |number| v1::BackupJobSpec {
            id: format!("job-{number}"),
            target_id: format!("target-{number}"),
            cron: "0 3 * * *".into(),
            compression: "zstd".into(),
            retry: Some(v1::RetryPolicy { max_attempts: 3, backoff_seconds: vec![60, 300] }),
            ..Default::default()
        };
        (0..count).map(job).collect()
    }

    #[test]
    fn what_a_large_site_has_is_not_too_heavy_nor_is_text() {
        let target = |number| v1::Target {
            id: format!("target-{number}"),
            connection: Some(v1::ConnectionConfig { database: "/srv/x.db".into(), ..Default::default() }),
            ..Default::default()
        };
        let large = v1::AgentConfig {
            jobs: jobs(5_000),
            targets: (0..5_000).map(target).collect(),
            health_checks: vec![v1::HealthCheckSpec::default(); 5_000],
            ..Default::default()
        };
        let weight = decoded_bytes(&encode(1, 2, "c", update(large)).unwrap());
        assert!((2_000_000..MAX_DECODED_BYTES).contains(&weight), "{weight}");
        let text = v1::AgentConfig {
            targets: vec![v1::Target { display_name: "x".repeat(4_000_000), ..Default::default() }],
            ..Default::default()
        };
        let weight = decoded_bytes(&encode(1, 2, "c", update(text)).unwrap());
        assert!((4_000_000..4_100_000).contains(&weight), "{weight}");
    }

    #[test]
    fn lists_of_nothing_are_heavy_wherever_they_stand() {
        let job = |job: v1::BackupJobSpec| v1::AgentConfig { jobs: vec![job], ..Default::default() };
        let many = 100_000;
        let numbers = v1::RetryPolicy { backoff_seconds: vec![0; 40 * many], ..Default::default() };
        let heavy = [
            v1::AgentConfig { targets: vec![v1::Target::default(); many], ..Default::default() },
            v1::AgentConfig { jobs: vec![v1::BackupJobSpec::default(); many], ..Default::default() },
            v1::AgentConfig {
                health_checks: vec![v1::HealthCheckSpec::default(); many],
                ..Default::default()
            },
            job(v1::BackupJobSpec { pre_hooks: vec![String::new(); 2 * many], ..Default::default() }),
            job(v1::BackupJobSpec { post_hooks: vec![String::new(); 2 * many], ..Default::default() }),
            job(v1::BackupJobSpec { retry: Some(numbers), ..Default::default() }),
        ];
        for config in heavy {
            let ack = v1::RegisterAck { config: Some(config.clone()), ..Default::default() };
            for payload in [Payload::RegisterAck(ack), update(config.clone())] {
                let envelope = encode(1, 2, "c", payload).unwrap();
                let weight = decoded_bytes(&envelope);
                let held = held_bytes(&config);
                assert!(held > MAX_DECODED_BYTES / GROWTH, "{held} of {} bytes", envelope.len());
                assert!(
                    weight > MAX_DECODED_BYTES && envelope.len() <= MAX_MESSAGE_BYTES,
                    "{weight} of {} bytes",
                    envelope.len()
                );
            }
        }
    }
}
