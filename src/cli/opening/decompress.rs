//! The content's compression, known by its first bytes: the token does not name it, and objects of other
//! writers are told the same way.

use super::Failure;
use crate::object::OpenError;
use flate2::read::MultiGzDecoder;
use std::io::{self, Chain, Cursor, Read};

/// RFC 8878 section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 1952 section 2.3.1, with the one method that it knows.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];

/// How the content is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Gzip,
    None,
}

impl Encoding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}

/// Bytes that were looked at, then the rest.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// The content of an object, unpacked.
pub(super) enum Body<R: Read> {
    Zstd(Box<zstd::stream::read::Decoder<'static, io::BufReader<Whole<R>>>>),
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    Plain(Whole<R>),
}

impl<R: Read> Body<R> {
    /// The content as it is.
    pub fn plain(object: R) -> Self {
        Self::Plain(Cursor::new(Vec::new()).chain(object))
    }

    /// Looks at the first bytes.
    ///
    /// # Errors
    /// Of the object.
    pub fn sniff(mut object: R) -> Result<Self, Failure> {
        let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
        object
            .by_ref()
            .take(ZSTD_MAGIC.len() as u64)
            .read_to_end(&mut head)
            .map_err(|error| failure(Encoding::None, error))?;
        let is_zstd = head == ZSTD_MAGIC;
        let is_gzip = head.starts_with(&GZIP_MAGIC);
        let whole = Cursor::new(head).chain(object);
        if is_zstd {
            let decoder = zstd::stream::read::Decoder::new(whole).map_err(Failure::Internal)?;
            Ok(Self::Zstd(Box::new(decoder)))
        } else if is_gzip {
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(whole))))
        } else {
            Ok(Self::Plain(whole))
        }
    }

    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Zstd(_) => Encoding::Zstd,
            Self::Gzip(_) => Encoding::Gzip,
            Self::Plain(_) => Encoding::None,
        }
    }

    /// The next bytes; 0 at the end.
    ///
    /// # Errors
    /// Of the object, or of what unpacks it.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let read = match self {
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Plain(whole) => whole.read(buffer),
        };
        read.map_err(|error| failure(self.encoding(), error))
    }
}

fn failure(encoding: Encoding, error: io::Error) -> Failure {
    match OpenError::within(&error) {
        Some(object) => Failure::Object(object.clone()),
        None => Failure::Content { encoding: encoding.name(), cause: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpack(packed: &[u8]) -> Result<(Encoding, Vec<u8>), Failure> {
        let mut body = Body::sniff(packed)?;
        let mut out = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match body.read(&mut buffer)? {
                0 => return Ok((body.encoding(), out)),
                read => out.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_is_known_by_its_first_bytes() {
        let text = b"SQLite format 3\0 and what follows".repeat(100);
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(unpack(&zstd).unwrap(), (Encoding::Zstd, text.clone()));
        assert_eq!(unpack(&gzip(&text)).unwrap(), (Encoding::Gzip, text.clone()));
        assert_eq!(unpack(&text).unwrap(), (Encoding::None, text));
        for short in [&b""[..], b"x", &ZSTD_MAGIC[..3], &GZIP_MAGIC[..2]] {
            assert_eq!(unpack(short).unwrap(), (Encoding::None, short.to_vec()));
        }
    }

    #[test]
    fn streams_of_several_members_are_unpacked_to_their_end() {
        let two = |pack: &dyn Fn(&[u8]) -> Vec<u8>| [pack(b"one "), pack(b"two")].concat();
        assert_eq!(unpack(&two(&gzip)).unwrap().1, b"one two");
        assert_eq!(unpack(&two(&|bytes| zstd::encode_all(bytes, 1).unwrap())).unwrap().1, b"one two");
    }

    #[test]
    fn a_broken_stream_is_a_fault_of_the_content() {
        let zstd = zstd::encode_all(&b"whole".repeat(100)[..], 3).unwrap();
        let gzip = gzip(&b"whole".repeat(100));
        let with_tail = [&zstd[..], b"tail"].concat();
        for broken in [&zstd[..zstd.len() - 1], &gzip[..gzip.len() - 1], &with_tail] {
            assert!(matches!(unpack(broken).unwrap_err(), Failure::Content { .. }));
        }
    }
}
