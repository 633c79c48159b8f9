//! Health checks, from the wire and to it. A check that cannot be done stays: it fails and says why,
//! which its operator sees, and a line in a log of the agent's host would not.

use super::Payload;
use super::names::{distinct, shown};
use super::v1;
use crate::model::{CheckId, CheckKind, CheckOutcome, HealthCheck};
use std::time::Duration;

/// Where the server gives none (behaviour section 5).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// Where the server gives none (behaviour section 5).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// So many are kept: ten times what one agent was measured with, and a few megabytes of memory. A
/// configuration with more is a mistake, and its rest is left out aloud.
const MAX_CHECKS: usize = 10_000;

/// A longer id would be repeated in every result; none that people make is near it.
const MAX_ID_BYTES: usize = 512;

/// No URL that servers take is longer; a longer one is not kept, and its check fails.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The checks of a configuration, each id once.
pub(super) fn health_checks(specs: Vec<v1::HealthCheckSpec>, remarks: &mut Vec<String>) -> Vec<HealthCheck> {
    let mut distinct = distinct("health check", specs, |spec| &spec.id, remarks);
    distinct.retain(|spec| {
        let fits = spec.id.len() <= MAX_ID_BYTES;
        if !fits {
            let id = shown(&spec.id);
            remarks.push(format!(
                "health check \"{id}...\" has an id of over {MAX_ID_BYTES} bytes and was left out"
            ));
        }
        fits
    });
    if distinct.len() > MAX_CHECKS {
        let all = distinct.len();
        remarks.push(format!("of {all} health checks only the first {MAX_CHECKS} are done"));
        distinct.truncate(MAX_CHECKS);
    }
    distinct.into_iter().map(|spec| health_check(spec, remarks)).collect()
}

fn health_check(spec: v1::HealthCheckSpec, remarks: &mut Vec<String>) -> HealthCheck {
    let id = shown(&spec.id);
    let kind = match v1::CheckType::try_from(spec.r#type) {
        Ok(v1::CheckType::Http) => CheckKind::Http,
        Ok(v1::CheckType::Https) => CheckKind::Https,
        Ok(v1::CheckType::TcpCheck) => CheckKind::Tcp,
        Err(_) => {
            let kind = spec.r#type;
            remarks.push(format!(
                "health check \"{id}\" has type {kind}, which this version does not know: it will fail"
            ));
            CheckKind::Unknown(kind)
        }
    };
    let interval = seconds(spec.interval_sec).unwrap_or(DEFAULT_INTERVAL);
    let asked = seconds(spec.timeout_sec).unwrap_or(DEFAULT_TIMEOUT);
    // A timeout over the interval only means skipped turns; beyond this it would mean a check that
    // hardly ever says anything.
    let timeout = asked.min(interval.max(DEFAULT_TIMEOUT));
    if timeout < asked {
        remarks.push(format!(
            "health check \"{id}\" has a timeout of {} s and an interval of {} s: the timeout is cut to {} s",
            asked.as_secs(),
            interval.as_secs(),
            timeout.as_secs()
        ));
    }
    let mut target = spec.target;
    if target.len() > MAX_TARGET_BYTES {
        target = String::new();
        remarks.push(format!(
            "health check \"{id}\" has a target of over {MAX_TARGET_BYTES} bytes, which is not kept: it will fail"
        ));
    }
    HealthCheck {
        id: CheckId::from(spec.id),
        name: shown(&spec.name),
        kind,
        target: target.into(),
        interval,
        timeout,
        expected_status: spec.expected_status,
    }
}

/// None for 0.
fn seconds(number: u32) -> Option<Duration> {
    (number > 0).then(|| Duration::from_secs(number.into()))
}

