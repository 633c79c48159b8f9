use super::format::Prefix;
use super::*;
use std::io::{self, Cursor, Read, Write};

const KEY: [u8; KEY_LEN] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31,
];
const PREFIX: Prefix = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6];

/// As tests/data/object/make.py makes it.
fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + i / 256) % 251) as u8).collect()
}

fn seal_at(prefix: Prefix, plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::at(Vec::new(), &KEY, prefix, 0).unwrap();
    sealer.write_all(plaintext).unwrap();
    sealer.finish().unwrap()
}

fn seal(plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), &KEY).unwrap();
    sealer.write_all(plaintext).unwrap();
    sealer.finish().unwrap()
}

fn open_with(object: &[u8], order: Order) -> Result<Vec<u8>, OpenError> {
    let mut opener = Opener::new(object, &KEY, order).unwrap();
    let mut out = Vec::new();
    while let Some(chunk) = opener.next_chunk()? {
        out.extend_from_slice(chunk);
    }
    assert_eq!(opener.object_bytes(), object.len() as u64);
    assert_eq!(opener.plaintext_bytes(), out.len() as u64);
    Ok(out)
}

fn open(object: &[u8]) -> Result<Vec<u8>, OpenError> {
    open_with(object, Order::Strict)
}

/// The frames of an object, length fields included, without the final zero.
fn frames(object: &[u8]) -> Vec<&[u8]> {
    let mut rest = object;
    let mut frames = Vec::new();
    loop {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        if len == 0 {
            return frames;
        }
        frames.push(&rest[..4 + len]);
        rest = &rest[4 + len..];
    }
}

fn object_of(frames: &[&[u8]]) -> Vec<u8> {
    let mut object = frames.concat();
    object.extend([0; END_LEN]);
    object
}

#[test]
fn round_trips_at_every_edge_of_a_chunk() {
    for len in [0, 1, 1000, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 3 * CHUNK_LEN + 17] {
        let plaintext = plaintext(len);
        let object = seal(&plaintext);
        assert_eq!(object.len() as u64, sealed_len(len as u64), "{len} bytes of plaintext");
        assert_eq!(open(&object).unwrap(), plaintext, "{len} bytes of plaintext");
        assert_eq!(
            check_ends(&mut Cursor::new(&object), &KEY).unwrap(),
            len.div_ceil(CHUNK_LEN).max(1) as u64,
            "{len} bytes of plaintext"
        );
    }
}

#[test]
fn writes_the_bytes_of_an_independent_implementation() {
    assert_eq!(seal_at(PREFIX, b""), include_bytes!("../../tests/data/object/empty.bkpy"));
    assert_eq!(seal_at(PREFIX, &plaintext(1000)), include_bytes!("../../tests/data/object/small.bkpy"));

    let mut hashing = HashingWriter::new(io::sink());
    hashing.write_all(&seal_at(PREFIX, &plaintext(CHUNK_LEN + 5))).unwrap();
    let found = format!("{} {}\n", hashing.digest(), hashing.byte_count());
    assert_eq!(found, include_str!("../../tests/data/object/two_frames.sha256"));
}

#[test]
fn opens_another_writers_object_only_when_asked() {
    let object = include_bytes!("../../tests/data/object/other_writer.bkpy");
    assert_eq!(open_with(object, Order::AllowUnordered).unwrap(), plaintext(1000));
    assert_eq!(open(object).unwrap_err(), OpenError::OutOfOrder { frame: 0, found: Disorder::NotTheFirst });
}

#[test]
fn two_objects_of_one_plaintext_have_no_frame_in_common() {
    assert_ne!(seal(b"the same")[4..], seal(b"the same")[4..]);
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let object = seal(&plaintext(300));
    // One frame of 4 + 12 + 300 + 16 bytes, and the final zero.
    for at in 0..object.len() {
        for bit in [0x01, 0x80] {
            let mut changed = object.clone();
            changed[at] ^= bit;
            let error = open(&changed).expect_err("a changed object opened");
            let authentication = OpenError::Authentication { frame: 0 };
            match at {
                0..4 => assert!(
                    matches!(
                        error,
                        OpenError::BadLength { .. }
                            | OpenError::Truncated { .. }
                            | OpenError::Authentication { .. }
                    ),
                    "byte {at}: {error}"
                ),
                4..332 => assert_eq!(error, authentication, "byte {at}"),
                _ => assert!(
                    matches!(error, OpenError::BadLength { frame: 1, .. } | OpenError::Truncated { .. }),
                    "byte {at}: {error}"
                ),
            }
        }
    }
}

