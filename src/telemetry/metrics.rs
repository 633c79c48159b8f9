//! The Prometheus exporter on loopback. It costs nothing while nobody asks: no thread, no timer that
//! matters.

use crate::settings::Metrics;
use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge, set_global_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Runs that ended, by `job_id` and `status`.
pub const RUNS_TOTAL: &str = "backupy_agent_runs_total";

/// How long runs took.
pub const RUN_DURATION_SECONDS: &str = "backupy_agent_run_duration_seconds";

/// How large objects were.
pub const RUN_SIZE_BYTES: &str = "backupy_agent_run_size_bytes";

/// How long looks of health checks took.
pub const HEALTH_CHECK_DURATION_SECONDS: &str = "backupy_agent_health_check_duration_seconds";

const BUILD_INFO: &str = "backupy_agent_build_info";
const START_TIME: &str = "process_start_time_seconds";

/// The exporter tidies up its histograms so often where no scrape does it: some hundred samples
/// gather in that time, and an idle agent is woken once an hour.
const UPKEEP: Duration = Duration::from_secs(3600);

/// From a second to half a day.
const DURATION_BUCKETS: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0];

/// From a quick answer on loopback to the longest timeouts.
const CHECK_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// From 1 MiB to 1 TiB.
const SIZE_BUCKETS: [f64; 11] = [
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
    4294967296.0,
    17179869184.0,
    68719476736.0,
    274877906944.0,
    1099511627776.0,
];

/// Starts the exporter on the current tokio runtime. `describe` are the hooks by which the actors tell
/// what their metrics mean. Gives the address; None where metrics are off, or where the exporter could
/// not start: that is a warning in the log, and the agent goes on without.
pub fn start_metrics(settings: &Metrics, describe: &[fn()]) -> Option<SocketAddr> {
    let listen = settings.listen?;
    match try_start(listen) {
        Ok(()) => {
            describe_own();
            describe.iter().for_each(|hook| hook());
            info!(%listen, "metrics are served");
            Some(listen)
        }
        Err(error) => {
            warn!(%listen, %error, "no metrics: the exporter cannot start; metrics.listen can name another address");
            None
        }
    }
}

fn try_start(listen: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    // Without one the exporter would panic.
    tokio::runtime::Handle::try_current()?;
    // Tried first: where it fails, the exporter would leave its upkeep running.
    drop(TcpListener::bind(listen)?);
    let (recorder, exporter) = PrometheusBuilder::new()
        .with_http_listener(listen)
        .upkeep_timeout(UPKEEP)
        .set_buckets_for_metric(Matcher::Full(RUN_DURATION_SECONDS.to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(RUN_SIZE_BYTES.to_owned()), &SIZE_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(HEALTH_CHECK_DURATION_SECONDS.to_owned()), &CHECK_BUCKETS)?
        .build()?;
    set_global_recorder(recorder)?;
    tokio::spawn(async move {
        if exporter.await.is_err() {
            warn!("the metrics exporter ended");
        }
    });
    Ok(())
}

/// What no actor owns.
#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit into 52 bits")]
fn describe_own() {
    describe_counter!(RUNS_TOTAL, "Runs that ended, by job and status");
    describe_histogram!(RUN_DURATION_SECONDS, Unit::Seconds, "How long runs took");
    describe_histogram!(RUN_SIZE_BYTES, Unit::Bytes, "Size of uploaded objects");
    describe_gauge!(BUILD_INFO, "1, with the version and commit of the running binary");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "commit" => env!("BACKUPY_COMMIT")).set(1.0);
    describe_gauge!(START_TIME, Unit::Seconds, "When the agent started, unix time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(START_TIME).set(now.as_secs() as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn scrape(address: SocketAddr) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    // The recorder is global: one test for everything that needs it.
    #[tokio::test]
    async fn the_exporter_serves_on_loopback_and_a_port_in_use_is_no_error() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let in_use = Metrics { listen: Some(taken.local_addr().unwrap()) };
        assert_eq!(start_metrics(&in_use, &[]), None);
        assert_eq!(start_metrics(&Metrics { listen: None }, &[]), None);

        let free = in_use.listen.unwrap();
        drop(taken);
        fn hook() {
            describe_gauge!("backupy_agent_test", "from a hook");
            gauge!("backupy_agent_test").set(7.0);
        }
        assert_eq!(start_metrics(&in_use, &[hook]), Some(free));
        ::metrics::histogram!(RUN_DURATION_SECONDS).record(2.0);
        let text = scrape(free).await;
        let build = format!("backupy_agent_build_info{{version=\"{}\",commit=\"", env!("CARGO_PKG_VERSION"));
        for expected in [
            build.as_str(),
            "process_start_time_seconds ",
            "# HELP backupy_agent_test from a hook",
            "backupy_agent_test 7",
            "backupy_agent_run_duration_seconds_bucket{le=\"5\"} 1",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
