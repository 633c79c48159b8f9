//! The object's way to the store: one PUT of the spool, or parts, tried again until the URLs expire.
//!
//! | file | what lives there |
//! |---|---|
//! | `place` | a presigned URL, taken apart |
//! | `http` | one request over a connection of its own |
//! | `answer`, `retry` | what an answer means; when to try again |
//! | `fresh` | URLs that have expired are replaced |
//! | `put` | the object by one PUT |
//! | [`parts`] | the object in parts, while it is made or from the spool |
//!
//! No error here carries a URL's query: it is the authorisation. Host and path are all that is told.

mod answer;
mod error;
mod fresh;
mod http;
pub mod parts;
mod place;
mod put;
mod retry;
mod sum;
#[cfg(test)]
mod tests;

pub use error::UploadError;
pub use http::{Broken, Connect};
pub use put::Put;

use super::rate::Rate;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How objects go up.
#[derive(Clone)]
pub struct Options {
    /// `server.allow_insecure`: clear-text URLs may be used.
    pub allow_insecure: bool,
    /// `server.ca_file`: trusted beside the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// How patient.
    pub timing: Timing,
    /// `backup.max_upload_bytes_per_sec`: all runs together.
    pub rate: Rate,
    /// Connects to a store: `server.proxy` and `server.no_proxy` are this one's business.
    pub connect: Arc<Connect>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("allow_insecure", &self.allow_insecure)
            .field("ca_file", &self.ca_file)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// Connects without any proxy.
pub fn direct() -> Arc<Connect> {
    Arc::new(|host, port| {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await;
            stream.map_err(|error| Broken::Passing(error.to_string()))
        })
    })
}

/// How patient an upload is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// DNS and TCP together, and TLS.
    pub connect: Duration,
    /// A try during which the store takes nothing for so long, or next to nothing, has failed.
    pub stall: Duration,
    /// The store's answer once it has everything; large objects have more, because they are hashed and copied before
    /// it comes.
    pub answer: Duration,
    /// The store's word that it put the parts together. S3's own may take minutes for it.
    pub together: Duration,
    /// The store's word before the body. Not every store knows the question, so silence is a yes.
    pub go_ahead: Duration,
    /// The first wait between two tries; each is twice the one before.
    pub first_wait: Duration,
    /// The longest.
    pub longest_wait: Duration,
    /// The server's answer to a question for fresh URLs, before it is asked again.
    pub fresh_urls: Duration,
    /// A link to the server, so that it can be asked; and the answer of a server that is known to give some.
    pub offline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            together: Duration::from_secs(300),
            go_ahead: Duration::from_millis(1_500),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            fresh_urls: Duration::from_secs(10),
            offline: Duration::from_secs(15 * 60),
        }
    }
}
