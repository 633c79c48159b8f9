//! Why an engine did not do what it was asked. The texts are for operators; nothing that was sent is in them.

use std::io;
use std::path::PathBuf;

/// A request's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there.
    #[error(
        "the Docker engine's socket {} is not there: start Docker, or set docker.socket to where it listens (rootless Docker: /run/user/UID/docker.sock)", socket.display()
    )]
    NoSocket {
        /// `docker.socket`
        socket: PathBuf,
    },
    /// It is a socket of nobody, or no socket.
    #[error(
        "nobody listens at the Docker engine's socket {}: start Docker, or set docker.socket to where it listens", socket.display()
    )]
    NoListener {
        /// `docker.socket`
        socket: PathBuf,
    },
    /// The agent may not use it.
    #[error(
        "the agent may not use the Docker engine's socket {}: add its user to the socket's group (SupplementaryGroups=docker in the agent's unit, or `usermod -aG docker backupy-agent`) and restart the agent", socket.display()
    )]
    Forbidden {
        /// `docker.socket`
        socket: PathBuf,
    },
    /// The line to it broke, or never came about.
    #[error("the Docker engine at {} cannot be reached: {cause}", socket.display())]
    Line {
        /// `docker.socket`
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// It said nothing.
    #[error("the Docker engine gave no answer for {seconds} s to: {what}")]
    Silent {
        /// What it was asked.
        what: &'static str,
        /// That long.
        seconds: u64,
    },
    /// It said something that no engine says.
    #[error("the Docker engine's answer to \"{what}\" cannot be used: {problem}")]
    Strange {
        /// What it was asked.
        what: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
    /// It said no.
    #[error("the Docker engine refused to {what} ({status}): {message}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// HTTP's.
        status: u16,
        /// Its own words, bounded.
        message: String,
    },
    /// Too old to be given an environment.
    #[error(
        "the Docker engine's API is {version}, and programs with an environment of their own need 1.25 (Docker 1.13): update Docker"
    )]
    TooOld {
        /// As it said.
        version: String,
    },
}

impl Error {
    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether it is something that the caller could have reached: the engine answers.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
