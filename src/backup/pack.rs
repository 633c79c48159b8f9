//! Compress, seal, hash, spool: what happens to a dump on its way to the disk.

use super::dumped::Packed;
use super::error::RunError;
use super::outlet::{Outlet, OutletWriter};
use super::pipe::{Item, PipeReader};
use super::tuning::{self, Tuner, WINDOW_LOG};
use crate::model::{Compression, Dek};
use crate::object::{HashingWriter, Sealer};
use crate::spool::{Room, SpoolError};
use flate2::write::GzEncoder;
use std::io::{self, Write};
use zstd::stream::raw::{CParameter, Encoder as RawEncoder};
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::stream::zio;

/// Input of one zstd job. zstd's own choice at level 3 is 8 MiB, of which every worker keeps several (57 MiB at
/// two workers). 1 MiB leaves the workers dry while the thread that feeds them waits for its turn, 2 MiB take
/// 12 MiB more; between them objects grow by less than 1 %.
const JOB_BYTES: u32 = 1536 * 1024;

/// The level whose search follows the dump ([`Tuner`]); the others are zstd's own.
const DUMP_LEVEL: i32 = 3;

/// Beyond it one reader cannot feed them, and each costs some MiB.
const MAX_THREADS: u32 = 16;

/// What zstd writes at once: hand-overs to the sealer are copies, few are enough.
const OUT_BUFFER_LEN: usize = 128 * 1024;

/// How to pack.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Of the stream.
    pub compression: Compression,
    /// 1 to 22.
    pub zstd_level: i32,
    /// 1 to 9.
    pub gzip_level: u32,
    /// zstd's workers.
    pub threads: u32,
    /// Seals the object.
    pub key: Dek,
    /// Watched while the spool grows.
    pub room: Room,
}

type Sealed<'a> = Sealer<HashingWriter<OutletWriter<'a>>>;

/// Packs what comes out of the pipe. None where the pipe closed without an end: the dump failed, and
/// its thread knows why. The pipe ends here, so that a dump whose object fails ends too.
///
/// # Errors
/// [`RunError::Spool`], [`RunError::Pack`], [`RunError::WrappedKey`].
pub fn pack(from: PipeReader, outlet: &Outlet, packing: &Packing) -> Result<Option<Packed>, RunError> {
    // Not before the first item: only then the engine has told how much it expects, and parts are large enough.
    let mut chain = None;
    loop {
        match from.next() {
            Some(Item::Data(buffer)) => {
                let begun = match chain.take() {
                    Some(begun) => begun,
                    None => Chain::new(outlet, packing)?,
                };
                chain.insert(begun).write(&buffer)?;
                from.give_back(buffer);
            }
            Some(Item::Restart) => chain = None,
            Some(Item::End) => {
                let begun = match chain {
                    Some(begun) => begun,
                    None => Chain::new(outlet, packing)?,
                };
                return begun.finish().map(Some);
            }
            None => return Ok(None),
        }
    }
}

enum Chain<'a> {
    Zstd(Box<ZstdEncoder<'static, Sealed<'a>>>, Option<Tuner>),
    Gzip(Box<GzEncoder<Sealed<'a>>>),
    Plain(Box<Sealed<'a>>),
}

impl<'a> Chain<'a> {
    fn new(outlet: &'a Outlet, packing: &Packing) -> Result<Self, RunError> {
        let wrapped = || RunError::WrappedKey { len: packing.key.as_received().len() };
        let key = packing.key.plain().ok_or_else(wrapped)?;
        let sealer = Sealer::new(HashingWriter::new(outlet.begin(&packing.room)?), key)
            .map_err(|cause| failed("sealing", cause))?;
        Ok(match packing.compression {
            Compression::Zstd => {
                let encoder =
                    zstd_encoder(sealer, packing).map_err(|cause| failed("starting zstd", cause))?;
                Self::Zstd(Box::new(encoder), (packing.zstd_level == DUMP_LEVEL).then(Tuner::new))
            }
            Compression::Gzip => {
                Self::Gzip(Box::new(GzEncoder::new(sealer, flate2::Compression::new(packing.gzip_level))))
            }
            Compression::None => Self::Plain(Box::new(sealer)),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let written = match self {
            Self::Zstd(encoder, None) => encoder.write_all(bytes),
            Self::Zstd(encoder, Some(tuner)) => tuned(encoder, tuner, bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Plain(sealer) => sealer.write_all(bytes),
        };
        written.map_err(|cause| failed("packing the dump", cause))
    }

    fn finish(self) -> Result<Packed, RunError> {
        let sealer = match self {
            Self::Zstd(encoder, _) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Plain(sealer) => Ok(*sealer),
        };
        let hashed = sealer.and_then(Sealer::finish).map_err(|cause| failed("ending the object", cause))?;
        let packed = Packed { size_bytes: hashed.byte_count(), sha256: *hashed.digest().as_bytes() };
        hashed.into_inner().end().map_err(|cause| failed("ending the object", cause))?;
        Ok(packed)
    }
}

fn zstd_encoder<'a>(sealer: Sealed<'a>, packing: &Packing) -> io::Result<ZstdEncoder<'static, Sealed<'a>>> {
    let threads = packing.threads.clamp(1, MAX_THREADS);
    let mut raw = RawEncoder::new(packing.zstd_level)?;
    raw.set_parameter(CParameter::NbWorkers(threads))?;
    raw.set_parameter(CParameter::JobSize(JOB_BYTES))?;
    raw.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    if packing.zstd_level == DUMP_LEVEL {
        tuning::begin().try_for_each(|parameter| raw.set_parameter(parameter))?;
    }
    Ok(ZstdEncoder::with_writer(zio::Writer::new_with_capacity(sealer, raw, OUT_BUFFER_LEN)))
}

/// Writes on, and changes the search from the next job on where another one suits the data better.
fn tuned(encoder: &mut ZstdEncoder<'static, Sealed<'_>>, tuner: &mut Tuner, bytes: &[u8]) -> io::Result<()> {
    encoder.write_all(bytes)?;
    let other = tuner.take(bytes)?;
    other.into_iter().flatten().try_for_each(|parameter| encoder.set_parameter(parameter))
}

/// A failure of the chain; what its end, the spool, said, where it was the spool.
fn failed(stage: &'static str, mut cause: io::Error) -> RunError {
    match SpoolError::within(&mut cause) {
        Some(spool) => spool.into(),
        None => RunError::Pack { stage, cause },
    }
}
