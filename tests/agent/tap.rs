//! Between agent and object store: a relay that notes every request, and holds one where a test wants to look, kill
//! or wait. In the clear, one request a connection, as the agent makes them.

use crate::common::eventually;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Of a body, before it is held.
const HELD_AFTER_BYTES: u64 = 1024 * 1024;
/// What is relayed at once.
const PIECE_LEN: usize = 64 * 1024;

/// A request as it went by.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub target: String,
    pub body_bytes: u64,
    /// What the store answered.
    pub status: Option<u16>,
    /// The agent has the answer.
    pub answered: bool,
}

impl Seen {
    fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub fn part(&self) -> Option<u32> {
        self.query("partNumber")?.parse().ok()
    }

    pub fn upload(&self) -> Option<&str> {
        self.query("uploadId")
    }

    /// Unix milliseconds.
    pub fn expires_at_ms(&self) -> u64 {
        self.query("expires").unwrap().parse().unwrap()
    }

    fn is(&self, what: What) -> bool {
        match what {
            What::Put => self.method == "PUT" && self.part().is_none(),
            What::Part(number) => self.method == "PUT" && self.part() == Some(number),
            What::AnyPart => self.method == "PUT" && self.part().is_some(),
            What::Complete => self.method == "POST",
            What::Abort => self.method == "DELETE",
        }
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Put,
    Part(u32),
    /// Whichever.
    AnyPart,
    Complete,
    Abort,
}

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Before the store has seen anything of it.
    Head,
    /// In the middle of its body.
    Body,
    /// The store has done it, and the agent does not know.
    Answer,
}

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    hold: Option<(What, Where)>,
    held: usize,
    /// How often everything that was held was dropped.
    dropped: usize,
    /// When bytes of bodies passed, and how many.
    passed: Vec<(Instant, u64)>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// The relay. Ends with the test's process.
pub struct Tap {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Tap {
    /// Relays to that port of loopback.
    pub fn to(store: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let tap = Arc::clone(&shared);
        thread::spawn(move || {
            for agent in listener.incoming() {
                let (tap, agent) = (Arc::clone(&tap), agent.unwrap());
                thread::spawn(move || tap.carry(agent, SocketAddr::from(([127, 0, 0, 1], store))));
            }
        });
        Self { port, shared }
    }

    /// Holds every such request there, until [`Tap::release`].
    pub fn hold(&self, what: What, place: Where) {
        self.shared.lock().hold = Some((what, place));
    }

    /// Waits until one is held.
    #[track_caller]
    pub fn wait_until_held(&self, timeout: Duration) {
        eventually("a request that is held", timeout, || (self.shared.lock().held > 0).then_some(()));
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        self.shared.lock().hold = None;
        self.shared.changed.notify_all();
    }

    /// Ends the connections of what is held: nothing more of it reaches anybody.
    pub fn drop_held(&self) {
        self.shared.lock().dropped += 1;
        self.release();
    }

    /// Everything so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Forgets what was seen; requests that are under way are not noted any more.
    pub fn forget(&self) {
        self.shared.lock().seen.clear();
    }

    /// The last one of its kind.
    pub fn last(&self, what: What) -> Seen {
        self.seen().into_iter().rfind(|seen| seen.is(what)).unwrap()
    }

    pub fn count(&self, what: What) -> usize {
        self.seen().iter().filter(|seen| seen.is(what)).count()
    }

    /// Numbers of the parts that were sent, each as often as it was.
    pub fn parts(&self) -> Vec<u32> {
        let mut parts: Vec<u32> = self.seen().iter().filter_map(Seen::part).collect();
        parts.sort_unstable();
        parts
    }

    /// Parts that the store took, and the agent knows it.
    pub fn answered_parts(&self) -> usize {
        let ok = |seen: &&Seen| seen.part().is_some() && seen.answered && seen.status == Some(200);
        self.seen().iter().filter(ok).count()
    }

    /// Bytes of bodies, and when they passed.
    pub fn passed(&self) -> Vec<(Instant, u64)> {
        self.shared.lock().passed.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes what is noted of a request, unless it was forgotten.
    fn note(&self, target: &str, index: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.lock().seen.get_mut(index).filter(|seen| seen.target == target) {
            change(seen);
        }
    }

    /// False where the request is to be dropped.
    #[must_use]
    fn hold_here(&self, request: &Seen, place: Where) -> bool {
        let mut inner = self.lock();
        let dropped = inner.dropped;
        let holds = |inner: &Inner| inner.hold.is_some_and(|(what, at)| at == place && request.is(what));
        if holds(&inner) {
            inner.held += 1;
            while holds(&inner) {
                inner = self.changed.wait(inner).unwrap();
            }
            inner.held -= 1;
        }
        inner.dropped == dropped
    }

    fn carry(self: Arc<Self>, mut agent: TcpStream, store: SocketAddr) {
        let Some(head) = read_head(&mut agent) else { return };
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let request = Seen { method, target, body_bytes: 0, status: None, answered: false };
        let index = {
            let mut inner = self.lock();
            inner.seen.push(request.clone());
            inner.seen.len() - 1
        };
        if !self.hold_here(&request, Where::Head) {
            return;
        }
        // A store that is away is seen by the agent as a connection that ends.
        let Ok(mut to_store) = TcpStream::connect(store) else { return };
        if to_store.write_all(head.as_bytes()).is_err() {
            return;
        }
        let back = {
            let (shared, from_store) = (Arc::clone(&self), to_store.try_clone().unwrap());
            let (to_agent, request) = (agent.try_clone().unwrap(), request.clone());
            thread::spawn(move || shared.carry_back(from_store, to_agent, &request, index))
        };
        let mut sent = 0;
        let mut piece = vec![0; PIECE_LEN];
        while let Ok(read @ 1..) = agent.read(&mut piece) {
            if to_store.write_all(&piece[..read]).is_err() {
                break;
            }
            sent += read as u64;
            self.note(&request.target, index, |seen| seen.body_bytes = sent);
            self.lock().passed.push((Instant::now(), read as u64));
            if sent >= HELD_AFTER_BYTES && !self.hold_here(&request, Where::Body) {
                break;
            }
        }
        let _ = to_store.shutdown(Shutdown::Write);
        let _ = back.join();
    }

    fn carry_back(&self, mut from_store: TcpStream, mut to_agent: TcpStream, request: &Seen, index: usize) {
        while let Some(head) = read_head(&mut from_store) {
            let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            if status >= 200 {
                self.note(&request.target, index, |seen| seen.status = Some(status));
                if !self.hold_here(request, Where::Answer) {
                    break;
                }
            }
            if to_agent.write_all(head.as_bytes()).is_err() {
                break;
            }
            if status >= 200 {
                let whole = std::io::copy(&mut from_store, &mut to_agent).is_ok();
                self.note(&request.target, index, |seen| seen.answered = whole);
                break;
            }
        }
        // The agent's side of this connection is over as well.
        let _ = to_agent.shutdown(Shutdown::Both);
        let _ = from_store.shutdown(Shutdown::Both);
    }
}

/// None where the peer went away before its end.
fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    String::from_utf8(head).ok()
}
