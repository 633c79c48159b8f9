//! mongodump's archive as it passes: is it whole?
//!
//! ```text
//! magic | document of the head, one of each collection ..., end | blocks ...
//! block: document {db, collection, EOF}, documents of data ..., end
//! ```
//!
//! Documents are BSON: a length of four bytes, itself included. The end is four bytes of 255. Blocks of several
//! collections lie between each other; the last one of each says EOF.

use super::super::form::{Form, FormError, wrong};
use super::bson;
use std::collections::HashSet;
use std::io::Write;

/// What every archive begins with.
pub const MAGIC: &[u8; 4] = &[0x6d, 0xe2, 0x99, 0x81];

/// Stands where a document's length would.
const END: [u8; 4] = [0xff; 4];

/// A document has at least its length and a zero.
const DOCUMENT_MIN: usize = 5;

/// The server's limit is 16 MiB; mongodump itself allows some more.
const DOCUMENT_MAX: usize = 48 * 1024 * 1024;

/// A head or a block's first document is small; one that is not is not looked into.
const READ_MAX: usize = 64 * 1024;

/// What kind of document comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Magic,
    Head,
    Collections,
    /// Between two blocks: here an archive may end.
    Block,
    Data,
}

/// Reads an archive.
pub struct Archive {
    at: At,
    /// The four bytes that are a length or an end, and the rest of a document that is looked into.
    kept: Vec<u8>,
    /// Bytes of a document that nobody looks into.
    skip: usize,
    /// Collections that began and did not say EOF.
    open: HashSet<(String, String)>,
    server_version: Option<String>,
    has_collections: bool,
}

impl Archive {
    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            at: At::Magic,
            kept: Vec::new(),
            skip: 0,
            open: HashSet::new(),
            server_version: None,
            has_collections: false,
        }
    }

    /// Whether it has any, empty ones too.
    pub fn has_collections(&self) -> bool {
        self.has_collections
    }

    /// Of the server, as the head says.
    pub fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), FormError> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let here = self.skip.min(bytes.len());
                self.skip -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                continue;
            }
            let wanted = self.wanted()?;
            let missing = wanted.saturating_sub(self.kept.len()).min(bytes.len());
            let (now, later) = bytes.split_at(missing);
            self.kept.extend_from_slice(now);
            bytes = later;
            if self.kept.len() == wanted {
                self.take_kept()?;
            }
        }
        Ok(())
    }

    /// How many bytes make what comes next whole.
    fn wanted(&self) -> Result<usize, FormError> {
        let Some(first) = self.kept.first_chunk::<4>() else { return Ok(4) };
        if self.at == At::Magic || *first == END {
            return Ok(4);
        }
        self.document_len(*first)
    }

    fn document_len(&self, first: [u8; 4]) -> Result<usize, FormError> {
        match usize::try_from(i32::from_le_bytes(first)) {
            Ok(len) if (DOCUMENT_MIN..=DOCUMENT_MAX).contains(&len) => Ok(len),
            Ok(_) | Err(_) => wrong("a document in it has an impossible length"),
        }
    }

    /// A length, an end or a document is whole.
    fn take_kept(&mut self) -> Result<(), FormError> {
        let kept = std::mem::take(&mut self.kept);
        let first = kept.first_chunk::<4>().copied().unwrap_or_default();
        let is_end = first == END && kept.len() == 4;
        self.at = match self.at {
            At::Magic if kept == MAGIC => At::Head,
            At::Magic => return wrong("it does not begin like an archive of mongodump"),
            At::Head | At::Block if is_end => return wrong("an end stands where a document should"),
            At::Collections | At::Data if is_end => At::Block,
            At::Head | At::Block if kept.len() == 4 && self.document_len(first)? <= READ_MAX => {
                // Only the length so far: the document itself is wanted too.
                self.kept = kept;
                return Ok(());
            }
            At::Head if kept.len() > 4 => {
                self.server_version = bson::text(&kept, "server_version");
                At::Collections
            }
            At::Block if kept.len() > 4 => {
                self.begin_block(&kept)?;
                At::Data
            }
            At::Head | At::Block => return wrong("a block's first document is too long"),
            At::Collections | At::Data => {
                self.has_collections |= self.at == At::Collections;
                self.skip = self.document_len(first)? - 4;
                self.at
            }
        };
        Ok(())
    }

    fn begin_block(&mut self, document: &[u8]) -> Result<(), FormError> {
        let (Some(db), Some(collection)) = (bson::text(document, "db"), bson::text(document, "collection"))
        else {
            return wrong("a block does not say whose it is");
        };
        if bson::boolean(document, "EOF") == Some(true) {
            self.open.remove(&(db, collection));
        } else {
            self.open.insert((db, collection));
        }
        Ok(())
    }
}

