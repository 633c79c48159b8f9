//! What happened during a run, beyond its result: told to the server as LogEvents.

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLevel {
    /// Worth knowing.
    Info,
    /// The run goes on, and somebody should look.
    Warn,
}

/// One thing that happened. Free of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// When, unix milliseconds.
    pub ts_ms: u64,
    /// How bad it is.
    pub level: EventLevel,
    /// One line for people.
    pub message: String,
    /// Figures and texts that belong to it.
    pub fields: Vec<(&'static str, String)>,
}
