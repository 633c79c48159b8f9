//! An RDB as it passes: it ends with the byte 255 and the checksum of everything before.
//!
//! `redis-cli --rdb -` may write the end mark of a replication stream behind it, 40 hexadecimal digits: they are not
//! part of the file. No whole RDB ends like that, since the byte 255 stands nine bytes before its end.

use super::super::form::{Form, FormError, wrong};
use super::super::tally::Tally;
use super::keys::Keys;
use super::opcodes::AUX;
use crc::{CRC_64_REDIS, Crc, Digest, Table};
use std::io::Write;

/// What every RDB begins with: Redis' name and four digits of a version; from version 80 on, which Valkey 9 began, its own
/// name and three.
pub const MAGICS: [&[u8]; 2] = [b"REDIS", b"VALKEY"];

/// The operation that ends an RDB.
const END: u8 = 255;

/// Of the checksum, the lowest byte first. All zero where the server was told to write none.
const SUM_LEN: usize = 8;

/// Of the end mark.
const MARK_LEN: usize = 40;

/// The name and the version.
const HEAD_LEN: usize = 9;

/// Of the beginning: head, and the first field with its version.
const HEAD_KEPT: usize = 64;

/// How the first field is called, and whose it is.
const VERSIONS: [(&str, &str); 2] = [("redis-ver", "Redis"), ("valkey-ver", "Valkey")];

/// The shortest RDB: head, end, checksum.
const SHORTEST: usize = HEAD_LEN + 1 + SUM_LEN;

/// Held back until the end is known: it may be checksum and mark.
const HELD_LEN: usize = 1 + SUM_LEN + MARK_LEN;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// Holds an RDB against its checksum, and counts its keys.
pub struct Rdb {
    held: Vec<u8>,
    digest: Digest<'static, u64, Table<16>>,
    passed: u64,
    head: Vec<u8>,
    keys: Keys,
}

impl Rdb {
    /// Before the first byte.
    pub fn new() -> Self {
        Self { held: Vec::new(), digest: CRC.digest(), passed: 0, head: Vec::new(), keys: Keys::new() }
    }

    /// Of the server, as the first field of the file says.
    pub fn version(&self) -> Option<String> {
        let field = self.head.get(HEAD_LEN..)?;
        VERSIONS.iter().find_map(|(name, engine)| {
            let value = field.strip_prefix(&[AUX, name.len() as u8])?.strip_prefix(name.as_bytes())?;
            let (len, value) = value.split_first()?;
            let value = value.get(..usize::from(*len))?;
            // A longer one, or a number, is no version.
            let version = std::str::from_utf8(value).ok()?;
            let is_version = version.bytes().all(|byte| byte.is_ascii_graphic());
            is_version.then(|| format!("{engine} {version}"))
        })
    }

    fn pass(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        self.digest.update(bytes);
        self.keys.take(bytes);
        self.passed += bytes.len() as u64;
        Ok(out.write_all(bytes)?)
    }
}

