//! A control plane in this process, a REST client, and an agent written by hand: a socket and envelopes.

use crate::common::eventually_async;
use actix_codec::Framed;
use actix_http::ws::{CloseReason, Frame, Item, Message};
use awc::BoxedSocket;
use awc::error::WsClientError;
use awc::http::{Method, StatusCode};
use backupy_agent::control_plane::{Config, Running, Tls, serve};
use backupy_agent::model::unix_ms;
use backupy_agent::wire::{Envelope, Payload, decode, encode, v1};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing here takes as long on a machine that is merely busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Plane {
    pub running: Running,
    pub data_dir: PathBuf,
    config: Config,
    client: awc::Client,
}

impl Plane {
    /// In the clear, on a free port, heartbeats every second.
    pub fn start(data_dir: &Path, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(data_dir);
        config.listen = "127.0.0.1:0".into();
        config.tls = Tls::Insecure;
        config.heartbeat_interval = Duration::from_secs(1);
        adjust(&mut config);
        let client = awc::Client::builder().timeout(PATIENCE).finish();
        let running = serve(config.clone()).unwrap();
        Self { running, data_dir: data_dir.to_owned(), config, client }
    }

    /// Ends it without a word to anybody, and starts it again on the same data.
    pub fn restart(self) -> Self {
        let Self { running, data_dir, config, client } = self;
        running.abort();
        Self { running: serve(config.clone()).unwrap(), data_dir, config, client }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.base_url())
    }

    /// A request with the admin token; answers status and JSON.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.call_with(method, path, body, &[]).await
    }

    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let token = self.running.admin_token().expose().to_owned();
        let mut request = self.client.request(method, self.url(path)).bearer_auth(token);
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        let sent = if body.is_null() { request.send() } else { request.send_body(body.to_string()) };
        let mut response = sent.await.unwrap();
        let bytes = response.body().limit(16 << 20).await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "GET {path}: {answer}");
        answer
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert!((200..300).contains(&status), "POST {path}: {status} {answer}");
        answer
    }

    /// A new agent's id and key.
    pub async fn agent(&self, name: &str) -> (String, String) {
        let agent = self.post("/v1/agents", json!({"name": name})).await;
        (agent["id"].as_str().unwrap().into(), agent["agent_key"].as_str().unwrap().into())
    }

    /// A new agent with one SQLite target and the job `job`.
    pub async fn agent_with_job(&self, name: &str, job: &str) -> (String, String) {
        let (id, key) = self.agent(name).await;
        let config = json!({
            "targets": [{"id": "db", "type": "sqlite", "connection": {"database": "/srv/x.db"}}],
            "jobs": [{"id": job, "target_id": "db"}],
        });
        let (status, answer) = self.call(Method::PATCH, &format!("/v1/agents/{id}/config"), config).await;
        assert_eq!(status, 200, "{answer}");
        (id, key)
    }

    /// PUT without a token: the URL is all that counts. Answers status and headers.
    pub async fn put(&self, url: &str, bytes: Vec<u8>) -> (StatusCode, awc::http::header::HeaderMap) {
        let response = self.client.put(url).send_body(bytes).await.unwrap();
        (response.status(), response.headers().clone())
    }

    /// GET without a token.
    pub async fn fetch(&self, url: &str) -> (StatusCode, Bytes) {
        let mut response = self.client.get(url).send().await.unwrap();
        let bytes = response.body().limit(64 << 20).await.unwrap();
        (response.status(), bytes)
    }

    /// The run, once `done` likes it.
    pub async fn run_when(&self, id: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/runs/{id}");
        eventually_async(what, PATIENCE, || async {
            let run = self.get(&path).await;
            done(&run).then_some(run)
        })
        .await
    }
}

/// An agent's side of the wire, with no agent behind it.
pub struct Peer {
    framed: Framed<BoxedSocket, actix_http::ws::Codec>,
    pub seq: u64,
}

