//! Watching a run, from outside: the control plane says where it stands, the spool and the link say how far.

use super::processes::Process;
use super::stage::{Files, POLL, Plane};
use crate::cli::progress::Progress;
use anyhow::{Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What goes over the link besides an object: heartbeats and progress.
const CHATTER_BYTES: u64 = 128 * 1024;
/// How often the control plane is asked.
const ASK_EVERY: Duration = Duration::from_millis(150);
/// The longest that the demo waits for a run; it takes seconds.
const RUN_WITHIN: Duration = Duration::from_secs(240);

/// What stopped the watching.
pub enum Seen {
    /// The run is over; the run as the control plane shows it.
    Ended(Value),
    /// The upload has come this far.
    Midway {
        /// Of the object.
        uploaded: u64,
        /// The object.
        total: u64,
    },
}

/// Follows a run to its end, or until a part of its object (0 to 1) has gone over the link.
///
/// # Errors
/// When the run fails or takes too long, or a process ends.
pub async fn follow(
    files: &Files,
    plane: &mut Plane,
    agent: &mut Process,
    run_id: &str,
    until_uploaded: Option<f64>,
) -> Result<Seen> {
    let start = Instant::now();
    let mut asked = Instant::now();
    let mut bar = Progress::bytes(None).labelled("dumping");
    let mut uploading = false;
    // What an earlier life of the agent has sent is not sent again.
    let (_, already) = files.waiting_parts();
    loop {
        agent.must_run()?;
        plane.must_run()?;
        let (spooled, sent) = (files.spooled(), plane.link.sent());
        if !uploading && sent > CHATTER_BYTES && spooled > 0 {
            uploading = true;
            bar = Progress::bytes(Some(spooled)).labelled("uploading");
        }
        bar.set(if uploading { (already + sent).min(spooled) } else { spooled });
        if uploading && until_uploaded.is_some_and(|part| sent as f64 >= part * spooled as f64) {
            return Ok(Seen::Midway { uploaded: sent, total: spooled });
        }
        if asked.elapsed() >= ASK_EVERY {
            asked = Instant::now();
            let run = plane.rest.get(&format!("/v1/runs/{run_id}")).await?;
            match run["status"].as_str() {
                Some("SUCCESS") => return Ok(Seen::Ended(run)),
                Some("FAILED" | "CANCELLED") => {
                    bail!("the run ended as {}: {}", run["status"], run["error_message"])
                }
                _ => {}
            }
        }
        if start.elapsed() > RUN_WITHIN {
            bail!(
                "the run is not over after {} s. The end of the agent's log:\n{}",
                RUN_WITHIN.as_secs(),
                agent.tail()
            );
        }
        actix_rt::time::sleep(POLL).await;
    }
}