/// What a check saw, told to the server. `ts_ms` is when it began.
pub fn health_result(check_id: &CheckId, ts_ms: u64, outcome: &CheckOutcome) -> Payload {
    // Rounded up: 0 would look like "not measured".
    let latency_ms = outcome.latency.as_micros().div_ceil(1_000);
    Payload::HealthResult(v1::HealthCheckResult {
        check_id: check_id.as_str().to_owned(),
        ts_ms,
        ok: outcome.error.is_none(),
        latency_ms: u32::try_from(latency_ms).unwrap_or(u32::MAX),
        error: outcome.error.clone().unwrap_or_default(),
        status_code: outcome.status_code.unwrap_or(0).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: &str) -> v1::HealthCheckSpec {
        v1::HealthCheckSpec { id: id.into(), target: "http://h/".into(), ..Default::default() }
    }

    fn one(spec: v1::HealthCheckSpec) -> (HealthCheck, Vec<String>) {
        let mut remarks = Vec::new();
        let mut checks = health_checks(vec![spec], &mut remarks);
        (checks.pop().unwrap(), remarks)
    }

    fn times(interval_sec: u32, timeout_sec: u32) -> (u64, u64, usize) {
        let (check, remarks) = one(v1::HealthCheckSpec { interval_sec, timeout_sec, ..spec("c") });
        (check.interval.as_secs(), check.timeout.as_secs(), remarks.len())
    }

    #[test]
    fn what_the_server_leaves_out_has_the_contracts_defaults() {
        let (check, remarks) = one(spec("c"));
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
        assert_eq!((check.kind, check.expected_status, remarks.len()), (CheckKind::Http, 0, 0));
    }

    #[test]
    fn a_timeout_may_outlast_a_short_interval_but_not_a_long_one() {
        assert_eq!(times(5, 0), (5, 10, 0));
        assert_eq!(times(1, 5), (1, 5, 0));
        assert_eq!(times(5, 30), (5, 10, 1));
        assert_eq!(times(60, 60), (60, 60, 0));
        assert_eq!(times(60, 61), (60, 60, 1));
    }

    #[test]
    fn a_check_that_cannot_be_done_stays_to_say_so() {
        let (check, remarks) = one(v1::HealthCheckSpec { r#type: 7, ..spec("c") });
        assert_eq!(check.kind, CheckKind::Unknown(7));
        assert!(remarks[0].contains("type 7"), "{remarks:?}");
        let (check, remarks) =
            one(v1::HealthCheckSpec { target: "x".repeat(MAX_TARGET_BYTES + 1), ..spec("c") });
        assert!(check.target.is_empty());
        assert!(remarks[0].contains("8192 bytes"), "{remarks:?}");
    }

    #[test]
    fn ids_are_distinct_and_short_and_not_without_end() {
        let mut remarks = Vec::new();
        let specs = vec![spec("a"), spec(""), spec("a"), spec(&"x".repeat(MAX_ID_BYTES + 1)), spec("b")];
        let checks = health_checks(specs, &mut remarks);
        assert_eq!(checks.iter().map(|check| check.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        let many: Vec<_> = (0..=MAX_CHECKS).map(|number| spec(&number.to_string())).collect();
        remarks.clear();
        assert_eq!(health_checks(many, &mut remarks).len(), MAX_CHECKS);
        assert_eq!(remarks, ["of 10001 health checks only the first 10000 are done"]);
    }

    #[test]
    fn a_target_is_in_no_remark_and_no_debug_text() {
        let mut secret = spec("c");
        secret.target = "http://user:hunter2@host/?token=hunter2".into();
        let (check, remarks) = one(v1::HealthCheckSpec { r#type: 9, timeout_sec: 900, ..secret });
        assert_eq!(remarks.len(), 2);
        assert!(!format!("{check:?} {remarks:?}").contains("hunter2"));
    }

    #[test]
    fn a_result_tells_what_was_seen() {
        let outcome = CheckOutcome {
            error: Some("expected status 200, got 503".into()),
            latency: Duration::from_micros(1_001),
            status_code: Some(503),
            timed_out: false,
        };
        let Payload::HealthResult(told) = health_result(&"c".into(), 7, &outcome) else { panic!() };
        assert_eq!((told.ok, told.latency_ms, told.status_code, told.ts_ms), (false, 2, 503, 7));
        let well = CheckOutcome { latency: Duration::from_nanos(1_500), ..CheckOutcome::default() };
        let Payload::HealthResult(told) = health_result(&"c".into(), 7, &well) else { panic!() };
        assert_eq!((told.ok, told.latency_ms, told.status_code, told.error.as_str()), (true, 1, 0, ""));
    }
}