#[test]
fn a_wrong_key_is_an_authentication_error() {
    let object = seal(b"secret");
    let mut opener = Opener::new(&object[..], &[9; KEY_LEN], Order::Strict).unwrap();
    let error = opener.next_chunk().unwrap_err();
    assert_eq!(error, OpenError::Authentication { frame: 0 });
    assert!(error.to_string().contains("the key is not this object's"), "{error}");
}

#[test]
fn a_truncation_at_every_byte_is_refused() {
    let object = seal(&plaintext(300));
    for len in 0..object.len() {
        let error = open(&object[..len]).expect_err("a truncated object opened");
        assert!(
            matches!(error, OpenError::Truncated { bytes, .. } if bytes == len as u64),
            "at {len}: {error}"
        );
        let unordered =
            open_with(&object[..len], Order::AllowUnordered).expect_err("a truncated object opened");
        assert!(matches!(unordered, OpenError::Truncated { .. }), "at {len}: {unordered}");
    }
}

#[test]
fn frames_dropped_doubled_or_moved_are_refused() {
    let object = seal(&plaintext(3 * CHUNK_LEN + 17));
    let f = frames(&object);
    let counter = |frame, expected, found| OpenError::OutOfOrder {
        frame,
        found: Disorder::Counter { expected, found },
    };
    let other = |frame, found| OpenError::OutOfOrder { frame, found };
    let cases: [(&str, Vec<&[u8]>, OpenError); 9] = [
        ("first dropped", vec![f[1], f[2], f[3]], other(0, Disorder::NotTheFirst)),
        ("second dropped", vec![f[0], f[2], f[3]], counter(1, 1, 2)),
        ("last dropped", vec![f[0], f[1], f[2]], other(3, Disorder::LastMissing)),
        ("first doubled", vec![f[0], f[0], f[1], f[2], f[3]], counter(1, 1, 0)),
        ("last doubled", vec![f[0], f[1], f[2], f[3], f[3]], other(4, Disorder::AfterLast)),
        ("two swapped", vec![f[0], f[2], f[1], f[3]], counter(1, 1, 2)),
        ("last moved up", vec![f[0], f[3], f[1], f[2]], counter(1, 1, 3)),
        ("only the last", vec![f[3]], other(0, Disorder::NotTheFirst)),
        ("nothing left", vec![], other(0, Disorder::LastMissing)),
    ];
    for (name, tampered, expected) in cases {
        let tampered = object_of(&tampered);
        assert_eq!(open(&tampered).expect_err(name), expected, "{name}");
        // Not seen without the sequence: why `--allow-unordered` must be asked for.
        assert!(open_with(&tampered, Order::AllowUnordered).is_ok(), "{name}");
    }
}

#[test]
fn a_frame_of_another_object_under_the_same_key_is_refused() {
    let ours = seal(&plaintext(2 * CHUNK_LEN));
    let theirs = seal(&plaintext(2 * CHUNK_LEN));
    let spliced = object_of(&[frames(&ours)[0], frames(&theirs)[1]]);
    let expected = OpenError::OutOfOrder { frame: 1, found: Disorder::OtherObject };
    assert_eq!(open(&spliced).unwrap_err(), expected);
    assert_eq!(check_ends(&mut Cursor::new(&spliced), &KEY).unwrap_err(), expected);
}

#[test]
fn bytes_after_the_end_are_refused() {
    for order in [Order::Strict, Order::AllowUnordered] {
        let mut object = seal(b"whole");
        let bytes = object.len() as u64;
        object.push(0);
        assert_eq!(open_with(&object, order).unwrap_err(), OpenError::TrailingData { bytes });
    }
}

#[test]
fn a_length_outside_the_format_is_refused_before_it_is_read() {
    for len in [1, 27, MAX_LEN + 1, u32::MAX] {
        let mut opener = Opener::new(Cursor::new(len.to_be_bytes().to_vec()), &KEY, Order::Strict).unwrap();
        assert_eq!(opener.next_chunk().unwrap_err(), OpenError::BadLength { frame: 0, len });
        assert_eq!(opener.object_bytes(), END_LEN as u64, "nothing behind the length was asked for");
    }
}

