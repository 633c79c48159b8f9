//! One agent's connection: `/v1/agents/connect` (protocol sections 1 and 4).
//!
//! Frames are handled strictly in order. What has come together is committed together, and only then are
//! the WebSocket pings among it answered: an agent takes the pong as the proof that everything it sent
//! before is safe (protocol section 5, delivery barrier). An agent that offers `backupy.ack.v1` gets an Ack
//! for each durable message at that moment.

use super::error::{ApiError, Code};
use super::frame_guard::FrameGuard;
use super::hub::{self, Goodbye, Link, Outbound};
use super::plane::Plane;
use super::{acks, inbound, time};
use crate::model::unix_ms;
use crate::wire::{self, Envelope, Payload, v1};
use actix_web::dev;
use actix_web::error::PayloadError;
use actix_web::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError, Session};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Register must come within this time (protocol section 1).
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// One write (protocol section 1).
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing received for as long: dead (protocol section 1), three heartbeats where those are slower.
const SILENCE: Duration = Duration::from_secs(90);
/// Frames that are committed together.
const BATCH_FRAMES: usize = 256;

/// Answers the upgrade; the connection lives on in a task of this worker.
pub async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    plane: web::Data<Plane>,
) -> Result<HttpResponse, actix_web::Error> {
    let agent_id = bearer(&request).and_then(|key| plane.agent_of_key(key)).ok_or_else(|| {
        tracing::warn!(peer = ?request.peer_addr(), "an agent with an unknown key was refused");
        ApiError::new(Code::AuthFailed, "unknown agent key")
    })?;
    let payload = guarded(&request, payload).await?;
    let offered: &[&str] = if plane.limits.acks { &[wire::ACK_SUBPROTOCOL] } else { &[] };
    let (response, session, messages) = actix_ws::handle_with_protocols(&request, payload, offered)?;
    let acks = response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL);
    let messages = messages
        .max_frame_size(wire::MAX_MESSAGE_BYTES)
        .aggregate_continuations()
        .max_continuation_size(wire::MAX_MESSAGE_BYTES);
    let info = request.connection_info();
    let base_url = format!("{}://{}", info.scheme(), info.host());
    let peer = request.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    let wire = Wire { session, messages, plane: plane.into_inner(), agent_id, acks };
    actix_web::rt::spawn(wire.live(base_url, peer));
    Ok(response)
}

/// What follows `Bearer` in the Authorization header.
pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Puts the frame guard between the wire and the WebSocket's parser.
async fn guarded(request: &HttpRequest, payload: web::Payload) -> Result<web::Payload, actix_web::Error> {
    let mut guard = FrameGuard::new(wire::MAX_MESSAGE_BYTES);
    let stream = payload.into_inner().map(move |bytes| {
        let bytes = bytes?;
        guard.pass(&bytes).map_err(|error| {
            tracing::warn!(%error, "refused a frame by its header");
            PayloadError::Overflow
        })?;
        Ok(bytes)
    });
    web::Payload::from_request(request, &mut dev::Payload::Stream { payload: Box::pin(stream) }).await
}

/// How a connection ends.
enum End {
    /// With a close code and a reason for the log of the other side.
    Close(CloseCode, &'static str),
    /// The other side closed; its reason is given back.
    Closed(Option<CloseReason>),
    /// Nobody is there any more.
    Gone,
}

struct Wire {
    session: Session,
    messages: AggregatedMessageStream,
    plane: Arc<Plane>,
    agent_id: String,
    /// End-to-end acks were agreed on.
    acks: bool,
}

/// Frames that came together.
#[derive(Default)]
struct Batch {
    envelopes: Vec<Envelope>,
    pings: Vec<Bytes>,
    end: Option<End>,
}

impl Wire {
    async fn live(mut self, base_url: String, peer: String) {
        let end = match self.first_envelope().await {
            Ok((envelope, register)) => self.registered(base_url, peer, envelope, register).await,
            Err(end) => end,
        };
        let agent_id = self.agent_id;
        let reason = match end {
            End::Gone => {
                tracing::info!(agent_id, "agent gone");
                return;
            }
            End::Closed(reason) => {
                tracing::info!(agent_id, ?reason, "agent closed the connection");
                reason
            }
            End::Close(code, description) => {
                tracing::info!(agent_id, code = u16::from(code), description, "connection closed");
                Some(CloseReason { code, description: Some(description.to_owned()) })
            }
        };
        // Who does not take the close frame in time has lost it.
        let _ = timeout(WRITE_TIMEOUT, self.session.close(reason)).await;
    }