impl Form for Archive {
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        self.read(bytes)?;
        Ok(out.write_all(bytes)?)
    }

    fn finish(&mut self, _: &mut dyn Write) -> Result<(), FormError> {
        if self.at != At::Block || !self.kept.is_empty() || self.skip > 0 {
            return wrong("it ends in the middle");
        }
        match self.open.iter().next() {
            None => Ok(()),
            Some((db, collection)) => {
                let more = self.open.len() - 1;
                wrong(format!(
                    "the collection {db}.{collection} and {more} more have no end: it ends in the middle"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(fields: &[(&str, &str)], eof: Option<bool>) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in fields {
            body.push(2);
            body.extend(name.as_bytes());
            body.push(0);
            body.extend((value.len() as i32 + 1).to_le_bytes());
            body.extend(value.as_bytes());
            body.push(0);
        }
        if let Some(eof) = eof {
            body.extend([b"\x08EOF\0", &[u8::from(eof)][..]].concat());
            body.extend([b"\x12CRC\0", &[7; 8][..]].concat());
        }
        let len = body.len() as i32 + 5;
        [&len.to_le_bytes(), &body[..], &[0]].concat()
    }

    fn archive() -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(document(&[("version", "0.1"), ("server_version", "7.0.5")], None));
        out.extend(document(&[("db", "d"), ("collection", "a"), ("metadata", "{}")], None));
        out.extend(document(&[("db", "d"), ("collection", "b"), ("metadata", "{}")], None));
        out.extend(END);
        for (collection, eof) in [("a", false), ("b", false), ("a", true), ("b", false), ("b", true)] {
            out.extend(document(&[("db", "d"), ("collection", collection)], Some(eof)));
            for _ in 0..if eof { 0 } else { 3 } {
                out.extend(document(&[("text", &"x".repeat(300))], None));
            }
            out.extend(END);
        }
        out
    }

    fn judge(bytes: &[u8], piece: usize) -> Result<Archive, FormError> {
        let (mut form, mut out) = (Archive::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            form.take(piece, &mut out)?;
        }
        form.finish(&mut out)?;
        assert_eq!(out, bytes);
        Ok(form)
    }

    #[test]
    fn a_whole_archive_is_whole_however_it_is_cut() {
        let bytes = archive();
        for piece in [1, 3, 4, 5, 100, bytes.len()] {
            let archive = judge(&bytes, piece).unwrap();
            assert_eq!((archive.server_version(), archive.has_collections()), (Some("7.0.5"), true));
        }
        let empty = [&MAGIC[..], &document(&[("version", "0.1")], None), &END].concat();
        let empty = judge(&empty, 7).unwrap();
        assert_eq!((empty.server_version(), empty.has_collections()), (None, false));
    }

    #[test]
    fn half_an_archive_is_never_whole_but_where_nothing_had_begun() {
        let bytes = archive();
        let begun: Vec<usize> = (0..bytes.len()).filter(|len| judge(&bytes[..*len], 37).is_ok()).collect();
        let prelude = bytes.windows(4).position(|four| four == END).unwrap() + 4;
        assert_eq!(begun, [prelude], "only there, where the exit status has to tell it");
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        for change in [0, 4, 7] {
            let mut bytes = archive();
            bytes[change] ^= 0xff;
            assert!(judge(&bytes, 64).is_err(), "{change}");
        }
        assert!(judge(&[archive(), vec![0]].concat(), 64).is_err());
    }
}
