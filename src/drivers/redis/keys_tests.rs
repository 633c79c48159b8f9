use super::*;

fn counted(rdb: &[u8], piece: usize) -> Option<Vec<(String, u64)>> {
    let mut keys = Keys::new();
    rdb.chunks(piece).for_each(|piece| keys.take(piece));
    let tally = keys.finish()?;
    Some(tally.rows().iter().map(|(name, rows)| (name.clone(), *rows)).collect())
}

/// A key of one byte with a value.
fn key(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.extend([kind, 1, b'k']);
    out.extend(value);
}

fn rdb() -> Vec<u8> {
    let mut out = b"REDIS0011".to_vec();
    out.extend([AUX, 2, b'v', b'r', 0xc0, 7]);
    out.extend([MODULE_AUX, 1, 2, 0, 5, 3, b'a', b'b', b'c', 0, FUNCTION, 2, b'f', b'n']);
    out.extend([SELECT_DB, 0, RESIZE_DB, 9, 1]);
    key(&mut out, 0, &[5, b'v', EOF, b'l', b'u', b'e']);
    // Integers of every size, and a packed string of 3 bytes that are 300.
    [&[0xc0, 1][..], &[0xc1, 1, 1], &[0xc2, 1, 1, 1, 1], &[0xc3, 3, 0x41, 0x2c, 9, 9, 9]]
        .iter()
        .for_each(|value| key(&mut out, 0, value));
    out.extend([EXPIRES_MS, 1, 2, 3, 4, 5, 6, 7, 8, IDLE, 3]);
    key(&mut out, 2, &[2, 1, b'a', 1, b'b']);
    out.extend([EXPIRES_S, 1, 2, 3, 4, FREQUENCY, 200]);
    key(&mut out, 4, &[1, 1, b'f', 1, b'v']);
    key(&mut out, 5, &[1, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 0]);
    key(&mut out, 3, &[2, 1, b'm', 255, 1, b'n', 2, b'1', b'7']);
    out.extend([SELECT_DB, 3]);
    key(&mut out, 18, &[2, 2, 1, b'p', 1, 1, b'q']);
    key(&mut out, 7, &[0x81, 0, 0, 0, 0, 0, 0, 0, 9, 2, 7, 4, 1, 2, 3, 4, 5, 6, 7, 8, 5, 1, b'x', 0]);
    // A stream with a group, something pending and a consumer.
    let mut stream = vec![1, 2, b'i', b'd', 2, b'l', b'p', 1, 1, 1, 1, 1, 1, 1, 1, 1];
    stream.extend([1, b'g', 0, 0, 1, 1]);
    stream.extend([7; 24]);
    stream.extend([1, 1, 1, b'c']);
    stream.extend([7; 16]);
    stream.push(1);
    stream.extend([7; 16]);
    key(&mut out, 21, &stream[..]);
    let mut timed = vec![0; 8];
    timed.extend([1, 5, 1, b'f', 1, b'v']);
    key(&mut out, 24, &timed);
    out.extend([SELECT_DB, 0x40, 200]);
    key(&mut out, 0, &[0x80, 0, 0, 0, 2, b'x', b'y']);
    out.push(EOF);
    out.extend([0; 8]);
    out
}

#[test]
fn every_kind_of_value_is_walked_over_however_it_is_cut() {
    let rdb = rdb();
    let expected = [("db0", 9), ("db200", 1), ("db3", 4)].map(|(name, keys)| (name.to_owned(), keys));
    for piece in [1, 2, 3, 7, 50, rdb.len()] {
        assert_eq!(counted(&rdb, piece).unwrap(), expected, "in pieces of {piece}");
    }
}

#[test]
fn what_is_not_known_or_not_whole_is_not_counted() {
    let rdb = rdb();
    assert!(counted(&rdb[..rdb.len() - 9], 5).is_none(), "its end is missing");
    let mut later = b"REDIS0099".to_vec();
    key(&mut later, LAST_KIND + 1, &[1, b'v', EOF]);
    assert!(counted(&later, 5).is_none());
    assert_eq!(counted(b"REDIS0011\xff", 4).unwrap(), []);
}

#[test]
fn what_only_valkey_writes_is_counted_in_its_files_and_nothing_of_redis_own() {
    let valkey = |kind: u8, value: &[u8]| {
        let mut out = b"VALKEY080".to_vec();
        out.extend([SLOT_IMPORT, 3, b'j', b'o', b'b', 2, 1, 2, 0x40, 100, 0x40, 200]);
        out.extend([SELECT_DB, 0, RESIZE_DB, 2, 0]);
        key(&mut out, 0, &[1, b'v']);
        key(&mut out, kind, value);
        out.push(EOF);
        out
    };
    // A field that is over at some time, and one that never is.
    let mut fields = vec![2, 1, b'f', 1, b'v'];
    fields.extend(1_795_491_575_571_i64.to_le_bytes());
    fields.extend([1, b'g', 1, b'w']);
    fields.extend((-1_i64).to_le_bytes());
    let hash = valkey(22, &fields);
    for piece in [1, 4, hash.len()] {
        assert_eq!(counted(&hash, piece).unwrap(), [("db0".to_owned(), 2)], "in pieces of {piece}");
    }
    // What came later, and what is Redis' own.
    for kind in [23, 24, 25] {
        assert!(counted(&valkey(kind, &[0; 20]), 5).is_none(), "{kind}");
    }
    let redis = [b"REDIS0012", &hash[9..]].concat();
    assert!(counted(&redis, 5).is_none());
}
