use super::*;

/// An archive of that version, as pg_dump writes it to a pipe: two tables with data, one entry without, one
/// of large objects.
fn archive(minor: u8) -> Vec<u8> {
    let mut out = b"PGDMP".to_vec();
    out.extend([1, minor, 0, 4, 8, CUSTOM]);
    if minor >= 15 {
        out.push(0)
    } else {
        number(&mut out, 0)
    }
    (0..7).for_each(|n| number(&mut out, n));
    text(&mut out, "db");
    text(&mut out, "16.2 (Debian)");
    text(&mut out, "16.4");
    number(&mut out, 4);
    for (id, data) in [(7, 1), (8, 0), (9, 1), (10, 1)] {
        number(&mut out, id);
        number(&mut out, data);
        let kind = match id {
            7 | 9 => "TABLE DATA",
            8 => "ENCODING",
            _ => "BLOBS",
        };
        ["1259", "16384", &format!("t{id}"), kind].iter().for_each(|value| text(&mut out, value));
        number(&mut out, 2);
        text(&mut out, "SET client_encoding = 'LATIN1';\n");
        (0..2).for_each(|_| text(&mut out, &"definition ".repeat(20)));
        text(&mut out, "s");
        (0..if minor >= 14 { 2 } else { 1 }).for_each(|_| text(&mut out, "heap"));
        if minor >= 16 {
            number(&mut out, 114);
        }
        ["owner", "false", "3", "4"].iter().for_each(|value| text(&mut out, value));
        number(&mut out, -1);
        out.extend([3, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    for id in [7, 9] {
        out.push(TABLE_BLOCK);
        number(&mut out, id);
        for _ in 0..id {
            text(&mut out, "a row of data\n");
        }
        text(&mut out, "\\.\n\n\n");
        number(&mut out, 0);
    }
    out.push(LARGE_OBJECTS_BLOCK);
    number(&mut out, 10);
    for oid in [16_400, 16_401] {
        number(&mut out, oid);
        text(&mut out, "bytes of an object");
        number(&mut out, 0);
    }
    number(&mut out, 0);
    out
}

fn number(out: &mut Vec<u8>, value: i64) {
    out.push(u8::from(value < 0));
    out.extend(&value.unsigned_abs().to_le_bytes()[..4]);
}

fn text(out: &mut Vec<u8>, value: &str) {
    number(out, value.len() as i64);
    out.extend(value.as_bytes());
}

fn judge(bytes: &[u8], piece: usize) -> Result<Archive, FormError> {
    let mut form = Archive::new();
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        form.take(piece, &mut out)?;
    }
    form.finish(&mut out)?;
    assert!(out == bytes, "the form changes nothing");
    Ok(form)
}

#[test]
fn a_whole_archive_of_every_version_is_whole_however_it_is_cut() {
    for minor in 12..=16 {
        let bytes = archive(minor);
        for piece in [1, 2, 3, 7, 64, bytes.len()] {
            let mut form = judge(&bytes, piece).unwrap();
            assert_eq!(form.server_version(), Some("16.2 (Debian)"));
            assert_eq!(form.encoding(), Some("LATIN1"));
            assert!(!form.was_unread());
            let tally = form.tally().unwrap();
            assert_eq!(
                tally.rows().iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>(),
                [("s.t7", 7), ("s.t9", 9)]
            );
        }
    }
}

#[test]
fn half_an_archive_is_never_whole_wherever_it_ends() {
    let bytes = archive(16);
    for len in 0..bytes.len() {
        assert!(judge(&bytes[..len], 50).is_err(), "{len} of {} bytes", bytes.len());
    }
    let Err(FormError::Wrong(problem)) = judge(&bytes[..bytes.len() - 60], 50) else { panic!() };
    assert!(problem.contains("the data of 2 of 3 entries is there"), "{problem}");
}

#[test]
fn what_is_no_archive_is_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = archive(14);
        change(&mut bytes);
        judge(&bytes, 50).is_err()
    };
    assert!(refused(&|bytes| bytes[0] = b'X'));
    assert!(refused(&|bytes| bytes[8] = 0), "size of numbers");
    assert!(refused(&|bytes| bytes[8] = 9), "size of numbers");
    assert!(refused(&|bytes| bytes[10] = 3), "the tar format");
    assert!(refused(&|bytes| bytes.push(b'\n')), "something behind its end");
    assert!(refused(&|bytes| {
        let block = bytes.iter().rposition(|byte| *byte == LARGE_OBJECTS_BLOCK).unwrap();
        bytes[block] = 2;
    }));
}

#[test]
fn a_later_version_is_passed_on_and_said_so() {
    let mut bytes = archive(16);
    bytes[6] = 17;
    let mut form = judge(&bytes, 50).unwrap();
    assert!(form.was_unread() && form.tally().is_none());
}
