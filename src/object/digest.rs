//! SHA-256 on the way, over the exact bytes that pass.

use ring::digest::{Context, SHA256};
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};

/// SHA-256 over a whole object. Displayed as lower-case hex, as the contract wants it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest that is written in hex of either case; None for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    fn of(context: &Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.clone().finish().as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        fmt::Display::fmt(self, f)?;
        f.write_char(')')
    }
}

/// Hashes and counts what is read through it.
pub struct HashingReader<R: Read> {
    reader: R,
    context: Context,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Nothing read yet.
    pub fn new(reader: R) -> Self {
        Self { reader, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Bytes so far.
    pub fn byte_count(&self) -> u64 {
        self.bytes
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.context)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.context.update(buffer.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Hashes and counts what is written through it.
pub struct HashingWriter<W: Write> {
    writer: W,
    context: Context,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Nothing written yet.
    pub fn new(writer: W) -> Self {
        Self { writer, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Bytes so far.
    pub fn byte_count(&self) -> u64 {
        self.bytes
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.context)
    }

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