impl Peer {
    /// Connects; the status where that is refused.
    pub async fn connect(plane: &Plane, key: &str) -> Result<Self, u16> {
        let url = plane.url("/v1/agents/connect");
        let client = awc::Client::builder().max_http_version(awc::http::Version::HTTP_11).finish();
        match client.ws(url).bearer_auth(key).max_frame_size(8 << 20).connect().await {
            Ok((_, framed)) => Ok(Self { framed, seq: 0 }),
            Err(WsClientError::InvalidResponseStatus(status)) => Err(status.as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects and registers, counting on from `seq`. Answers the RegisterAck too.
    pub async fn register(plane: &Plane, key: &str, seq: u64, known: u64) -> (Self, v1::RegisterAck) {
        Self::register_as(plane, key, seq, known, &[]).await
    }

    /// The same, with these capabilities.
    pub async fn register_as(
        plane: &Plane,
        key: &str,
        seq: u64,
        known: u64,
        capabilities: &[&str],
    ) -> (Self, v1::RegisterAck) {
        let mut peer = Self::connect(plane, key).await.unwrap();
        peer.seq = seq;
        let register = v1::Register {
            hostname: "host".into(),
            last_known_config_version: known,
            capabilities: capabilities.iter().map(|what| (*what).to_owned()).collect(),
            ..Default::default()
        };
        peer.say(Payload::Register(register)).await;
        match peer.hear().await.payload {
            Some(Payload::RegisterAck(ack)) => (peer, ack),
            other => panic!("instead of RegisterAck: {other:?}"),
        }
    }

    /// Sends with the next seq, and answers that.
    pub async fn say(&mut self, payload: Payload) -> u64 {
        self.seq += 1;
        self.say_again(self.seq, payload).await;
        self.seq
    }

    pub async fn say_again(&mut self, seq: u64, payload: Payload) {
        self.send(Message::Binary(encode(seq, unix_ms(), "", payload).unwrap())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.framed.send(message).await.unwrap();
    }

    pub async fn send_fragments(&mut self, bytes: &[u8], piece: usize) -> bool {
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let piece = Bytes::copy_from_slice(piece);
            let item = match at {
                0 => Item::FirstBinary(piece),
                at if at + 1 == pieces.len() => Item::Last(piece),
                _ => Item::Continue(piece),
            };
            if self.framed.send(Message::Continuation(item)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// The next frame of the server's; None when the connection has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        let next =
            tokio::time::timeout(PATIENCE, self.framed.next()).await.expect("the server says something");
        next?.ok()
    }

    /// The next envelope; control frames are passed over.
    pub async fn hear(&mut self) -> Envelope {
        loop {
            match self.frame().await {
                Some(Frame::Binary(bytes)) => return decode(&bytes).unwrap(),
                Some(Frame::Ping(_) | Frame::Pong(_)) => {}
                other => panic!("instead of an envelope: {other:?}"),
            }
        }
    }

    /// The next RunBackup.
    pub async fn order(&mut self) -> v1::RunBackup {
        loop {
            if let Some(Payload::RunBackup(order)) = self.hear().await.payload {
                return order;
            }
        }
    }

    /// Everything said before is safe when this returns (delivery barrier).
    pub async fn barrier(&mut self) {
        self.send(Message::Ping(Bytes::from_static(b"token"))).await;
        loop {
            match self.frame().await {
                Some(Frame::Pong(token)) if token == "token" => return,
                Some(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_)) => {}
                other => panic!("instead of the pong: {other:?}"),
            }
        }
    }

    /// The close code and reason with which the server ends the connection.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.frame().await {
                Some(Frame::Close(Some(CloseReason { code, description }))) => {
                    return (code.into(), description.unwrap_or_default());
                }
                Some(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_)) => {}
                other => panic!("instead of a close frame: {other:?}"),
            }
        }
    }
}

/// A line for the log.
pub fn log(message: &str) -> Payload {
    Payload::Log(v1::LogEvent { message: message.into(), ..Default::default() })
}

/// The whole of a directory, as a crash would find it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
