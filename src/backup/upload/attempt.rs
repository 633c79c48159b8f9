//! One try.

use super::super::cancel::Cancel;
use super::super::error::RunError;
use super::super::pack::Packed;
use super::super::progress::Progress;
use super::super::spool::Spool;
use super::body::{Body, Flow};
use super::{Put, UploadError, answer};
use actix_http::body::SizedStream;
use awc::error::SendRequestError;
use awc::http::header;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep_until;

/// Whether a try asks the store's word before it sends the body (RFC 9110, 10.1.1).
///
/// A store that refuses at once and closes makes a large PUT end in a broken pipe, which hides the
/// refusal. So the try after a cut one asks first; a store that does not answer that is not asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Send.
    None,
    /// Ask first.
    Ask,
    /// Asked in vain: never ask again.
    Unanswered,
}

impl Expectation {
    /// What the next try does, after this one suggested that.
    pub fn after(self, suggested: Self) -> Self {
        if self == Self::Unanswered { self } else { suggested }
    }
}

/// How a try ended.
pub enum Tried {
    /// The store has the object, and as far as it tells, the right one.
    Stored,
    /// Another try would end the same.
    Final(UploadError),
    /// The store has something else.
    Mismatch(String),
    /// Another try may succeed.
    Again {
        /// For people.
        why: String,
        /// What the store asked.
        retry_after: Option<Duration>,
        /// What the next try should do.
        expect: Expectation,
    },
}

/// One PUT.
pub struct Attempt<'a> {
    pub put: &'a Put,
    pub spool: &'a Arc<Spool>,
    pub packed: &'a Packed,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
    pub expectation: Expectation,
}

impl Attempt<'_> {
    /// Sends everything and judges the answer.
    pub async fn run(&self) -> Result<Tried, RunError> {
        let size = self.packed.size_bytes;
        let flow = Flow::new(size);
        let body =
            Body::new(self.spool.reader()?, Rc::clone(&flow), self.progress.clone(), self.put.rate.clone());
        // Client and URL live as long as the try: neither is kept where a panic or a log could find it.
        let client = self.put.client.fresh();
        let mut request = client
            .put(self.put.url.expose())
            .no_decompress()
            .insert_header((header::CONTENT_TYPE, "application/octet-stream"));
        if self.expectation == Expectation::Ask {
            request = request.insert_header((header::EXPECT, "100-continue"));
        }
        let sent = request.send_body(SizedStream::new(size, body));
        tokio::select! {
            answered = sent => match answered {
                Ok(response) => answer::judge(response, self).await,
                Err(error) => Ok(self.broken(&error, &flow)),
            },
            (why, expect) = self.stalled(&flow) => {
                Ok(Tried::Again { why, retry_after: None, expect })
            }
        }
    }

    /// Ends when the store takes nothing any more.
    async fn stalled(&self, flow: &Flow) -> (String, Expectation) {
        let timing = &self.put.timing;
        loop {
            let asking = self.expectation == Expectation::Ask && !flow.begun();
            let limit = match (asking, flow.complete()) {
                (true, _) => timing.go_ahead,
                (false, true) => timing.answer,
                (false, false) => timing.stall,
            };
            let until = flow.moved_at() + limit;
            if tokio::time::Instant::now() < until {
                sleep_until(until).await;
                continue;
            }
            let seconds = limit.as_secs_f32();
            return match (asking, flow.complete()) {
                (true, _) => (
                    format!("the store gave no answer to a request without its body for {seconds} s"),
                    Expectation::Unanswered,
                ),
                (false, true) => (
                    format!("the store took everything and gave no answer for {seconds} s"),
                    Expectation::None,
                ),
                (false, false) => (format!("the store took nothing for {seconds} s"), Expectation::None),
            };
        }
    }

    /// A try that ended without an answer.
    fn broken(&self, error: &SendRequestError, flow: &Flow) -> Tried {
        // The library's error names hosts and system calls, never the URL; one that it could quote is not shown.
        let why = match error {
            SendRequestError::Url(_) => {
                return Tried::Final(UploadError::BadUrl { reason: "the HTTP client does not take it" });
            }
            SendRequestError::Http(_) => "the request could not be made".to_owned(),
            SendRequestError::Body(cause) => format!("the spool could not be read: {cause}"),
            SendRequestError::Response(_) => "the store's answer was not HTTP".to_owned(),
            SendRequestError::Connect(cause) => format!("no connection: {cause}"),
            SendRequestError::Send(cause) => format!("the connection broke: {cause}"),
            SendRequestError::Timeout => "the connection took too long".to_owned(),
            // HTTP/2 and tunnels, which are not used, and what a later version may add.
            SendRequestError::H2(_)
            | SendRequestError::TunnelNotSupported
            | SendRequestError::Custom(..)
            | _ => "the connection broke".to_owned(),
        };
        let cut = flow.begun();
        let expect = if cut { Expectation::Ask } else { Expectation::None };
        Tried::Again { why, retry_after: None, expect }
    }
}
