//! `status`: what the running agent does, and what is kept where none runs.

use super::table::{Table, ago, bytes};
use super::{CliError, CliResult, SettingsArgs, print, print_json};
use crate::actors::messages::ChildName;
use crate::daemon::client::{AskError, ask};
use crate::daemon::control::Request;
use crate::model::{AgentStatus, ChildStatus, FailingCheck, HealthStatus, SysExit, unix_ms};
use std::time::Duration;

/// The agent answers within 1.5 s or says that it cannot.
const LIMIT: Duration = Duration::from_secs(3);

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Box<SettingsArgs>,
}

/// Prints the status of the running agent.
///
/// # Errors
/// 69 when none runs or it does not answer, 77 when this user may not ask.
pub fn run(args: Args) -> CliResult {
    let state_dir = args.settings.state_dir()?;
    let status: AgentStatus = ask(&state_dir, Request::Status, LIMIT)?;
    if args.json {
        return print_json(&status);
    }
    print(table(&status, unix_ms()).to_string())
}

impl From<AskError> for CliError {
    fn from(error: AskError) -> Self {
        let exit = match &error {
            AskError::NotRunning(_) | AskError::Timeout { .. } | AskError::Refused(_) => SysExit::Unavailable,
            AskError::NotAllowed(_) => SysExit::NoPermission,
            AskError::Broken(..) => SysExit::Io,
        };
        Self::new(exit, error)
    }
}

fn table(status: &AgentStatus, now_ms: u64) -> Table {
    let AgentStatus {
        version,
        pid,
        started_at_ms,
        server_url,
        link,
        config_version,
        queue,
        store,
        runs,
        health,
        children,
    } = status;
    let mut table = Table::default();
    table.row("agent", format!("{version}, pid {pid}, started {}", ago(*started_at_ms, now_ms)));
    table.row("control plane", server_url);
    table.row("link", format!("{}, {}", link.state.name(), ago(link.since_ms, now_ms)));
    if let Some(round_trip) = link.round_trip_ms {
        table.row("round trip", format!("{round_trip:.1} ms"));
    }
    table.row("session", if link.session_id.is_empty() { "none yet" } else { &link.session_id });
    table.row("reconnects", link.reconnects.to_string());
    if let Some(error) = &link.last_error {
        table.row("last error", error);
    }
    if let Some(at_ms) = link.superseded_ms {
        table.row(
            "probable clone",
            format!("another agent with the same key took this one's place {}", ago(at_ms, now_ms)),
        );
    }
    table.row(
        "config version",
        if *config_version == 0 { "none yet".into() } else { config_version.to_string() },
    );
    table.row(
        "queue",
        format!(
            "{} messages, {}, {} in flight, {} evicted, {} refused",
            queue.depth,
            bytes(queue.bytes),
            queue.in_flight,
            queue.evicted,
            queue.refused
        ),
    );
    table.row("state file", format!("{}, {} commits", bytes(store.file_bytes), store.commits));
    if store.quarantined > 0 {
        table.row(
            "quarantine",
            format!(
                "{} records since the start, damaged or refused by the control plane: see `state inspect`",
                store.quarantined
            ),
        );
    }
    if let Some(error) = &store.write_error {
        table.row("writing fails", error);
    }
    if let Some(reason) = &store.low_space {
        table.row("new work refused", reason);
    }
    table.row("runs", if runs.is_empty() { "none".into() } else { runs.len().to_string() });
    for run in runs {
        let step = run.step.map_or_else(
            || "waiting".to_owned(),
            |step| format!("{} {} %", step.name(), run.progress_percent),
        );
        table.row("", format!("{} of job {}: {step}, {}", run.run_id, run.job_id, ago(run.since_ms, now_ms)));
    }
    health_rows(&mut table, health, now_ms);
    for child in children.iter().filter(|child| is_worth_telling(child)) {
        let alive = if child.alive { "answers" } else { "does not answer" };
        table.row(
            "restarted",
            format!(
                "{}: {alive}; {} panics, {} errors, {} freezes",
                child.name, child.panics, child.errors, child.freezes
            ),
        );
    }
    table
}

fn health_rows(table: &mut Table, health: &HealthStatus, now_ms: u64) {
    let HealthStatus { checks, failing, lost, failures } = health;
    match (*checks, *failing) {
        (0, 0) => {}
        (checks, 0) => table.row("health checks", format!("{checks}, all well the last time")),
        (checks, failing) => table.row("health checks", format!("{checks}, {failing} failing")),
    }
    for FailingCheck { check_id, name, since_ms, error } in failures {
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        table.row("", format!("{check_id}{name}: {error}, {}", ago(*since_ms, now_ms)));
    }
    if *lost > 0 {
        table.row("results lost", format!("{lost} of health checks, which could not be stored"));
    }
}

/// A connection that ends is an error of the link, told above, and no restart to worry about.
fn is_worth_telling(child: &ChildStatus) -> bool {
    let errors = if child.name == ChildName::Connection.name() { 0 } else { child.errors };
    !child.alive || child.panics + errors + child.freezes > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LinkState, LinkStatus, QueueStatus, RunStatus, Step, StoreStatus};

    #[test]
    fn the_table_says_what_an_operator_wants_to_know() {
        let status = AgentStatus {
            version: "1.2.3".into(),
            pid: 42,
            started_at_ms: 0,
            server_url: "https://plane".into(),
            link: LinkStatus {
                state: LinkState::Established,
                since_ms: 3_540_000,
                session_id: "s-1".into(),
                reconnects: 2,
                last_error: Some("closed by the control plane".into()),
                round_trip_ms: Some(12.34),
                ..LinkStatus::default()
            },
            config_version: 7,
            queue: QueueStatus { depth: 5, refused: 2, ..QueueStatus::default() },
            store: StoreStatus { quarantined: 3, ..StoreStatus::default() },
            runs: vec![RunStatus {
                run_id: "r-1".into(),
                job_id: "j-1".into(),
                step: Some(Step::Uploading),
                progress_percent: 55,
                since_ms: 3_590_000,
            }],
            children: vec![
                ChildStatus { name: "queue".into(), alive: true, panics: 1, errors: 0, freezes: 0 },
                ChildStatus { name: "connection".into(), alive: true, panics: 0, errors: 9, freezes: 0 },
            ],
            ..AgentStatus::default()
        };
        let text = table(&status, 3_600_000).to_string();
        for expected in [
            "agent           1.2.3, pid 42, started 1 h ago\n",
            "link            established, 1 min ago\n",
            "session         s-1\n",
            "config version  7\n",
            "0 in flight, 0 evicted, 2 refused\n",
            "quarantine      3 records since the start",
            "                r-1 of job j-1: uploading 55 %, 10 s ago\n",
            "restarted       queue: answers; 1 panics",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains("9 errors"), "{text}");
    }
}
