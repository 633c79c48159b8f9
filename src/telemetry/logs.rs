//! The log: where it goes, how it looks, and a level that can change while the agent runs.

use super::journal::is_journal;
use super::writer::Outlet;
use crate::settings::{Log, LogFormat, LogLevel};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// Lines of this crate follow the level; other crates only warn, whatever it is: at their debug level
/// some of them print requests with their headers.
const OURS: &str = "backupy_agent";

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be started: {0}")]
pub struct LogError(String);

/// Changes the level of the running log: SIGHUP, `AdvancedSettings.log_level`.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
}

impl LogControl {
    /// From now on this level holds.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and then nothing logs any more.
        let _ = self.filter.reload(targets(level));
    }
}

/// Starts the log of this process, and sends panics to it.
///
/// # Errors
/// When the process has a log already.
pub fn init_logs(log: Log) -> Result<LogControl, LogError> {
    let stderr = std::io::stderr();
    let journal = is_journal(std::env::var_os("JOURNAL_STREAM").as_deref(), &stderr);
    let format = resolve(log.format, journal, stderr.is_terminal());
    let mut problem = None;
    let layer = match format {
        LogFormat::Journald => {
            tracing_journald::layer().map(|layer| journald(layer).boxed()).unwrap_or_else(|error| {
                problem = Some(error);
                lines(stderr, LogFormat::Text, false)
            })
        }
        LogFormat::Auto | LogFormat::Text | LogFormat::Json => {
            let colour =
                stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines(stderr, format, colour)
        }
    };
    let (filter, handle) = reload::Layer::new(targets(log.level));
    tracing_subscriber::registry()
        .with(filter.and_then(layer))
        .try_init()
        .map_err(|error| LogError(error.to_string()))?;
    log_panics();
    if let Some(error) = problem {
        tracing::warn!(%error, "the journal cannot be reached: logging to standard error");
    }
    Ok(LogControl { filter: handle })
}

fn resolve(format: LogFormat, journal: bool, terminal: bool) -> LogFormat {
    match format {
        LogFormat::Auto if journal => LogFormat::Journald,
        LogFormat::Auto if terminal => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        LogFormat::Journald | LogFormat::Text | LogFormat::Json => format,
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(OURS, level)
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// INFO is the journal's `info`, not its `notice`.
fn journald(layer: tracing_journald::Layer) -> tracing_journald::Layer {
    use tracing_journald::{Priority, PriorityMappings};
    layer.with_syslog_identifier(env!("CARGO_PKG_NAME").to_owned()).with_priority_mappings(PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    })
}

fn lines<W: Write + AsFd + Send + 'static>(target: W, format: LogFormat, colour: bool) -> Boxed {
    let json = format == LogFormat::Json;
    let layer = fmt::layer().with_writer(Outlet::new(target, json)).with_ansi(colour && !json);
    // Its own complaints would go to standard error by a way that panics when that is closed.
    let layer = layer.log_internal_errors(false);
    if json { layer.json().flatten_event(true).boxed() } else { layer.with_target(false).boxed() }
}

/// A panic is a line of the log like others. The Supervisor replaces the actor that panicked.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.payload().downcast_ref::<String>().cloned());
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        tracing::error!(
            message = message.as_deref().unwrap_or("without a message"),
            place = place.as_deref().unwrap_or("unknown"),
            thread = std::thread::current().name().unwrap_or("unnamed"),
            "a part of the agent panicked: please report it"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Read};
    use tracing::{debug, info, warn};

    /// The lines that `events` leaves, at a level that can be changed.
    fn logged(format: LogFormat, events: impl FnOnce(&LogControl)) -> Vec<String> {
        let (mut reader, writer) = io::pipe().unwrap();
        let (filter, handle) = reload::Layer::new(targets(LogLevel::Info));
        let subscriber = tracing_subscriber::registry().with(filter.and_then(lines(writer, format, false)));
        tracing::subscriber::with_default(subscriber, || events(&LogControl { filter: handle }));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_beside_the_message() {
        let lines = logged(LogFormat::Json, |_| info!(run_id = "r-1", bytes = 5_u64, "upload done"));
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["message"], &line["run_id"]), (&"upload done".into(), &"r-1".into()));
        assert_eq!((&line["bytes"], &line["level"]), (&5.into(), &"INFO".into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn no_secret_gets_through_at_any_level_or_format() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, |control| {
                control.set_level(LogLevel::Trace);
                info!(url = "https://s3/k?X-Amz-Signature=abcdef", "PUT https://s3/k?X-Amz-Signature=abcdef");
                tracing::trace!(key = "bkpy_live_0123456789");
            });
            let text = lines.join("\n");
            assert_eq!(lines.len(), 2);
            assert!(!text.contains("abcdef") && !text.contains("0123456789"), "{text}");
        }
    }

    #[test]
    fn the_level_can_change_and_other_crates_only_warn() {
        let lines = logged(LogFormat::Text, |control| {
            debug!("one");
            control.set_level(LogLevel::Debug);
            debug!("two");
            debug!(target: "awc::client", "authorization: secret");
            warn!(target: "awc::client", "three");
            control.set_level(LogLevel::Error);
            warn!("four");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("two") && lines[1].ends_with("three"));
    }

    #[test]
    fn auto_is_the_journal_under_systemd_text_on_a_terminal_and_json_elsewhere() {
        for (journal, terminal, expected) in [
            (true, false, LogFormat::Journald),
            (true, true, LogFormat::Journald),
            (false, true, LogFormat::Text),
            (false, false, LogFormat::Json),
        ] {
            assert_eq!(resolve(LogFormat::Auto, journal, terminal), expected);
        }
        assert_eq!(resolve(LogFormat::Text, true, false), LogFormat::Text);
    }
}
