//! The way from the thread that reads a database to the thread that packs it: a few buffers that go
//! round, so that memory stays the same however large the database is.

use crate::drivers::Sink;
use crate::process::Cancel;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use zeroize::Zeroizing;

/// Large enough that a hand-over (microseconds) is nothing beside filling it (about a
/// millisecond), small enough that all of them together are 1 MiB.
const BUFFER_LEN: usize = 256 * 1024;

/// One is filled, one is packed, two smooth the difference.
const BUFFERS: usize = 4;

/// What comes out of the pipe.
pub enum Item {
    /// The next bytes. Give the buffer back.
    Data(Zeroizing<Vec<u8>>),
    /// Everything so far is void: the dump begins again.
    Restart,
    /// The dump ended well; a pipe that closes without it carried half a dump.
    End,
}

/// The filling end.
pub struct PipeWriter {
    filled: SyncSender<Item>,
    empty: Receiver<Zeroizing<Vec<u8>>>,
    buffer: Zeroizing<Vec<u8>>,
    cancel: Cancel,
}

/// The emptying end.
pub struct PipeReader {
    filled: Receiver<Item>,
    empty: SyncSender<Zeroizing<Vec<u8>>>,
}

/// Plaintext goes through it: it is wiped before its memory is given back.
fn new_buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(BUFFER_LEN))
}

/// A pipe; its writer fails once `cancel` is on.
pub fn pipe(cancel: Cancel) -> (PipeWriter, PipeReader) {
    let (filled, filled_out) = sync_channel(BUFFERS);
    let (empty, empty_out) = sync_channel(BUFFERS);
    for _ in 1..BUFFERS {
        // There is room for all of them: this cannot fail.
        let _ = empty.try_send(new_buffer());
    }
    let writer = PipeWriter { filled, empty: empty_out, buffer: new_buffer(), cancel };
    (writer, PipeReader { filled: filled_out, empty })
}

/// What a write fails with once the run is stopped, or the packing thread ended (which has its own
/// reason, and that one is reported).
fn closed() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}

impl PipeWriter {
    /// The dump ended well.
    pub fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.filled.send(Item::End).map_err(|_| closed())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(closed());
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let next = self.empty.recv().map_err(|_| closed())?;
        let full = std::mem::replace(&mut self.buffer, next);
        self.filled.send(Item::Data(full)).map_err(|_| closed())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BUFFER_LEN {
            self.hand_over()?;
        }
        let fits = bytes.len().min(BUFFER_LEN - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..fits).unwrap_or_default());
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

impl Sink for PipeWriter {
    fn restart(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.filled.send(Item::Restart).map_err(|_| closed())
    }
}

impl PipeReader {
    /// The next item; None where the writer ended without an end.
    pub fn next(&self) -> Option<Item> {
        self.filled.recv().ok()
    }

    /// Gives a buffer back, to be filled again.
    pub fn give_back(&self, mut buffer: Zeroizing<Vec<u8>>) {
        buffer.clear();
        // A writer that has ended needs it no more.
        let _ = self.empty.try_send(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_a_writer_that_dies_leaves_no_end() {
        let (mut writer, reader) = pipe(Cancel::new());
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let thread = std::thread::spawn({
            let sent = sent.clone();
            move || {
                writer.write_all(&sent[..10]).unwrap();
                writer.restart().unwrap();
                writer.write_all(&sent).unwrap();
                writer.finish().unwrap();
            }
        });
        let mut got = Vec::new();
        let mut buffers = 0;
        loop {
            match reader.next().expect("an end comes") {
                Item::Data(buffer) => {
                    buffers += 1;
                    assert!(buffer.len() <= BUFFER_LEN);
                    got.extend_from_slice(&buffer);
                    reader.give_back(buffer);
                }
                Item::Restart => got.clear(),
                Item::End => break,
            }
        }
        thread.join().unwrap();
        assert!(got == sent);
        assert!(buffers > BUFFERS, "buffers were used again");

        let (mut writer, reader) = pipe(Cancel::new());
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_stopped_run_and_a_packer_that_ended_both_close_the_pipe() {
        let cancel = Cancel::new();
        let (mut writer, reader) = pipe(cancel.clone());
        writer.write_all(b"x").unwrap();
        cancel.cancel();
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(reader);

        let (mut writer, reader) = pipe(Cancel::new());
        drop(reader);
        let failed = (0..BUFFERS + 1).find_map(|_| writer.write_all(&vec![0; BUFFER_LEN + 1]).err());
        assert_eq!(failed.expect("it does not swallow for ever").kind(), io::ErrorKind::BrokenPipe);
    }
}
