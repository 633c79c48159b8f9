//! The MD5 of a whole spool, which is the ETag that most stores give a single PUT.

use super::http::Source;
use crate::backup::error::RunError;
use crate::backup::thread::on_thread;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Read at once.
const READ_LEN: usize = 256 * 1024;

/// An upload that is over so soon goes to a store nearby, and takes the processor that the sum would take: until then,
/// or until it is asked for, the sum waits.
const HEAD_START: Duration = Duration::from_millis(300);

/// Made beside the upload, on a thread of its own: MD5 is slower than a fast network. Given up when it is dropped,
/// for not every store's answer needs it.
pub struct Md5Sum {
    source: Source,
    coming: Option<Coming>,
    known: Option<String>,
}

struct Coming {
    ended: oneshot::Receiver<io::Result<String>>,
    /// A word means at once, its end that nobody wants the sum any more.
    wanted: Sender<()>,
}

impl Md5Sum {
    /// Begins with it.
    ///
    /// # Errors
    /// [`RunError::Internal`] where the machine has no room for a thread.
    pub fn of(source: &Source) -> Result<Self, RunError> {
        Ok(Self { source: source.clone(), coming: Some(begin(source)?), known: None })
    }

    /// Waits for it: 32 hex digits.
    ///
    /// # Errors
    /// Why the spool could not be read, in words; the next call tries again.
    pub async fn get(&mut self) -> Result<&str, String> {
        let sum = match self.known.take() {
            Some(sum) => sum,
            None => self.wait().await?,
        };
        Ok(self.known.insert(sum))
    }

    async fn wait(&mut self) -> Result<String, String> {
        let coming = match self.coming.take() {
            Some(coming) => coming,
            None => begin(&self.source).map_err(|error| error.to_string())?,
        };
        // A thread that has begun already hears nothing.
        let _ = coming.wanted.send(());
        let ended = coming.ended.await;
        drop(coming.wanted);
        match ended {
            Ok(Ok(sum)) => Ok(sum),
            Ok(Err(error)) => Err(format!("its own data could not be read: {error}")),
            Err(_) => Err("the thread that sums the spool ended without a result".into()),
        }
    }
}

fn begin(source: &Source) -> Result<Coming, RunError> {
    let (source, (wanted, wants)) = (source.clone(), channel());
    let ended = on_thread("run-md5", move || sum(&source, &wants))?;
    Ok(Coming { ended, wanted })
}

fn sum(source: &Source, wants: &Receiver<()>) -> io::Result<String> {
    let unwanted = || io::Error::other("nobody wants the sum");
    if wants.recv_timeout(HEAD_START) == Err(RecvTimeoutError::Disconnected) {
        return Err(unwanted());
    }
    let mut hash = Md5::new();
    let mut at = 0;
    loop {
        let piece = source.read(at, READ_LEN)?;
        if piece.is_empty() {
            return Ok(HEXLOWER.encode(&hash.finalize()));
        }
        at += piece.len() as u64;
        hash.update(&piece);
        if wants.try_recv() == Err(TryRecvError::Disconnected) {
            return Err(unwanted());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_sum_is_had_as_often_as_it_is_asked_for() {
        let source = Source::Memory(Bytes::from_static(b"abc"));
        let mut sum = Md5Sum::of(&source).unwrap();
        for _ in 0..2 {
            assert_eq!(sum.get().await.unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        }
    }

    #[tokio::test]
    async fn a_spool_that_is_shorter_than_it_was_has_no_sum() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut sum = Md5Sum::of(&Source::File { file, offset: 0, len: 10 }).unwrap();
        for _ in 0..2 {
            assert!(sum.get().await.unwrap_err().contains("could not be read"));
        }
    }
}
