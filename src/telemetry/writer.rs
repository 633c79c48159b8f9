//! Standard error as the logger sees it. A pipe whose reader sleeps must not freeze an actor, and one
//! whose reader is gone must not end the process: lines that are not taken in time are dropped,
//! counted, and the count is told once there is room again.

use super::redact::redact;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// What a pipe takes without blocking once it says that it takes anything (PIPE_BUF of Linux).
const CHUNK_BYTES: usize = 4096;

/// A reader gets so long for one line: far below the 5 s after which an actor counts as frozen.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Writes whole lines to a descriptor.
pub(super) struct Outlet<W> {
    json: bool,
    state: Mutex<State<W>>,
}

struct State<W> {
    target: W,
    /// Lines that were not taken since the last one that was.
    lost: u64,
    /// A line was cut: the next begins on a line of its own.
    cut: bool,
}

impl<W: Write + AsFd> Outlet<W> {
    /// An outlet; `json` is the form in which it tells of lost lines.
    pub fn new(target: W, json: bool) -> Self {
        Self { json, state: Mutex::new(State { target, lost: 0, cut: false }) }
    }

    fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Who did not listen gets no second chance to hold an actor up, until there is room again.
        let wait = if state.lost > 0 { Duration::ZERO } else { MAX_WAIT };
        let line = match std::str::from_utf8(line) {
            Ok(text) => redact(text),
            Err(_) => "a line that is not UTF-8 was left out\n".into(),
        };
        let mut whole = Vec::with_capacity(line.len());
        if state.cut {
            whole.push(b'\n');
        }
        if state.lost > 0 {
            whole.extend_from_slice(self.notice(state.lost).as_bytes());
        }
        whole.extend_from_slice(line.as_bytes());
        let written = state.write(&whole, wait);
        if written == whole.len() {
            state.lost = 0;
            state.cut = false;
        } else {
            state.lost += 1;
            state.cut |= written > 0;
        }
    }

    fn notice(&self, lost: u64) -> String {
        if self.json {
            format!("{{\"level\":\"WARN\",\"message\":\"log lines were lost\",\"lost\":{lost}}}\n")
        } else {
            format!("WARN {lost} log lines were lost: standard error did not take them\n")
        }
    }
}

impl<W: Write + AsFd> State<W> {
    /// Writes what is taken within the time; gives how many bytes that were.
    fn write(&mut self, bytes: &[u8], wait: Duration) -> usize {
        let until = Instant::now() + wait;
        let mut written = 0;
        while written < bytes.len() {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.target.as_fd(), PollFlags::POLLOUT)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, timeout) {
                Ok(ready) if ready > 0 => {}
                Err(nix::errno::Errno::EINTR) if !left.is_zero() => continue,
                _ => break,
            }
            let end = bytes.len().min(written + CHUNK_BYTES);
            match self.target.write(&bytes[written..end]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader that is gone (EPIPE), or somebody made the descriptor non-blocking.
                _ => break,
            }
        }
        written
    }
}

impl<'a, W: Write + AsFd + 'a> MakeWriter<'a> for Outlet<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

/// One event's way out. It takes everything: the logger has nobody to tell of an error.
pub(super) struct Line<'a, W>(&'a Outlet<W>);

impl<W: Write + AsFd> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_line_comes_out_whole_and_without_secrets() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::new(writer, false);
        outlet.make_writer().write_all(b"hello bkpy_live_0123456789\n").unwrap();
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello bkpy_live_***\n");
    }

    #[test]
    fn a_reader_that_sleeps_costs_one_short_wait_and_hears_later_what_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::new(writer, true);
        let line = [&[b'x'; 8191][..], b"\n"].concat();
        let start = Instant::now();
        for _ in 0..1000 {
            outlet.make_writer().write_all(&line).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let mut taken = vec![0; 256 * 1024];
        let first = reader.read(&mut taken).unwrap();
        outlet.make_writer().write_all(b"awake\n").unwrap();
        drop(outlet);
        taken.truncate(first);
        reader.read_to_end(&mut taken).unwrap();
        let text = String::from_utf8(taken).unwrap();
        let tail: Vec<_> = text.lines().rev().take(2).collect();
        assert_eq!(tail[0], "awake");
        let notice: serde_json::Value = serde_json::from_str(tail[1]).unwrap();
        let whole = text.lines().filter(|line| line.len() == 8191).count() as u64;
        assert_eq!(notice["lost"].as_u64().unwrap() + whole, 1000);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outlet = Outlet::new(writer, false);
        for _ in 0..10 {
            outlet.make_writer().write_all(b"nobody listens\n").unwrap();
        }
    }
}
