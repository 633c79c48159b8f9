//! A control plane of a few lines: it registers the agent with a configuration, says what a test gives it to say, and
//! keeps what came.

use crate::common::eventually;
use crate::dial::peer::{self, Duplex};
use crate::reader::{Frames, frame};
use backupy_agent::wire::{self, Payload, v1};
use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// What it says and has heard.
pub struct Scripted {
    pub port: u16,
    held: Arc<Held>,
}

struct Held {
    config: v1::AgentConfig,
    came: Mutex<Vec<Payload>>,
    saying: Mutex<VecDeque<(String, Payload)>>,
}

impl Scripted {
    /// Listens in the clear; it ends with the test's process.
    pub fn start(config: v1::AgentConfig) -> Self {
        let held = Arc::new(Held { config, came: Mutex::default(), saying: Mutex::default() });
        let serving = Arc::clone(&held);
        let script = peer::upgrading(mpsc::channel().0, move |socket| {
            // The agent is gone: the test sees what came.
            let _ = serving.converse(socket);
        });
        Self { port: peer::clear(script), held }
    }

    /// Said with the agent's next sign of life: it shows one each second.
    pub fn say(&self, correlation_id: &str, payload: Payload) {
        self.held.saying.lock().unwrap().push_back((correlation_id.to_owned(), payload));
    }

    /// The first message that `found` likes.
    #[track_caller]
    pub fn hear<T>(&self, what: &str, found: impl Fn(&Payload) -> Option<T>) -> T {
        eventually(what, PATIENCE, || self.held.came.lock().unwrap().iter().find_map(&found))
    }

    /// How many messages came that `like` likes.
    pub fn count(&self, like: impl Fn(&Payload) -> bool) -> usize {
        self.held.came.lock().unwrap().iter().filter(|payload| like(payload)).count()
    }
}

impl Held {
    fn converse(&self, socket: &mut dyn Duplex) -> std::io::Result<()> {
        let (mut frames, mut seq) = (Frames::default(), 0);
        while frames.fill(socket as &mut dyn Read)? > 0 {
            let mut out = Vec::new();
            let mut say = |out: &mut Vec<u8>, id: &str, payload| {
                seq += 1;
                frame(out, 2, &wire::encode(seq, 1, id, payload).unwrap());
            };
            while let Some((opcode, bytes)) = frames.next() {
                match opcode {
                    2 => {
                        let payload = wire::decode(&bytes).unwrap().payload.unwrap();
                        if matches!(payload, Payload::Register(_)) {
                            let ack = v1::RegisterAck {
                                heartbeat_interval_sec: 1,
                                config: Some(self.config.clone()),
                                ..Default::default()
                            };
                            say(&mut out, "", Payload::RegisterAck(ack));
                        }
                        self.came.lock().unwrap().push(payload);
                    }
                    9 => frame(&mut out, 10, &bytes),
                    10 => {}
                    _ => return Ok(()),
                }
            }
            let applied = self.came.lock().unwrap().iter().any(
                |payload| matches!(payload, Payload::Heartbeat(beat) if beat.config_version == self.config.version),
            );
            if applied {
                for (id, payload) in self.saying.lock().unwrap().drain(..) {
                    say(&mut out, &id, payload);
                }
            }
            socket.write_all(&out)?;
            socket.flush()?;
        }
        Ok(())
    }
}
