//! One request over a connection of its own, as an upload needs it (RFC 9112).
//!
//! awc sends a body without looking whether the store has answered already, and waits for the go-ahead of
//! `Expect: 100-continue` without an end. Here the answer is read while the body goes out: a store that
//! refuses at once is heard, however large the body.

mod body;
mod pace;
#[cfg(test)]
mod tests;

pub use crate::http::Answer;
pub use body::{Body, Source};

use super::place::Place;
use super::{Options, Timing, UploadError};
use crate::http::{self, BodyReader};
use futures_util::future::LocalBoxFuture;
use pace::Pace;
use rustls::pki_types::ServerName;
use std::cell::{Cell, OnceCell};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

/// Makes a connection to `host` and `port`, through a proxy where there is one.
pub type Connect = dyn Fn(String, u16) -> LocalBoxFuture<'static, Result<TcpStream, Broken>> + Send + Sync;

/// A body of this size is worth a question first: smaller ones are in the socket's buffers before an answer could
/// come.
const EXPECT_FROM_BYTES: u64 = 1024 * 1024;

/// An answer's head. S3's have under 1 KiB.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// An answer's body: CompleteMultipartUpload's and errors are under 1 KiB, after some spaces that keep the line
/// open.
const MAX_BODY_LEN: usize = 256 * 1024;

/// A store that has everything hashes and copies at least so much of it a second before it answers.
const ANSWER_BYTES_PER_SEC: u64 = 4 * 1024 * 1024;

/// A store that broke the line off may have said why, and what it said may be here already.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What is asked.
pub struct Request<'a> {
    pub method: &'static str,
    pub place: &'a Place,
    pub content_type: Option<&'static str>,
    /// The store is not asked before the body.
    pub unasked: bool,
    pub body: Body<'a>,
}

/// A request that got no answer: why, for people.
pub enum Broken {
    /// Another try may get one.
    Passing(String),
    /// None will, until somebody does something.
    Lasting(String),
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// What requests are made with.
#[derive(Clone)]
pub struct Client {
    connect: Arc<Connect>,
    ca_file: Option<PathBuf>,
    /// Made where a URL needs it.
    tls: OnceCell<Arc<rustls::ClientConfig>>,
    /// The store does not know the question before the body: it is asked no more.
    unasked: Cell<bool>,
    timing: Timing,
}

impl Client {
    /// Loads the certificate authorities where they are needed from the beginning: a fault of theirs is told then.
    pub fn new(secure: bool, options: &Options) -> Result<Self, UploadError> {
        let client = Self {
            connect: Arc::clone(&options.connect),
            ca_file: options.ca_file.clone(),
            tls: OnceCell::new(),
            unasked: Cell::new(false),
            timing: options.timing,
        };
        if secure {
            client.tls().map_err(|cause| UploadError::Roots { cause })?;
        }
        Ok(client)
    }

    /// What TLS is spoken with.
    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        if let Some(known) = self.tls.get() {
            return Ok(Arc::clone(known));
        }
        let loaded = Arc::new(crate::trust::client_config(self.ca_file.as_deref())?);
        Ok(Arc::clone(self.tls.get_or_init(|| loaded)))
    }

