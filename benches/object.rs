//! Sealing and opening beside their physical limits in the same run: AES-256-GCM and SHA-256 of the crypto
//! library over the same bytes, without any format around them.

use backupy_agent::object::{HashingWriter, Opener, Order, Sealer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use std::hint::black_box;
use std::io::{self, Write};

const MIB: usize = 1024 * 1024;
/// Larger than the caches, small enough for a short run.
const STREAM_LEN: usize = 64 * MIB;
const KEY: [u8; 32] = [7; 32];
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn stream() -> Vec<u8> {
    (0..STREAM_LEN).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn seal<W: Write>(plain: &[u8], writer: W) -> io::Result<W> {
    let mut sealer = Sealer::new(writer, &KEY)?;
    sealer.write_all(plain)?;
    sealer.finish()
}

fn seal_in_place(buffer: &mut [u8]) -> Outcome<()> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).map_err(|_| "no key")?);
    for chunk in buffer.chunks_mut(MIB) {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).map_err(|_| "not sealed")?;
        black_box(tag.as_ref());
    }
    Ok(())
}

fn open(object: &[u8]) -> io::Result<u64> {
    io::copy(&mut Opener::new(object, &KEY, Order::Strict)?, &mut io::sink())
}

fn object(criterion: &mut Criterion) {
    let plain = stream();
    let whole = seal(&plain, Vec::new()).unwrap_or_default();
    assert!(open(&whole).is_ok_and(|bytes| bytes == STREAM_LEN as u64), "what is timed must work");
    let mut group = criterion.benchmark_group("object");
    group.throughput(Throughput::Bytes(STREAM_LEN as u64)).sample_size(10);

    let mut buffer = plain.clone();
    group.bench_function("limit: AES-256-GCM in place", |bencher| {
        bencher.iter(|| seal_in_place(&mut buffer).is_ok());
    });
    group.bench_function("seal to nowhere", |bencher| {
        bencher.iter(|| seal(black_box(&plain), io::sink()).is_ok());
    });
    group.bench_function("limit: SHA-256", |bencher| bencher.iter(|| digest(&SHA256, black_box(&plain))));
    group.bench_function("seal and hash to nowhere", |bencher| {
        bencher
            .iter(|| seal(black_box(&plain), HashingWriter::new(io::sink())).map(|writer| writer.digest()));
    });
    group.bench_function("open to nowhere", |bencher| bencher.iter(|| open(black_box(&whole))));
    group.finish();
}

criterion_group!(benches, object);
criterion_main!(benches);
