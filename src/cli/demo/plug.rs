//! `--pull-the-plug`: the worst moment, made to happen.

use super::follow::{Seen, follow};
use super::processes::Process;
use super::screen::Screen;
use super::stage::{Files, POLL, Plane, agent_command, start_agent};
use anyhow::{Context, Result, bail};
use indicatif::DecimalBytes;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How much of the object is away when the plug is pulled: three parts go up at once, and they are to be whole.
const AWAY: f64 = 0.6;
/// How long the upload of the whole object takes on the slowed link, about: long enough to be seen.
const UPLOAD_S: u64 = 6;
/// How long the link stays cut after the agent is back.
const DARK: Duration = Duration::from_secs(2);
/// How long the new life may take until it tells of its run.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Slows the link, follows the run into its upload, kills the agent and cuts the link; brings the agent back in the
/// dark, and then the link.
///
/// # Errors
/// When the run was over too early, or the agent does not come back with it.
pub async fn pull(
    screen: &mut Screen,
    files: &Files,
    plane: &mut Plane,
    agent: &mut Process,
    run_id: &str,
    database_bytes: u64,
) -> Result<()> {
    // A database of this kind packs to about a third.
    plane.link.slow(Some(database_bytes / 3 / UPLOAD_S));
    let (uploaded, total) = match follow(files, plane, agent, run_id, Some(AWAY)).await? {
        Seen::Midway { uploaded, total } => (uploaded, total),
        Seen::Ended(_) => bail!("the run was over before the plug could be pulled"),
    };
    let pid = agent.pid();
    agent.kill()?;
    plane.link.cut();
    screen.chapter("The plug is pulled");
    screen.line(format_args!(
        "in mid-upload, {} of {} away: kill -9 {pid}, and every connection cut",
        DecimalBytes(uploaded),
        DecimalBytes(total)
    ));
    let run = plane.rest.get(&format!("/v1/runs/{run_id}")).await?;
    screen.line(format_args!(
        "the control plane sees {}; in its store: {} objects, {} whole parts of one",
        word(&run["status"]),
        files.stored_objects().len(),
        files.waiting_parts().0
    ));

    *agent = start_agent(files)?;
    let status = first_status(files, agent).await?;
    screen
        .line(format_args!("the agent is started again, pid {}, while nothing can be reached:", agent.pid()));
    screen.line(format_args!("  `status`: link {}, {}", word(&status["link"]["state"]), runs(&status)));

    actix_rt::time::sleep(DARK).await;
    plane.link.reset();
    plane.link.slow(None);
    plane.link.mend();
    screen.line("the link is whole again");
    screen.chapter("The same run, to its end");
    Ok(())
}

/// What the new life says of itself, once it has found its run, and the run its spool.
async fn first_status(files: &Files, agent: &mut Process) -> Result<Value> {
    let start = Instant::now();
    loop {
        agent.must_run()?;
        let mut command = agent_command(files, "status")?;
        let answer = command.arg("--json").output().context("status")?;
        if let Ok(status) = serde_json::from_slice::<Value>(&answer.stdout)
            && status["runs"][0]["step"] == "uploading"
        {
            return Ok(status);
        }
        if start.elapsed() > BACK_WITHIN {
            bail!(
                "the agent did not go on with its run's upload. `status` says {}{}",
                String::from_utf8_lossy(&answer.stdout),
                String::from_utf8_lossy(&answer.stderr)
            );
        }
        actix_rt::time::sleep(POLL).await;
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn runs(status: &Value) -> String {
    let runs = status["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = runs.iter().map(|run| {
        let step = run["step"].as_str().unwrap_or("waiting for its turn");
        format!("run {} {step}", word(&run["run_id"]))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The proof: one run, one object, one report, whatever happened on the way.
///
/// # Errors
/// When there is more or less than one.
pub async fn one_of_each(screen: &Screen, files: &Files, plane: &Plane) -> Result<()> {
    let runs = plane.rest.get("/v1/runs?limit=100").await?;
    let items = runs["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let succeeded = items.iter().filter(|run| run["status"] == "SUCCESS").count();
    let objects = files.stored_objects().len();
    let agent = plane.agent().await?.context("the agent is known")?;
    let reports = agent["received"]["backup_completed"].as_u64().unwrap_or_default();
    if items.len() != 1 || succeeded != 1 || objects != 1 || reports != 1 {
        bail!(
            "expected one of each, found {} runs ({succeeded} good), {objects} objects and {reports} reports",
            items.len()
        );
    }
    screen.line("one run, one object, one report: nothing started twice, nothing lost");
    screen.line(format_args!(
        "the new life sent {} of the object's {}: parts that were known to be stored were not sent again",
        DecimalBytes(plane.link.sent()),
        DecimalBytes(items.first().and_then(|run| run["size_bytes"].as_u64()).unwrap_or_default())
    ));
    Ok(())
}