#[test]
fn a_failed_opener_gives_no_more_plaintext() {
    let object = seal(&plaintext(2 * CHUNK_LEN));
    let f = frames(&object);
    let mut broken = f[0].to_vec();
    broken[20] ^= 1;
    let object = object_of(&[&broken, f[1]]);
    let mut opener = Opener::new(&object[..], &KEY, Order::Strict).unwrap();
    let first = opener.next_chunk().unwrap_err();
    assert_eq!(opener.next_chunk().unwrap_err(), first);
    let error = opener.read(&mut [0; 10]).unwrap_err();
    assert_eq!(OpenError::within(&error), Some(&first));
}

/// Gives its bytes one at a time, with interruptions between.
struct Drip<'a>(&'a [u8], bool);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

#[test]
fn reads_from_a_slow_and_interrupted_source() {
    let object = seal(&plaintext(5000));
    let mut opener = Opener::new(Drip(&object, false), &KEY, Order::Strict).unwrap();
    let mut out = Vec::new();
    opener.read_to_end(&mut out).unwrap();
    assert_eq!(out, plaintext(5000));
}

/// Refuses the n-th write.
struct Fails(u32, Vec<u8>);

impl Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= 1;
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_write_ends_the_object_and_never_shows_plaintext() {
    let plaintext = plaintext(CHUNK_LEN + 1);
    let mut sealer = Sealer::new(Fails(0, Vec::new()), &KEY).unwrap();
    assert_eq!(sealer.write_all(&plaintext).unwrap_err().kind(), io::ErrorKind::StorageFull);
    // The disk has room again; sealing the same chunk a second time would write it in the clear.
    sealer.writer.0 = u32::MAX;
    assert!(sealer.write_all(b"more").is_err());
    assert!(sealer.flush().is_err());
    assert!(sealer.get_ref().1.is_empty());
    assert!(sealer.finish().is_err());
}

#[test]
fn the_counter_never_wraps() {
    let mut sealer = Sealer::at(Vec::new(), &KEY, PREFIX, u32::MAX).unwrap();
    sealer.write_all(&plaintext(CHUNK_LEN)).unwrap();
    assert_eq!(sealer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert!(sealer.finish().is_err());

    let mut sealer = Sealer::at(Vec::new(), &KEY, PREFIX, u32::MAX).unwrap();
    sealer.write_all(b"the last frame that can be").unwrap();
    assert!(sealer.finish().is_ok());
}

#[test]
fn the_ends_tell_a_spool_that_was_cut_or_changed() {
    let object = seal(&plaintext(2 * CHUNK_LEN + 300));
    let check = |bytes: &[u8]| check_ends(&mut Cursor::new(bytes), &KEY);
    assert_eq!(check(&object).unwrap(), 3);
    for cut in [1, END_LEN, 5, 300, 332 + 4, 332 + 5, CHUNK_LEN, object.len() - 3, object.len()] {
        assert!(check(&object[..object.len() - cut]).is_err(), "{cut} bytes cut");
    }
    for changed in [0, 4, 20, object.len() - 330, object.len() - 10, object.len() - 1] {
        let mut bytes = object.clone();
        bytes[changed] ^= 1;
        assert!(check(&bytes).is_err(), "byte {changed} changed");
    }
    let f = frames(&object);
    assert!(check(&object_of(&[f[0], f[2]])).is_err());
    assert!(check(&object_of(&[f[1], f[2]])).is_err());
    assert!(check(&object_of(&[f[0], f[1]])).is_err());
}

#[test]
fn the_digest_is_the_same_in_both_directions_and_in_hex() {
    let mut writer = HashingWriter::new(Vec::new());
    writer.write_all(b"abc").unwrap();
    let mut reader = HashingReader::new(&b"abc"[..]);
    io::copy(&mut reader, &mut io::sink()).unwrap();
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(writer.digest().to_string(), known);
    assert_eq!(reader.digest(), writer.digest());
    assert_eq!(Digest::from_hex(&known.to_uppercase()), Some(writer.digest()));
    assert_eq!(Digest::from_hex("ba78"), None);
    assert_eq!((reader.byte_count(), writer.byte_count()), (3, 3));
}
