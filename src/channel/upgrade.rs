//! The answer to the upgrade: what awc does not tell (the headers of a refusal), and what its errors
//! mean for an operator.

use super::DialError;
use super::dial::Confirms;
use crate::wire::ACK_SUBPROTOCOL;
use actix_http::header::HttpDate;
use actix_service::Service;
use awc::error::{ConnectError, SendRequestError, WsClientError};
use awc::http::StatusCode;
use awc::http::header::{HeaderMap, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use awc::middleware::Transform;
use awc::{ConnectRequest, ConnectResponse};
use futures_util::future::LocalBoxFuture;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// A middleware that remembers a refused upgrade: awc keeps the status and drops the headers.
#[derive(Clone, Default)]
pub(super) struct Answer(Rc<Cell<Option<Refusal>>>);

/// Status, and how long the server asks to wait.
type Refusal = (StatusCode, Option<Duration>);

impl Answer {
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.get()
    }
}

impl<S> Transform<S, ConnectRequest> for Answer
where
    S: Service<ConnectRequest, Response = ConnectResponse, Error = SendRequestError>,
    S::Future: 'static,
{
    type Transform = Remembering<S>;

    fn new_transform(self, service: S) -> Remembering<S> {
        Remembering { service, answer: self }
    }
}

pub(super) struct Remembering<S> {
    service: S,
    answer: Answer,
}

impl<S> Service<ConnectRequest> for Remembering<S>
where
    S: Service<ConnectRequest, Response = ConnectResponse, Error = SendRequestError>,
    S::Future: 'static,
{
    type Response = ConnectResponse;
    type Error = SendRequestError;
    type Future = LocalBoxFuture<'static, Result<ConnectResponse, SendRequestError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendRequestError>> {
        self.service.poll_ready(cx)
    }

    fn call(&self, request: ConnectRequest) -> Self::Future {
        let response = self.service.call(request);
        let answer = self.answer.clone();
        Box::pin(async move {
            let response = response.await?;
            if let ConnectResponse::Tunnel(head, _) = &response
                && head.status != StatusCode::SWITCHING_PROTOCOLS
            {
                answer.0.set(Some((head.status, retry_after(head.status, &head.headers))));
            }
            Ok(response)
        })
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3), of the two statuses that are about load.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = SystemTime::from(text.parse::<HttpDate>().ok()?);
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// How the server will confirm: by acks only where it selected just what was offered. RFC 6455 would end
/// the connection of a server that selects something else; the barrier needs nothing of it, so the agent
/// stays connected and says so.
pub(super) fn confirms(headers: &HeaderMap) -> Confirms {
    let mut selected = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    match (selected.next(), selected.next()) {
        (None, _) => Confirms::Pongs,
        (Some(one), None) if one.as_bytes().trim_ascii() == ACK_SUBPROTOCOL.as_bytes() => Confirms::Acks,
        (Some(_), _) => {
            tracing::warn!(
                offered = ACK_SUBPROTOCOL,
                "the control plane selected a subprotocol that was not offered: its pongs count, not its acks"
            );
            Confirms::Pongs
        }
    }
}

/// What awc's error means. `limit` is that of the dial.
pub(super) fn explain(
    error: WsClientError,
    host: &str,
    limit: Duration,
    explain_tls: impl Fn(&rustls::Error) -> String,
) -> DialError {
    let host = host.to_owned();
    match error {
        WsClientError::SendRequest(SendRequestError::Connect(ConnectError::Io(error))) => {
            explain_io(error, host, explain_tls)
        }
        WsClientError::SendRequest(
            SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout),
        ) => DialError::Timeout { host, limit },
        WsClientError::SendRequest(SendRequestError::Connect(ConnectError::Disconnected)) => {
            DialError::Handshake { host, cause: "it closed the connection instead of answering".into() }
        }
        WsClientError::SendRequest(SendRequestError::Send(error)) => {
            DialError::Connect { host, cause: format!("broke during the upgrade: {error}") }
        }
        WsClientError::SendRequest(SendRequestError::Response(error)) => {
            DialError::Handshake { host, cause: format!("its answer is not HTTP: {error}") }
        }
        WsClientError::SendRequest(error) => DialError::Handshake { host, cause: error.to_string() },
        // Headers of the server are not repeated: they say nothing that helps, and may be long.
        WsClientError::InvalidConnectionHeader(_) => {
            DialError::Handshake { host, cause: "its Connection header does not say Upgrade".into() }
        }
        WsClientError::InvalidChallengeResponse(..) => {
            DialError::Handshake { host, cause: "its Sec-WebSocket-Accept is wrong".into() }
        }
        error @ (WsClientError::InvalidResponseStatus(_)
        | WsClientError::InvalidUpgradeHeader
        | WsClientError::MissingConnectionHeader
        | WsClientError::MissingWebSocketAcceptHeader
        | WsClientError::Protocol(_)) => DialError::Handshake { host, cause: error.to_string() },
    }
}

/// Our own socket's errors come back as they were; all others are of the TLS handshake.
fn explain_io(error: io::Error, host: String, explain_tls: impl Fn(&rustls::Error) -> String) -> DialError {
    let inner = error.get_ref();
    if let Some(ours) = inner.and_then(|inner| inner.downcast_ref::<DialError>()) {
        return ours.clone();
    }
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return DialError::Tls { host, cause: explain_tls(tls) };
    }
    let cause = if error.kind() == io::ErrorKind::InvalidInput {
        "no certificate can name the host of server.url: check it".into()
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        // Some servers say nothing to a client whose versions they do not have.
        "the server ended the connection during the handshake: does it speak TLS 1.3, which this agent \
         requires, and is this a TLS port?"
            .into()
    } else {
        error.to_string()
    };
    DialError::Tls { host, cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use awc::http::header::HeaderValue;

    fn asked(status: StatusCode, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        retry_after(status, &headers)
    }

    #[test]
    fn acks_are_agreed_on_only_by_selecting_exactly_what_was_offered() {
        let agreed = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            confirms(&headers)
        };
        assert_eq!(agreed(&[ACK_SUBPROTOCOL]), Confirms::Acks);
        assert_eq!(agreed(&[" backupy.ack.v1 "]), Confirms::Acks);
        for other in [
            &[][..],
            &[""],
            &["backupy.ack.v2"],
            &["Backupy.Ack.V1"],
            &["backupy.ack.v1, chat"],
            &["backupy.ack.v1", "chat"],
            &["chat", "backupy.ack.v1"],
        ] {
            assert_eq!(agreed(other), Confirms::Pongs, "{other:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_of_429_and_503() {
        assert_eq!(asked(StatusCode::SERVICE_UNAVAILABLE, "120"), Some(Duration::from_secs(120)));
        assert_eq!(asked(StatusCode::TOO_MANY_REQUESTS, " 0 "), Some(Duration::ZERO));
        assert_eq!(asked(StatusCode::BAD_GATEWAY, "120"), None);
        assert_eq!(asked(StatusCode::SERVICE_UNAVAILABLE, "soon"), None);
        assert_eq!(asked(StatusCode::SERVICE_UNAVAILABLE, "-5"), None);
        let past = asked(StatusCode::SERVICE_UNAVAILABLE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(past, Some(Duration::ZERO));
        let later = HttpDate::from(SystemTime::now() + Duration::from_secs(90)).to_string();
        let later = asked(StatusCode::SERVICE_UNAVAILABLE, &later).unwrap();
        assert!((88..=90).contains(&later.as_secs()), "{later:?}");
    }
}
