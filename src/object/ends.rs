//! A second look at an object on the disk, without reading all of it.

use super::error::{Disorder, OpenError};
use super::format::{END_LEN, FRAME_LEN, KEY_LEN, MAX_LEN, MIN_LEN, Place, cipher};
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use std::io::{self, Read, Seek, SeekFrom};

/// Opens the first and the last frame of an object of [`super::Sealer`], and checks the final zero: what tells a
/// spool that was cut or mixed up (behaviour section 4), at the price of two frames. Gives the number of
/// frames that the size makes.
///
/// # Errors
/// See [`OpenError`].
pub fn check_ends<R: Read + Seek>(object: &mut R, key: &[u8; KEY_LEN]) -> Result<u64, OpenError> {
    let size = object.seek(SeekFrom::End(0)).map_err(reading)?;
    let body = size.saturating_sub(END_LEN as u64);
    let frames = body.div_ceil(FRAME_LEN as u64);
    if frames == 0 {
        return Err(OpenError::Truncated { frame: 0, bytes: size });
    }
    let cipher = cipher(key).map_err(reading)?;
    let last = frames - 1;

    object.seek(SeekFrom::Start(0)).map_err(reading)?;
    let first_place = open_here(object, &cipher, 0, size)?;
    if first_place.counter != 0 || first_place.flag != u8::from(last == 0) {
        return Err(OpenError::OutOfOrder { frame: 0, found: Disorder::NotTheFirst });
    }
    object.seek(SeekFrom::Start(last * FRAME_LEN as u64)).map_err(reading)?;
    let last_place = open_here(object, &cipher, last, size)?;
    let out_of_order = |found| Err(OpenError::OutOfOrder { frame: last, found });
    if last_place.prefix != first_place.prefix {
        return out_of_order(Disorder::OtherObject);
    }
    if u64::from(last_place.counter) != last {
        return out_of_order(Disorder::Counter { expected: last, found: last_place.counter });
    }
    if last_place.flag != 1 {
        return out_of_order(Disorder::LastMissing);
    }
    let mut end = [0; END_LEN];
    object.read_exact(&mut end).map_err(|error| cut_or_failed(error, frames, size))?;
    let at = object.stream_position().map_err(reading)?;
    match u32::from_be_bytes(end) {
        0 if at == size => Ok(frames),
        0 => Err(OpenError::TrailingData { bytes: at }),
        len => Err(OpenError::BadLength { frame: frames, len }),
    }
}

/// Authenticates the frame at the reader's position; the reader is behind it then.
fn open_here<R: Read>(
    object: &mut R,
    cipher: &LessSafeKey,
    frame: u64,
    size: u64,
) -> Result<Place, OpenError> {
    let mut length = [0; END_LEN];
    object.read_exact(&mut length).map_err(|error| cut_or_failed(error, frame, size))?;
    let len = u32::from_be_bytes(length);
    if !(MIN_LEN..=MAX_LEN).contains(&len) {
        return Err(OpenError::BadLength { frame, len });
    }
    let mut bytes = vec![0; len as usize];
    object.read_exact(&mut bytes).map_err(|error| cut_or_failed(error, frame, size))?;
    let authentication = OpenError::Authentication { frame };
    let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(|| authentication.clone())?;
    cipher
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), sealed)
        .map_err(|_| authentication)?;
    Ok(Place::of(nonce))
}

fn cut_or_failed(error: io::Error, frame: u64, bytes: u64) -> OpenError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        OpenError::Truncated { frame, bytes }
    } else {
        reading(error)
    }
}

fn reading(error: io::Error) -> OpenError {
    OpenError::Read { kind: error.kind(), cause: error.to_string() }
}
