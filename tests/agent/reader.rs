//! A server's side of many messages: it reads as fast as it can, answers pings, acknowledges where that was
//! agreed on, and keeps what came. One thread a server, one connection after the other.

use crate::dial::peer::{Socket, read_head};
use backupy_agent::wire::{self, Payload, v1};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One envelope of the agent's.
pub struct Came {
    pub seq: u64,
    pub at: Instant,
    pub envelope: Vec<u8>,
}

/// What the server does and has seen.
pub struct Reader {
    /// Whether it selects end-to-end acks.
    pub acking: bool,
    /// A command and a Ping after every so many envelopes, up to `commands` of each.
    pub every: usize,
    pub commands: usize,
    /// One list a connection.
    pub came: Mutex<Vec<Vec<Came>>>,
    /// Register has come: RegisterAck waits for the word. A server that does not say it cuts.
    pub registered: Mutex<Sender<usize>>,
    pub go: Mutex<Receiver<bool>>,
    /// The line breaks at the next occasion, once.
    pub cut: AtomicBool,
    /// The upgrade requests.
    pub heads: Mutex<Vec<String>>,
}

impl Reader {
    /// How many envelopes came over that connection.
    pub fn count(&self, connection: usize) -> usize {
        self.came.lock().unwrap().get(connection).map_or(0, Vec::len)
    }

    pub fn serve(self: &Arc<Self>, mut socket: Socket) {
        let head = read_head(&mut *socket);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        });
        let Some(key) = key else { return };
        let accept = String::from_utf8(actix_http::ws::hash_key(key.as_bytes()).to_vec()).unwrap();
        let protocol = if self.acking { "Sec-WebSocket-Protocol: backupy.ack.v1\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        );
        self.heads.lock().unwrap().push(head);
        let number = {
            let mut came = self.came.lock().unwrap();
            came.push(Vec::new());
            came.len() - 1
        };
        // The agent is gone: the test sees what came.
        let _ = socket.write_all(answer.as_bytes()).and_then(|()| socket.flush());
        let _ = self.converse(&mut *socket, number);
    }

    fn converse(&self, socket: &mut (impl Read + Write + ?Sized), number: usize) -> std::io::Result<()> {
        let (mut frames, mut seq, mut asked) = (Frames::default(), 0_u64, 0);
        let mut say = |out: &mut Vec<u8>, id: &str, payload| {
            seq += 1;
            frame(out, 2, &wire::encode(seq, 1, id, payload).unwrap());
        };
        while !self.cut.swap(false, Ordering::SeqCst) {
            if frames.fill(socket)? == 0 {
                return Ok(());
            }
            let (mut out, mut acks, mut registered) = (Vec::new(), Vec::new(), false);
            {
                let mut came = self.came.lock().unwrap();
                while let Some((opcode, payload)) = frames.next() {
                    match opcode {
                        2 => {
                            registered |= came[number].is_empty();
                            let seq = seq_of(&payload);
                            acks.push(seq);
                            came[number].push(Came { seq, at: Instant::now(), envelope: payload });
                        }
                        9 => frame(&mut out, 10, &payload),
                        10 => {}
                        _ => return Ok(()),
                    }
                }
            }
            if registered {
                let _ = self.registered.lock().unwrap().send(number);
                if !self.go.lock().unwrap().recv().unwrap_or(false) {
                    return Ok(());
                }
                let ack = v1::RegisterAck { heartbeat_interval_sec: 1, ..Default::default() };
                say(&mut out, "", Payload::RegisterAck(ack));
            }
            if self.acking {
                // More than is durable: a server may acknowledge everything.
                for seq in acks {
                    let ack =
                        v1::Ack { correlation_id: seq.to_string(), accepted: true, ..Default::default() };
                    say(&mut out, "", Payload::Ack(ack));
                }
            }
            while asked < self.commands && self.count(number) > (asked + 1) * self.every {
                asked += 1;
                let cancel = v1::CancelJob { job_id: format!("no-{asked}") };
                say(&mut out, &format!("c-{asked}"), Payload::CancelJob(cancel));
                say(&mut out, &format!("p-{asked}"), Payload::Ping(v1::Ping { ts_ms: 1 }));
            }
            socket.write_all(&out)?;
            socket.flush()?;
        }
        Ok(())
    }
}

/// The first field of every envelope of the agent's.
fn seq_of(envelope: &[u8]) -> u64 {
    assert_eq!(envelope[0], 0x08, "seq comes first");
    let mut seq = 0;
    for (at, byte) in envelope[1..].iter().enumerate() {
        seq |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    seq
}

/// A frame of a server's.
pub fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match u8::try_from(payload.len()).ok().filter(|short| *short < 126) {
        Some(short) => out.push(short),
        None => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Frames of a client's out of a stream of bytes.
#[derive(Default)]
pub struct Frames {
    bytes: VecDeque<u8>,
}

impl Frames {
    /// Reads what is there; 0 at the end.
    pub fn fill(&mut self, socket: &mut (impl Read + ?Sized)) -> std::io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = socket.read(&mut buffer)?;
        self.bytes.extend(&buffer[..count]);
        Ok(count)
    }

    /// The next whole one: opcode and payload.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.bytes.make_contiguous();
        let (opcode, length) = (head.first()? & 0x0f, head.get(1)?);
        assert_eq!(length & 0x80, 0x80, "clients mask");
        let (length, at) = match length & 0x7f {
            126 => (usize::from(u16::from_be_bytes([*head.get(2)?, *head.get(3)?])), 4),
            127 => panic!("no message here is so large"),
            short => (usize::from(short), 2),
        };
        let end = at + 4 + length;
        let masked = head.get(at + 4..end)?;
        let mask = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.bytes.drain(..end);
        Some((opcode, payload))
    }
}