impl Form for Rdb {
    fn take(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<(), FormError> {
        if self.head.len() < HEAD_KEPT {
            let missing = (HEAD_KEPT - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(bytes.get(..missing).unwrap_or_default());
            let begins = |magic: &&[u8]| self.head.starts_with(magic) || magic.starts_with(&self.head);
            if !MAGICS.iter().any(begins) {
                return wrong("it begins with neither REDIS nor VALKEY");
            }
        }
        let mut ready = (self.held.len() + bytes.len()).saturating_sub(HELD_LEN);
        if ready > 0 {
            let old = ready.min(self.held.len());
            let first: Vec<u8> = self.held.drain(..old).collect();
            self.pass(&first, out)?;
            ready -= old;
        }
        let (now, later) = bytes.split_at(ready);
        self.pass(now, out)?;
        self.held.extend_from_slice(later);
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<(), FormError> {
        let mut held = std::mem::take(&mut self.held);
        let cut = held.len().saturating_sub(MARK_LEN);
        let marked = held.len() == HELD_LEN
            && held.get(cut..).is_some_and(|mark| mark.iter().all(u8::is_ascii_hexdigit));
        if marked {
            held.truncate(cut);
        }
        let ends = held.len().checked_sub(SUM_LEN).map(|at| held.split_at(at));
        let (Some((last, sum)), true) = (ends, self.passed + held.len() as u64 >= SHORTEST as u64) else {
            return wrong("it ends in the middle");
        };
        if last.last() != Some(&END) {
            return wrong("its end mark is missing: it ends in the middle");
        }
        let stored = sum.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        self.pass(last, out)?;
        let computed = std::mem::replace(&mut self.digest, CRC.digest()).finalize();
        if stored != 0 && stored != computed {
            return wrong("its checksum does not fit: it was damaged on its way, or ends in the middle");
        }
        Ok(out.write_all(sum)?)
    }

    fn tally(&mut self) -> Option<Tally> {
        self.keys.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8; 40] = b"0123456789abcdef0123456789abcdef01234567";

    fn rdb(body: usize, with_sum: bool) -> Vec<u8> {
        let mut out = b"REDIS0010".to_vec();
        out.extend((0..body).map(|n| (n * 7 % 251) as u8));
        out.push(END);
        let sum = if with_sum { CRC.checksum(&out) } else { 0 };
        out.extend(sum.to_le_bytes());
        out
    }

    fn judge(bytes: &[u8], piece: usize) -> Result<Vec<u8>, FormError> {
        let (mut form, mut out) = (Rdb::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            form.take(piece, &mut out)?;
        }
        form.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn the_checksum_is_the_one_of_redis() {
        // Out of Redis' own crc64.c.
        assert_eq!(CRC.checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn a_whole_rdb_comes_out_without_the_mark_however_it_is_cut() {
        for body in [0, 1, 30, 31, 32, 50, 5_000] {
            for with_sum in [true, false] {
                let plain = rdb(body, with_sum);
                let marked = [&plain[..], MARK].concat();
                for piece in [1, 8, 48, 49, 50, 10_000] {
                    assert!(judge(&plain, piece).unwrap() == plain, "{body} {piece}");
                    assert!(judge(&marked, piece).unwrap() == plain, "{body} {piece} marked");
                }
            }
        }
    }

    #[test]
    fn an_rdb_of_valkey_9_is_one_too() {
        // Out of Valkey 9.1.2: a string, and a hash with a field that expires.
        let mut dump =
            b"VALKEY080\xfa\nvalkey-ver\x059.1.2\xfa\nredis-bits\xc0@\xfa\x05ctime\xc2\x13\xf9\x04k\
            \xfa\x08used-mem\xc2X\xef\x11\x00\xfa\x0erepl-stream-db\xc0\x00\
            \xfa\x07repl-id(a1d7bea7d8c04a2e894b92a09c5d0173613dcbd2\xfa\x0brepl-offset\xc1\xb4\x00\
            \xfa\x08aof-base\xc0\x00\xfe\x00\xfb\x02\x00\x00\x01a\x01b\
            \x16\x01h\x01\x01f\x01v\x13\xd6{\x0b\xa2\x01\x00\x00\xff\x07s&\xc8\xbd\xe5\xca-"
                .to_vec();
        let (mut form, mut out) = (Rdb::new(), Vec::new());
        form.take(&[&dump[..], MARK].concat(), &mut out).unwrap();
        form.finish(&mut out).unwrap();
        assert_eq!(out, dump);
        assert_eq!(form.tally().unwrap().rows()["db0"], 2);
        assert_eq!(form.version().as_deref(), Some("Valkey 9.1.2"));
        dump[100] ^= 1;
        assert!(judge(&dump, 33).is_err() && judge(b"VALKYRIE", 3).is_err());
    }

    #[test]
    fn half_an_rdb_and_a_damaged_one_are_refused() {
        let plain = rdb(200, true);
        for len in 0..plain.len() {
            assert!(judge(&plain[..len], 33).is_err(), "{len}");
        }
        for at in 0..plain.len() {
            let mut damaged = plain.clone();
            damaged[at] ^= 0x10;
            assert!(judge(&damaged, 33).is_err(), "{at}");
        }
        assert!(judge(b"NOAUTH Authentication required.\n", 9).is_err());
    }
}