    /// Waits for Register; whatever else comes as a message ends the connection.
    async fn first_envelope(&mut self) -> Result<(Envelope, v1::Register), End> {
        let deadline = Instant::now() + REGISTER_TIMEOUT;
        loop {
            let message = timeout_at(deadline, self.messages.recv())
                .await
                .map_err(|_| End::Close(CloseCode::Policy, "Register did not come within 15 s"))?;
            let mut batch = Batch::default();
            batch.take(message);
            self.pong(&batch.pings).await?;
            if let Some(end) = batch.end {
                return Err(end);
            }
            if let Some(envelope) = batch.envelopes.pop() {
                return match envelope.payload.clone() {
                    Some(Payload::Register(register)) => Ok((envelope, register)),
                    _ => Err(End::Close(CloseCode::Policy, "the first message must be Register")),
                };
            }
        }
    }

    async fn registered(
        &mut self,
        base_url: String,
        peer: String,
        envelope: Envelope,
        register: v1::Register,
    ) -> End {
        let Ok(session_id) = super::runs::uuid() else {
            return End::Close(CloseCode::Error, "no random numbers");
        };
        let (outbox, outbound) = mpsc::channel(hub::OUTBOX);
        let (goodbye, dismissed) = oneshot::channel();
        let agent_id = self.agent_id.clone();
        let change = |change: &mut super::store::Change<'_>| {
            inbound::register(change, &agent_id, &envelope, &register);
        };
        if let Err(error) = self.plane.store.change(change).await {
            tracing::error!(%error, "a registration could not be noted");
            return End::Close(CloseCode::Again, "the control plane cannot write its state");
        }
        tracing::info!(
            agent_id,
            session_id,
            peer,
            hostname = register.hostname,
            version = register.agent_version,
            "agent registered"
        );
        // In the hub before the configuration is read: a change from here on reaches the agent.
        let link = Link {
            session_id: session_id.clone(),
            connected_at_ms: unix_ms(),
            base_url,
            outbox,
            goodbye: Some(goodbye),
        };
        self.plane.hub.connect(&self.agent_id, link);
        let end = match self.welcome(&session_id, envelope.correlation_id).await {
            Ok(()) => self.pump(outbound, dismissed).await,
            Err(end) => end,
        };
        self.plane.hub.disconnect(&self.agent_id, &session_id);
        end
    }

    async fn welcome(&mut self, session_id: &str, correlation_id: String) -> Result<(), End> {
        let ack = v1::RegisterAck {
            session_id: session_id.to_owned(),
            config: self.plane.wire_config(&self.agent_id),
            heartbeat_interval_sec: self.plane.limits.heartbeat_interval_s,
            server_time_iso: time::iso(unix_ms()),
        };
        self.send(Outbound { correlation_id, payload: Payload::RegisterAck(ack) }).await?;
        self.plane.dispatch_open(&self.agent_id).await.map_err(|error| {
            tracing::error!(%error, "waiting runs could not be sent");
            End::Close(CloseCode::Again, "the control plane cannot write its state")
        })
    }

