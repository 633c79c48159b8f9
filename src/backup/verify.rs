//! A second look at the spool: what cannot be opened again is no backup.

use super::error::RunError;
use super::thread::on_thread;
use crate::model::{Compression, Dek};
use crate::object::{HashingReader, Opener, Order};
use crate::process::Cancel;
use crate::spool::{Spool, SpoolError};
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;

/// What the spool must hold.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Of the object.
    pub size_bytes: u64,
    /// What was sealed, where that is what the engine gave.
    pub plain_bytes: u64,
    /// Whether it is.
    pub compression: Compression,
    /// Of the object, where an earlier life of the agent wrote it.
    pub sha256: Option<[u8; 32]>,
}

/// Opens every frame of the spool on a thread of its own, beside the upload: authentic, in order, whole.
///
/// # Errors
/// [`RunError::Spool`] where the disk gave back something else than was written.
pub fn verify_spool(
    spool: &Arc<Spool>,
    key: &Dek,
    expected: Expected,
    cancel: &Cancel,
) -> Result<impl Future<Output = Result<(), RunError>> + use<>, RunError> {
    let (spool, key, cancel) = (Arc::clone(spool), key.clone(), cancel.clone());
    let ended = on_thread("run-verify", move || open_all(&spool, &key, &expected, &cancel))?;
    Ok(async move {
        let died = |_| RunError::Internal("its verifying thread ended without a result".into());
        ended.await.map_err(died)?
    })
}

fn open_all(spool: &Spool, key: &Dek, expected: &Expected, cancel: &Cancel) -> Result<(), RunError> {
    let file = spool.reader()?;
    // Every frame is authentic or the object does not open: the sum is one more look only at what an earlier life
    // of the agent noted.
    let Some(sum) = expected.sha256 else {
        return open_each(file, spool, key, expected, cancel).map(|_| ());
    };
    let opener = open_each(HashingReader::new(file), spool, key, expected, cancel)?;
    if sum != *opener.get_ref().digest().as_bytes() {
        return Err(failed(spool, io::Error::other("its SHA-256 is not what it was before the restart")));
    }
    Ok(())
}

fn open_each<R: Read>(
    reader: R,
    spool: &Spool,
    key: &Dek,
    expected: &Expected,
    cancel: &Cancel,
) -> Result<Opener<R>, RunError> {
    let plain_key = key.plain().ok_or(RunError::WrappedKey { len: key.as_received().len() })?;
    let mut opener = Opener::new(reader, plain_key, Order::Strict).map_err(|error| failed(spool, error))?;
    while opener.next_chunk().map_err(|error| failed(spool, error.into()))?.is_some() {
        if cancel.is_cancelled() {
            return Err(RunError::Cancelled);
        }
    }
    if opener.object_bytes() != expected.size_bytes {
        let what = format!("{} bytes instead of {}", opener.object_bytes(), expected.size_bytes);
        return Err(failed(spool, io::Error::other(what)));
    }
    if expected.compression == Compression::None && opener.plaintext_bytes() != expected.plain_bytes {
        return Err(failed(spool, io::Error::other("its content is not as long as the dump was")));
    }
    Ok(opener)
}

fn failed(spool: &Spool, cause: io::Error) -> RunError {
    let text = format!("the sealed object does not open again: {cause}; check the disk and its memory");
    SpoolError::Io { path: spool.path().to_owned(), cause: io::Error::other(text) }.into()
}
