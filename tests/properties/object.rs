//! Objects and tokens: whatever goes in comes out, and whatever was tampered with does not.

use backupy_agent::object::{
    CHUNK_LEN, Digest, HashingReader, HashingWriter, KEY_LEN, OpenError, Opener, Order, Sealer, Token,
    check_ends, sealed_len,
};
use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use std::io::{Cursor, Read, Write};

/// Around the edges of a chunk, where a mistake would be.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0..3000_usize, CHUNK_LEN - 2..CHUNK_LEN + 3, 2 * CHUNK_LEN - 2..2 * CHUNK_LEN + 3]
}

/// Cheap bytes that do not repeat with the chunk.
fn plaintext(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
}

fn seal(plaintext: &[u8], key: &[u8; KEY_LEN], piece: usize) -> (Vec<u8>, Digest) {
    let mut sealer = Sealer::new(HashingWriter::new(Vec::new()), key).unwrap();
    for part in plaintext.chunks(piece) {
        sealer.write_all(part).unwrap();
    }
    let hashing = sealer.finish().unwrap();
    let digest = hashing.digest();
    (hashing.into_inner(), digest)
}

fn open(object: &[u8], key: &[u8; KEY_LEN], order: Order, piece: usize) -> Result<Vec<u8>, OpenError> {
    let mut opener = Opener::new(object, key, order).unwrap();
    let mut out = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match opener.read(&mut buffer) {
            Ok(0) => return Ok(out),
            Ok(read) => out.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(OpenError::within(&error).expect("only the opener fails").clone()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sealed_comes_out_however_it_is_cut(
        len in lengths(), seed: u8, key: [u8; KEY_LEN], write in 1..3_000_000_usize, read in 1..3_000_000_usize,
    ) {
        let plaintext = plaintext(len, seed);
        let (object, digest) = seal(&plaintext, &key, write);
        prop_assert_eq!(object.len() as u64, sealed_len(len as u64));
        for order in [Order::Strict, Order::AllowUnordered] {
            prop_assert_eq!(&open(&object, &key, order, read).unwrap(), &plaintext);
        }
        prop_assert!(check_ends(&mut Cursor::new(&object), &key).is_ok());
        let mut hashing = HashingReader::new(&object[..]);
        std::io::copy(&mut hashing, &mut std::io::sink()).unwrap();
        prop_assert_eq!(hashing.digest(), digest);
    }

    #[test]
    fn a_changed_bit_never_opens_and_never_changes_what_came_out_before(
        len in lengths(), seed: u8, key: [u8; KEY_LEN], at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let plaintext = plaintext(len, seed);
        let (mut object, _) = seal(&plaintext, &key, CHUNK_LEN);
        *at.get_mut(&mut object) ^= 1 << bit;
        let mut opener = Opener::new(&object[..], &key, Order::Strict).unwrap();
        let mut out = Vec::new();
        prop_assert!(opener.read_to_end(&mut out).is_err());
        prop_assert!(plaintext.starts_with(&out), "unauthenticated plaintext came out");
    }

    #[test]
    fn a_cut_object_is_told_as_truncated(len in lengths(), seed: u8, key: [u8; KEY_LEN], at: prop::sample::Index) {
        let (object, _) = seal(&plaintext(len, seed), &key, CHUNK_LEN);
        let cut = &object[..at.index(object.len())];
        let error = open(cut, &key, Order::Strict, 4096).unwrap_err();
        prop_assert!(matches!(error, OpenError::Truncated { .. }), "{}", error);
        prop_assert!(check_ends(&mut Cursor::new(cut), &key).is_err());
    }

    #[test]
    fn any_bytes_end_in_an_error_not_in_a_panic(bytes: Vec<u8>, key: [u8; KEY_LEN], unordered: bool) {
        let order = if unordered { Order::AllowUnordered } else { Order::Strict };
        // The one object that opens without a key: no frame at all, which only --allow-unordered takes.
        let empty = bytes == [0; 4] && unordered;
        prop_assert_eq!(open(&bytes, &key, order, 100).is_ok(), empty);
        prop_assert!(check_ends(&mut Cursor::new(&bytes), &key).is_err());
    }
}

/// Texts that come far into the parser: three base64url parts of JSON-like bytes.
fn token_like() -> impl Strategy<Value = String> {
    let json = prop_oneof![
        Just(r#"{"alg":"HS256","typ":"JWT"}"#.to_owned()),
        r#"\{"(iss|aud|exp|dek|alg)":("[a-z]{0,5}"|-?[0-9]{1,25}(\.[0-9e]{1,5})?|null|\[\]|\{\})\}"#,
        any::<String>(),
    ];
    prop::collection::vec(json.prop_map(|text| BASE64URL_NOPAD.encode(text.as_bytes())), 0..5)
        .prop_map(|parts| parts.join("."))
}

proptest! {
    #[test]
    fn no_text_makes_the_token_reader_panic(text in prop_oneof![any::<String>(), token_like()], now: u64) {
        prop_assert!(Token::parse(&text, now).is_err());
    }
}
