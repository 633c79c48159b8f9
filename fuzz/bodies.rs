//! What each fuzz target does with its input, once: `fuzz_targets/` runs it under libFuzzer, `tests/properties/corpus.rs`
//! replays the committed corpus with it. A body fails by a panic.
#![allow(dead_code, unused_imports, reason = "each binary runs one of them")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure is a panic")]

#[path = "state.rs"]
mod state;

pub use state::{leaf_page, state_file};

use actix_codec::{Decoder, Encoder};
use backupy_agent::channel::LinkDown;
use backupy_agent::channel::assemble::{Assembler, Message};
use backupy_agent::channel::dial::Confirms;
use backupy_agent::channel::frame::FrameError;
use backupy_agent::channel::guard::FrameGuard;
use backupy_agent::channel::session::{Action, Mark, Session};
use backupy_agent::daemon::dump;
use backupy_agent::docker::{Demux, Name, Stream, read_json};
use backupy_agent::http::{self, BodyReader};
use backupy_agent::model::RunRecord;
use backupy_agent::object::{Opener, Order, Token};
use backupy_agent::settings::{Sources, load};
use backupy_agent::store::Recovered;
use backupy_agent::wire::{self, Payload};
use bytes::BytesMut;
use prost::Message as _;
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

/// Bytes of a server: decoding, and what is made of what decodes. It encodes to what decodes to the same.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = wire::decode(data) else { return };
    let again = envelope.encode_to_vec();
    assert_eq!(wire::decode(&again).expect("what was encoded decodes").encode_to_vec(), again);
    let Some(payload) = envelope.payload else { return };
    let _ = wire::class_of(&payload);
    if let Payload::ConfigUpdate(update) = payload {
        drop(update.config.map(wire::convert::plan));
    } else if let Payload::RegisterAck(ack) = payload {
        drop(ack.config.map(wire::convert::plan));
    } else if let Payload::RunBackup(order) = payload
        && let Ok(order) = wire::convert::run_order(order)
    {
        assert!(!order.run_id.as_str().is_empty(), "a run without a name");
    }
}