    async fn pump(
        &mut self,
        mut outbound: mpsc::Receiver<Outbound>,
        mut dismissed: oneshot::Receiver<Goodbye>,
    ) -> End {
        let silence = SILENCE.max(3 * Duration::from_secs(self.plane.limits.heartbeat_interval_s.into()));
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                goodbye = &mut dismissed => Err(farewell(goodbye.ok())),
                () = sleep_until(heard + silence) => {
                    Err(End::Close(CloseCode::Policy, "nothing was received for too long"))
                }
                Some(message) = outbound.recv() => self.send(message).await,
                message = self.messages.recv() => {
                    heard = Instant::now();
                    self.receive(message).await
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Takes in the message and whatever has come with it.
    async fn receive(&mut self, first: Option<Result<AggregatedMessage, ProtocolError>>) -> Result<(), End> {
        let mut batch = Batch::default();
        batch.take(first);
        for _ in 1..BATCH_FRAMES {
            if batch.end.is_some() {
                break;
            }
            let Some(next) = self.messages.recv().now_or_never() else { break };
            batch.take(next);
        }
        let (agent_id, envelopes) = (self.agent_id.clone(), batch.envelopes);
        let acks = if self.acks { acks::of(&envelopes) } else { Vec::new() };
        if !envelopes.is_empty() {
            let absorbed = self.plane.store.change(|change| inbound::absorb(change, &agent_id, envelopes));
            let todo = absorbed.await.map_err(|error| {
                tracing::error!(agent_id, %error, "messages could not be made durable; the agent keeps them");
                End::Close(CloseCode::Again, "the control plane cannot write its state")
            })?;
            self.set_about(todo);
        }
        for ack in acks {
            self.send(Outbound { correlation_id: String::new(), payload: Payload::Ack(ack) }).await?;
        }
        self.pong(&batch.pings).await?;
        batch.end.map_or(Ok(()), Err)
    }

    /// What follows from the messages, beside the connection: it goes on meanwhile.
    fn set_about(&self, todo: inbound::Todo) {
        for run_id in todo.verify {
            actix_web::rt::spawn(Arc::clone(&self.plane).verify(run_id));
        }
        if todo.ended {
            actix_web::rt::spawn(Arc::clone(&self.plane).sweep_uploads());
        }
        if !todo.urls.is_empty() {
            let (plane, agent_id) = (Arc::clone(&self.plane), self.agent_id.clone());
            actix_web::rt::spawn(async move {
                for request in todo.urls.into_values() {
                    if let Err(error) = plane.renew_urls(&agent_id, &request).await {
                        tracing::error!(run_id = request.run_id, %error, "fresh upload URLs could not be given");
                    }
                }
            });
        }
    }

    async fn pong(&mut self, pings: &[Bytes]) -> Result<(), End> {
        for token in pings {
            in_time(self.session.pong(token)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Outbound) -> Result<(), End> {
        let seq = self.plane.next_seq();
        match wire::encode(seq, unix_ms(), &message.correlation_id, message.payload) {
            Ok(bytes) => in_time(self.session.binary(bytes)).await,
            Err(error) => {
                tracing::error!(agent_id = self.agent_id, %error, "a message is too long to be sent: make the agent's configuration smaller");
                Ok(())
            }
        }
    }
}

impl Batch {
    fn take(&mut self, message: Option<Result<AggregatedMessage, ProtocolError>>) {
        match message {
            None => self.end = Some(End::Gone),
            Some(Err(error)) => self.end = Some(broken(&error)),
            Some(Ok(AggregatedMessage::Binary(bytes))) => match wire::decode(&bytes) {
                Ok(envelope) => self.envelopes.push(envelope),
                Err(error) => {
                    tracing::warn!(%error, "a frame that is no message of the contract");
                    self.end = Some(End::Close(CloseCode::Invalid, "not an Envelope"));
                }
            },
            Some(Ok(AggregatedMessage::Text(text))) => {
                tracing::warn!(bytes = text.len(), "a text frame was ignored");
            }
            Some(Ok(AggregatedMessage::Ping(token))) => self.pings.push(token),
            Some(Ok(AggregatedMessage::Pong(_))) => {}
            Some(Ok(AggregatedMessage::Close(reason))) => self.end = Some(End::Closed(reason)),
        }
    }
}

async fn in_time(write: impl Future<Output = Result<(), actix_ws::Closed>>) -> Result<(), End> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(actix_ws::Closed)) | Err(_) => Err(End::Gone),
    }
}

fn farewell(why: Option<Goodbye>) -> End {
    match why {
        Some(Goodbye::Superseded) => End::Close(CloseCode::Policy, "superseded by another connection"),
        Some(Goodbye::KeyChanged) => End::Close(CloseCode::Policy, "the agent key was changed"),
        Some(Goodbye::TooSlow) => End::Close(CloseCode::Again, "too slow: too many messages wait"),
        Some(Goodbye::ShuttingDown) => End::Close(CloseCode::Away, "the control plane is shutting down"),
        None => End::Close(CloseCode::Policy, "superseded by another connection"),
    }
}

/// What a reading error means for the other side (RFC 6455 section 7.4.1).
fn broken(error: &ProtocolError) -> End {
    let too_big = End::Close(CloseCode::Size, "a message is over 4 MiB");
    match error {
        ProtocolError::Overflow => too_big,
        ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            End::Close(CloseCode::Invalid, "text that is not UTF-8")
        }
        ProtocolError::Io(error) => {
            let payload_error = error.get_ref().and_then(|inner| inner.downcast_ref::<PayloadError>());
            match payload_error {
                // Our frame guard.
                Some(PayloadError::Overflow) => too_big,
                Some(_) => End::Gone,
                // What actix-ws says of fragments that are too much together.
                None => too_big,
            }
        }
        ProtocolError::UnmaskedFrame
        | ProtocolError::MaskedFrame
        | ProtocolError::InvalidOpcode(_)
        | ProtocolError::InvalidLength(_)
        | ProtocolError::BadOpCode
        | ProtocolError::ContinuationNotStarted
        | ProtocolError::ContinuationStarted
        | ProtocolError::ContinuationFragment(_) => End::Close(CloseCode::Protocol, "not a WebSocket frame"),
    }
}
