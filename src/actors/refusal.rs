//! A command's no.

use crate::model::{CheckId, JobId, RunId};

/// Why a command is refused: `Ack.reason`, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The configuration has no such job.
    #[error("unknown job_id \"{0}\"")]
    UnknownJob(JobId),
    /// No run of that job is waiting or going on.
    #[error("no run of job \"{0}\" is waiting or going on")]
    NothingToCancel(JobId),
    /// The configuration has no such check.
    #[error("unknown check_id \"{0}\"")]
    UnknownCheck(CheckId),
    /// The run is known under another job.
    #[error("run \"{0}\" is known as a run of another job")]
    RunOfAnotherJob(RunId),
    /// It could not be made durable.
    #[error("could not be stored: {0}")]
    NotStored(String),
    /// The run is over, and known; only its result was not told once more.
    #[error("the run is over, and its result could not be sent again: {0}")]
    ResultNotSent(String),
    /// Nobody can say what is known: the Runner is being replaced, or the agent ends. The run may be known, or be taken
    /// on later.
    #[error("{0}")]
    NobodyThere(&'static str),
    /// Anything else, with its reason.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// Whether a run that was ordered is told as FAILED where the server wants no Ack: not where it is known, or may be,
    /// since that would deny what it is known as.
    pub fn fails_run(&self) -> bool {
        match self {
            Self::UnknownJob(_) | Self::NotStored(_) | Self::Other(_) => true,
            Self::RunOfAnotherJob(_) | Self::ResultNotSent(_) | Self::NobodyThere(_) => false,
            Self::NothingToCancel(_) | Self::UnknownCheck(_) => false,
        }
    }
}