    /// Sends the request and gives the answer, whatever it says.
    pub async fn send(&self, mut request: Request<'_>) -> Result<Answer, Broken> {
        let socket = self.open(request.place).await?;
        let patience = self.patience(&request);
        let asks = !request.unasked && !self.unasked.get() && request.body.len() >= EXPECT_FROM_BYTES;
        let (reading, mut writing) = tokio::io::split(socket);
        let head = head_of(&request, asks);
        let mut answers = Answers { reading, bytes: Vec::new() };
        self.in_time(writing.write_all(head.as_bytes())).await?;
        self.in_time(writing.flush()).await?;
        let mut silent = false;
        if asks {
            match timeout(self.timing.go_ahead, answers.go_ahead()).await {
                Ok(Ok(head)) if head.status != 100 => {
                    return rest(head, answers, request.method, patience).await;
                }
                Ok(Ok(_)) => {}
                // No word is a yes (RFC 9110 section 10.1.1): not every store knows the question.
                Err(_) => silent = true,
                Ok(Err(broken)) => return Err(broken),
            }
        }
        let early = tokio::select! {
            early = answers.final_head() => Some(early),
            sent = self.send_body(&mut writing, &mut request.body) => match sent {
                Ok(()) => None,
                Err(broken) => Some(timeout(LAST_WORD, answers.final_head()).await.map_err(|_| ()).and_then(|head| head.map_err(drop)).map_err(|()| broken)),
            },
        };
        let head = match early {
            Some(head) => head?,
            None => match timeout(patience, answers.final_head()).await {
                Ok(head) => head?,
                Err(_) => {
                    let seconds = patience.as_secs_f32();
                    let what = format!("the store took everything and gave no answer for {seconds} s");
                    return Err(Broken::Passing(what));
                }
            },
        };
        if silent && head.is_success() {
            self.unasked.set(true);
        }
        rest(head, answers, request.method, patience).await
    }

    /// How long the answer may take.
    fn patience(&self, request: &Request<'_>) -> Duration {
        match request.method {
            "POST" => self.timing.together,
            _ => self.timing.answer + Duration::from_secs(request.body.len() / ANSWER_BYTES_PER_SEC),
        }
    }

    async fn open(&self, place: &Place) -> Result<Box<dyn Socket>, Broken> {
        let limit = self.timing.connect;
        let connecting = timeout(limit, (self.connect)(place.host.clone(), place.port));
        let seconds = limit.as_secs_f32();
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(Broken::Passing(cause))) => {
                return Err(Broken::Passing(format!("no connection: {cause}")));
            }
            Ok(Err(lasting @ Broken::Lasting(_))) => return Err(lasting),
            Err(_) => return Err(Broken::Passing(format!("no connection within {seconds} s"))),
        };
        if !place.secure {
            return Ok(Box::new(stream));
        }
        let tls = self.tls().map_err(Broken::Lasting)?;
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| Broken::Lasting("its host is no name that a certificate could have".into()))?;
        let connector = tokio_rustls::TlsConnector::from(tls);
        match timeout(limit, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Broken::Passing(format!("no TLS connection: {error}"))),
            Err(_) => Err(Broken::Passing(format!("no TLS connection within {seconds} s"))),
        }
    }

    async fn send_body(
        &self,
        writing: &mut WriteHalf<Box<dyn Socket>>,
        body: &mut Body<'_>,
    ) -> Result<(), Broken> {
        let mut pace = Pace::new(self.timing.stall);
        while let Some(mut piece) = body
            .next()
            .await
            .map_err(|error| Broken::Passing(format!("its own data could not be read: {error}")))?
        {
            while !piece.is_empty() {
                let begun = Instant::now();
                let written = self.in_time(writing.write(&piece)).await?;
                pace.took(written as u64, begun.elapsed()).map_err(Broken::Passing)?;
                if written == 0 {
                    return Err(Broken::Passing("the connection broke: nothing more was taken".into()));
                }
                bytes::Buf::advance(&mut piece, written);
                body.sent(written as u64);
            }
        }
        self.in_time(writing.flush()).await
    }

    /// One step of sending. A slow store takes something now and then; one that takes nothing stands still.
    async fn in_time<T>(&self, step: impl Future<Output = io::Result<T>>) -> Result<T, Broken> {
        match timeout(self.timing.stall, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Broken::Passing(format!("the connection broke: {error}"))),
            Err(_) => {
                let seconds = self.timing.stall.as_secs_f32();
                Err(Broken::Passing(format!("the store took nothing for {seconds} s")))
            }
        }
    }
}