/// Any events of a link: the ladder is never left, nothing follows its end. The first byte says how the server
/// confirms, each event is a byte that names it, a byte of time, and content.
pub fn session(data: &[u8]) {
    let Some((confirms, mut rest)) = data.split_first() else { return };
    let confirms = if confirms % 2 == 0 { Confirms::Pongs } else { Confirms::Acks };
    let mut now = Duration::from_secs(5);
    let (mut session, _) = Session::upgraded(now, confirms);
    let (mut established, mut down) = (0, 0);
    while let [event, passed, tail @ ..] = rest {
        now += Duration::from_millis(u64::from(*passed) * 157);
        let length = usize::from(event >> 4) * 4;
        let (content, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        let number = content.first().map_or(0, |byte| u64::from(byte % 4));
        let mark = if passed % 2 == 0 { Mark::Own(number) } else { Mark::Barrier(number) };
        let actions = match event & 0x0f {
            0..=3 => session.received(now, Message::Binary(content.to_vec().into())),
            4 => {
                session.sent_durable(now, number, (passed % 2 == 0).then(|| "own".into()));
                continue;
            }
            5 => session.received(now, Message::Text(content.len())),
            6 => session.received(now, Message::Ping(content.to_vec().into())),
            7 => session.received(now, Message::Pong(content.to_vec().into())),
            8 => session.received(now, Message::Pong(mark.payload())),
            9 => session.received(now, Message::Close { code: Some(1000 + number as u16), reason: None }),
            10 => session.faulty(now, FrameError::Masked),
            11 => session.ended(now),
            12 => {
                session.written(now, mark);
                continue;
            }
            13 => {
                session.hold_reading(now, passed % 2 == 0);
                continue;
            }
            14 => {
                now = session.next_deadline().map_or(now, |due| due.max(now));
                session.tick(now)
            }
            _ => session.end(now, LinkDown::Hangup),
        };
        for action in &actions {
            assert_eq!(down, 0, "nothing follows Down: {action:?}");
            established += u32::from(matches!(action, Action::Established { .. }));
            down += u32::from(matches!(action, Action::Down(_)));
            if let Action::Acked { seq, .. } = action {
                assert!(confirms == Confirms::Acks && *seq < 4, "nobody sent {seq} to be acknowledged");
            }
            if matches!(action, Action::Deliver { .. } | Action::AckPing { .. } | Action::Refuse { .. }) {
                assert_eq!(established, 1, "nobody is served before registration");
            }
        }
        assert!(established <= 1 && down <= 1);
    }
}

/// A byte stream as frames and messages, in whatever pieces it arrives: the pieces change nothing.
pub fn frame_guard(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    let pieces = frames(stream, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "the pieces change what is read");
}

fn frames(stream: &[u8], piece: usize) -> Vec<String> {
    let (mut guard, mut assembler) = (FrameGuard::default(), Assembler::default());
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    for part in stream.chunks(piece) {
        buffer.extend_from_slice(part);
        loop {
            match guard.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    let mut out = BytesMut::new();
                    guard.encode(frame.clone(), &mut out).expect("what was read can be written");
                    match assembler.push(frame) {
                        Ok(message) => seen.extend(message.map(|message| format!("{message:?}"))),
                        Err(error) => {
                            seen.push(error.to_string());
                            return seen;
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}

/// An object of anybody: it opens, or there is a reason; memory stays within a frame.
pub fn object_reader(data: &[u8]) {
    for order in [Order::Strict, Order::AllowUnordered] {
        let mut opener = Opener::new(data, &[7; 32], order).expect("the cipher takes a key");
        let mut plain = Vec::new();
        let opened = opener.read_to_end(&mut plain);
        assert!(plain.len() <= data.len(), "more came out than went in");
        if opened.is_ok() {
            assert_eq!(plain.len() as u64, opener.plaintext_bytes());
        }
    }
    let _ = backupy_agent::object::check_ends(&mut std::io::Cursor::new(data), &[7; 32]);
}

/// What a Docker engine says of its containers and programs, and what somebody calls a container.
pub fn docker_json(data: &[u8]) {
    read_json(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Name::parse(text) {
        let name = name.to_string();
        assert!(
            !name.contains(['/', '?', '#', '%', ' ', '\r', '\n']),
            "a name that leaves its place in a path: {name}"
        );
    }
}

/// An answer of a Docker engine and the output of a program behind it, in whatever pieces they arrive: the pieces change
/// nothing, and nothing comes out that did not go in.
pub fn docker_stream(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = program(stream, stream.len().max(1));
    let pieces = program(stream, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "the pieces change what is read");
    assert!(whole.0.len() + whole.1.len() <= stream.len(), "more came out than went in");
}

/// Its output, its words, and how the reading ended.
fn program(stream: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>, String) {
    let (mut out, mut words, mut demux) = (Vec::new(), Vec::new(), Demux::default());
    let (mut buffer, mut framing, mut is_begun) = (Vec::new(), None, false);
    for part in stream.chunks(piece) {
        buffer.extend_from_slice(part);
        if !is_begun {
            let (answer, len) = match http::parse(&buffer) {
                Ok(Some(head)) => head,
                Ok(None) => continue,
                Err(error) => return (out, words, error.to_string()),
            };
            buffer.drain(..len);
            is_begun = true;
            if answer.status != 101 {
                match BodyReader::new(&answer) {
                    Ok(reader) => framing = Some(reader),
                    Err(error) => return (out, words, error.to_string()),
                }
            }
        }
        let (mut plain, mut pushed) = (Vec::new(), Ok(()));
        match &mut framing {
            Some(framing) => pushed = framing.push(&buffer, &mut plain),
            None => plain.append(&mut buffer),
        }
        buffer.clear();
        let mut rest = plain.as_slice();
        while !rest.is_empty() {
            match demux.next_piece(rest) {
                Ok((taken, found)) => {
                    assert!(taken > 0, "it stands still");
                    match found {
                        Some((Stream::Stdout, bytes)) => out.extend_from_slice(bytes),
                        Some((Stream::Stderr | Stream::System, bytes)) => words.extend_from_slice(bytes),
                        None => assert_eq!(taken, rest.len(), "bytes are left without a piece"),
                    }
                    rest = &rest[taken..];
                }
                Err(error) => return (out, words, error.to_string()),
            }
        }
        if let Err(error) = pushed {
            return (out, words, error.to_string());
        }
    }
    let may_end = framing.as_ref().is_none_or(BodyReader::may_end);
    (out, words, format!("{is_begun} {may_end} {:?}", demux.end()))
}

/// A decryption token as somebody pastes it.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Token::parse(text, 1_700_000_000) {
        Ok(token) => assert!(!token.run_id.is_empty(), "a token without a run"),
        Err(error) => assert!(!error.to_string().contains('\n'), "an error of more than a line: {error}"),
    }
}

/// A configuration file: valid, or faults that each fit on a line and show no agent key.
pub fn settings(data: &[u8]) {
    const SECRET: &str = "bkpy_test_0123456789abcdefghijABCDEFGHIJ01";
    let dir = state::memory();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, data).unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        default_file: file,
        environment: BTreeMap::new(),
        flags: Vec::new(),
    };
    let shown = match load(&sources) {
        Ok(loaded) => format!("{:?} {:?}", loaded.rows, loaded.warnings),
        Err(faults) => {
            assert!(faults.iter().count() > 0, "a refusal without a reason");
            assert!(
                faults.iter().all(|fault| !fault.to_string().contains('\n')),
                "more than a line: {faults}"
            );
            faults.to_string()
        }
    };
    assert!(!shown.contains(SECRET), "the agent key is shown: {shown}");
}

/// What a seal held: runs as JSON, a configuration as bytes. Whatever decodes is shown without secrets.
pub fn stored_records(data: &[u8]) {
    let mut recovered = Recovered { config: Some((1, data.to_vec().into())), ..Recovered::default() };
    if let Ok(record) = serde_json::from_slice::<RunRecord>(data) {
        let again = serde_json::to_vec(&record).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<RunRecord>(&again).expect("and read again"), record);
        recovered.runs.push(record);
    }
    let _ = dump(&recovered, false).to_string();
    let _ = dump(&recovered, true).to_string();
}