/// The answer's body. Of a refusal, what can be had; of a success, all of it: an error may stand in it.
async fn rest(
    mut answer: Answer,
    mut answers: Answers,
    method: &'static str,
    patience: Duration,
) -> Result<Answer, Broken> {
    if method == "HEAD" {
        // It tells the length of a body that does not come.
        return Ok(answer);
    }
    let must_be_whole = answer.is_success() && method != "DELETE";
    // Nothing says how long it is but its end, and of a good PUT there is nothing to come.
    let is_open = answer.header("content-length").is_none() && answer.header("transfer-encoding").is_none();
    match timeout(patience, answers.body(&answer)).await {
        Ok(Ok(body)) => answer.body = body,
        Ok(Err(broken)) if must_be_whole => return Err(broken),
        Err(_) if must_be_whole && !(is_open && method == "PUT") => {
            return Err(Broken::Passing("the store's answer did not end".into()));
        }
        Ok(Err(_)) | Err(_) => {}
    }
    Ok(answer)
}

fn head_of(request: &Request<'_>, asks: bool) -> zeroize::Zeroizing<String> {
    let Place { authority, target, .. } = request.place;
    let mut head = zeroize::Zeroizing::new(String::with_capacity(target.expose().len() + 512));
    head.push_str(&format!("{} ", request.method));
    head.push_str(target.expose());
    head.push_str(&format!(" HTTP/1.1\r\nhost: {authority}\r\n"));
    if let Some(content_type) = request.content_type {
        head.push_str(&format!("content-type: {content_type}\r\n"));
    }
    if request.method != "DELETE" {
        head.push_str(&format!("content-length: {}\r\n", request.body.len()));
    }
    if asks {
        head.push_str("expect: 100-continue\r\n");
    }
    head.push_str("connection: close\r\n\r\n");
    head
}

/// What comes back.
struct Answers {
    reading: ReadHalf<Box<dyn Socket>>,
    bytes: Vec<u8>,
}

impl Answers {
    /// The head of the next answer, an interim one too.
    async fn head(&mut self) -> Result<Answer, Broken> {
        loop {
            if let Some((answer, len)) = http::parse(&self.bytes).map_err(|_| not_http())? {
                self.bytes.drain(..len);
                return Ok(answer);
            }
            if self.bytes.len() > MAX_HEAD_LEN {
                return Err(not_http());
            }
            if self.more().await? == 0 {
                let silent = || Broken::Passing("the store closed the connection without an answer".into());
                return Err(if self.bytes.is_empty() { silent() } else { not_http() });
            }
        }
    }

    /// The word before the body, or the final answer; what else comes between (102, 103) says nothing.
    async fn go_ahead(&mut self) -> Result<Answer, Broken> {
        loop {
            let answer = self.head().await?;
            if answer.status >= 200 || matches!(answer.status, 100 | 101) {
                return Ok(answer);
            }
        }
    }

    /// The head of the final answer.
    async fn final_head(&mut self) -> Result<Answer, Broken> {
        loop {
            let answer = self.head().await?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    async fn body(&mut self, answer: &Answer) -> Result<Vec<u8>, Broken> {
        let mut reader = BodyReader::new(answer).map_err(|_| not_http())?;
        let mut body = Vec::new();
        loop {
            reader.push(&self.bytes, &mut body).map_err(|_| not_http())?;
            self.bytes.clear();
            if reader.is_whole() {
                return Ok(body);
            }
            if body.len() > MAX_BODY_LEN {
                return Err(Broken::Passing("the store's answer is too long".into()));
            }
            if self.more().await? == 0 {
                let cut = || Broken::Passing("the store's answer was cut off".into());
                return if reader.may_end() { Ok(body) } else { Err(cut()) };
            }
        }
    }

    async fn more(&mut self) -> Result<usize, Broken> {
        match self.reading.read_buf(&mut self.bytes).await {
            Ok(read) => Ok(read),
            // A peer that ends TLS without a goodbye has ended all the same: lengths tell what is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(Broken::Passing(format!("the connection broke: {error}"))),
        }
    }
}

fn not_http() -> Broken {
    Broken::Passing("the store's answer was not HTTP".into())
}

/// An answer from its text.
#[cfg(test)]
pub fn parsed(text: &str) -> Answer {
    let (mut answer, len) = http::parse(text.as_bytes()).ok().flatten().unwrap_or_default();
    answer.body = text.as_bytes().get(len..).unwrap_or_default().to_vec();
    answer
}
