//! `decrypt` and `verify` as an operator runs them: what opens, what is refused, and what is left behind.

use crate::common::{eventually, process::command};
use crate::desk::{Desk, KEY, assert_code, claims, content, json_of, jwt, now_s, seal, stderr};
use backupy_agent::object::{CHUNK_LEN, END_LEN, FRAME_LEN, KEY_LEN};
use data_encoding::BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

#[test]
fn every_compression_comes_back_byte_for_byte() {
    let content = content();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&content).unwrap();
    let cases = [
        ("none", content.clone()),
        ("zstd", zstd::encode_all(&content[..], 1).unwrap()),
        ("gzip", gzip.finish().unwrap()),
    ];
    for (name, sealed) in cases {
        let desk = Desk::of(&seal(&sealed));
        let output = desk.decrypt(&["--json"]);
        assert_code(&output, 0);
        assert_eq!(json_of(&output)["compression"], name);
        assert_eq!(json_of(&output)["content_bytes"], content.len());
        assert!(fs::read(desk.out()).unwrap() == content, "{name}");

        let output = desk.decrypt(&["--skip-decompress", "--force"]);
        assert_code(&output, 0);
        assert!(fs::read(desk.out()).unwrap() == sealed, "{name}");
    }
}

#[test]
fn every_tampering_is_refused_and_leaves_nothing() {
    let content = content();
    let good = seal(&content);
    let frame = |n: usize| &good[n * FRAME_LEN..((n + 1) * FRAME_LEN).min(good.len() - END_LEN)];
    let zero = &[0; END_LEN][..];
    let other = seal(&content);
    let mut flipped = good.clone();
    flipped[2 * FRAME_LEN + 100] ^= 1;
    let mut long = good.clone();
    long[FRAME_LEN] = 0xff;
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("a byte flipped", flipped, "authentication_failed"),
        ("a frame dropped", [frame(0), frame(2), frame(3), zero].concat(), "out_of_order"),
        (
            "a frame doubled",
            [frame(0), frame(1), frame(1), frame(2), frame(3), zero].concat(),
            "out_of_order",
        ),
        ("two frames swapped", [frame(0), frame(2), frame(1), frame(3), zero].concat(), "out_of_order"),
        ("the last frame dropped", [frame(0), frame(1), frame(2), zero].concat(), "out_of_order"),
        ("a frame of another object", [frame(0), &other[FRAME_LEN..]].concat(), "out_of_order"),
        ("the end missing", good[..good.len() - END_LEN].to_vec(), "truncated"),
        ("bytes appended", [&good[..], b"x"].concat(), "trailing_data"),
        ("a length out of bounds", long, "bad_length"),
    ];
    for (name, object, kind) in cases {
        // The token's digest is that of the tampered object: the frames alone must tell.
        let desk = Desk::of(&object);
        for output in [desk.decrypt(&["--json"]), desk.verify(&["--json"])] {
            assert_code(&output, 65);
            assert_eq!(json_of(&output)["error"], kind, "{name}");
            assert_eq!(json_of(&output)["ok"], false, "{name}");
            let message = stderr(&output);
            assert_eq!(message.lines().count(), 1, "{name}: {message}");
            assert!(message.contains("object.bkpy"), "{name}: {message}");
        }
        desk.assert_nothing_left();
    }
}

#[test]
fn another_object_of_the_same_key_is_told_by_the_digest() {
    let desk = Desk::new(&seal(b"yesterday's"), &claims(&seal(b"today's")));
    let output = desk.decrypt(&["--json"]);
    assert_code(&output, 65);
    assert_eq!(json_of(&output)["error"], "sha256_mismatch");
    desk.assert_nothing_left();
    assert_code(&desk.decrypt(&["--verify-sha256=false"]), 0);
    assert_eq!(fs::read(desk.out()).unwrap(), b"yesterday's");
}

#[test]
fn tokens_that_do_not_hold_are_told_apart() {
    let object = seal(b"content");
    let cases = [
        ("exp", json!(now_s() - 60), "token_expired"),
        ("iss", json!("somebody"), "token_wrong_issuer"),
        ("aud", json!("something"), "token_wrong_audience"),
        ("alg", json!("AES-128-CBC"), "token_unsupported_algorithm"),
        ("format_version", json!(2), "token_unsupported_version"),
        ("dek", json!("short"), "token_malformed"),
        ("dek", json!(BASE64.encode(&[1; KEY_LEN])), "authentication_failed"),
    ];
    for (claim, value, kind) in cases {
        let mut claims = claims(&object);
        claims[claim] = value;
        let desk = Desk::new(&object, &claims);
        let output = desk.decrypt(&["--json"]);
        assert_code(&output, 65);
        assert_eq!(json_of(&output)["error"], kind);
        assert!(!stderr(&output).contains(&BASE64.encode(&KEY)[..12]), "the key is in the error");
        desk.assert_nothing_left();
    }
}

#[test]
fn other_writers_objects_need_the_users_word_and_their_digest() {
    let object = include_bytes!("../data/object/other_writer.bkpy");
    let key: Vec<u8> = (0..32).collect();
    let mut claims = claims(object);
    claims["dek"] = json!(BASE64.encode(&key));
    let desk = Desk::new(object, &claims);
    let output = desk.decrypt(&[]);
    assert_code(&output, 65);
    assert!(stderr(&output).contains("--allow-unordered"), "{}", stderr(&output));
    desk.assert_nothing_left();
    let output = desk.decrypt(&["--allow-unordered", "--quiet"]);
    assert_code(&output, 0);
    assert_eq!(stderr(&output), "");
    assert_eq!(fs::read(desk.out()).unwrap().len(), 1000);

    // Two frames swapped: nothing but the digest can tell, and without it the user is warned.
    let swapped = [&object[432..864], &object[..432], &object[864..]].concat();
    let desk = Desk::new(&swapped, &claims);
    let output = desk.decrypt(&["--allow-unordered", "--json"]);
    assert_code(&output, 65);
    assert_eq!(json_of(&output)["error"], "sha256_mismatch");
    desk.assert_nothing_left();
    let output = desk.verify(&["--allow-unordered", "--verify-sha256=false"]);
    assert_code(&output, 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("warning"));
}

#[test]
fn an_output_that_exists_is_kept_unless_force_is_given() {
    let desk = Desk::of(&seal(b"new"));
    fs::write(desk.out(), b"old").unwrap();
    let output = desk.decrypt(&[]);
    assert_code(&output, 73);
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(fs::read(desk.out()).unwrap(), b"old");
    assert_code(&desk.decrypt(&["--force"]), 0);
    assert_eq!(fs::read(desk.out()).unwrap(), b"new");

    // A broken object does not take the old file with it.
    let mut object = fs::read(desk.object()).unwrap();
    object[20] ^= 1;
    fs::write(desk.object(), object).unwrap();
    assert_code(&desk.decrypt(&["--force"]), 65);
    assert_eq!(fs::read(desk.out()).unwrap(), b"new");
}

#[test]
fn standard_streams_carry_object_token_and_plaintext() {
    let content = content();
    let desk = Desk::of(&seal(&content));
    let mut from_stdin = command();
    from_stdin
        .args(["decrypt", "--in", "-", "--out", "-", "--token"])
        .arg(jwt(&claims(&fs::read(desk.object()).unwrap())));
    let output = from_stdin.stdin(fs::File::open(desk.object()).unwrap()).output().unwrap();
    assert_code(&output, 0);
    assert!(output.stdout == content);

    let mut token_from_stdin = command();
    token_from_stdin
        .args(["decrypt", "--token-file", "-", "--out", "-", "--json", "--in"])
        .arg(desk.object());
    let output = token_from_stdin.stdin(fs::File::open(desk.path("token")).unwrap()).output().unwrap();
    assert_code(&output, 0);
    assert!(output.stdout == content, "JSON must not stand in the plaintext");
    assert!(stderr(&output).contains("\"ok\":true"));
    assert!(!stderr(&output).contains('\r'), "a progress bar in a pipe");

    let both = command().args(["decrypt", "--token-file", "-", "--in", "-", "--out", "-"]).output().unwrap();
    assert_code(&both, 64);
}

#[test]
fn plaintext_on_standard_output_is_authentic_up_to_a_broken_frame_and_the_end_says_so() {
    let content = content();
    let mut object = seal(&content);
    object[2 * FRAME_LEN + 100] ^= 1;
    let desk = Desk::of(&object);
    let output = desk.command("decrypt", &["--out", "-"]).output().unwrap();
    assert_code(&output, 65);
    assert!(output.stdout == content[..2 * CHUNK_LEN]);
    assert!(stderr(&output).contains("do not use what was written"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_leaves_is_an_error_and_no_panic() {
    let desk = Desk::of(&seal(&content()));
    let mut child = desk
        .command("decrypt", &["--out", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 74);
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn missing_inputs_and_wrong_flags_have_their_own_exit_codes() {
    let desk = Desk::of(&seal(b"x"));
    fs::remove_file(desk.object()).unwrap();
    let output = desk.decrypt(&[]);
    assert_code(&output, 66);
    assert!(stderr(&output).contains("object.bkpy"), "{}", stderr(&output));

    let desk = Desk::of(&seal(b"x"));
    let nowhere = desk.path("missing/out");
    let output = desk.command("decrypt", &["--out"]).arg(nowhere).output().unwrap();
    assert_code(&output, 73);
    let no_token = command().args(["decrypt", "--in", "a", "--out", "b"]).output().unwrap();
    assert_code(&no_token, 64);
    let two_tokens = command()
        .args(["decrypt", "--in", "a", "--out", "b", "--token", "t", "--token-file", "f"])
        .output()
        .unwrap();
    assert_code(&two_tokens, 64);
}

/// `decrypt` that has written something and waits for the rest of its object.
fn half_way(desk: &Desk, object: &[u8]) -> Child {
    let mut child = command()
        .args(["decrypt", "--in", "-", "--token-file"])
        .arg(desk.path("token"))
        .arg("--out")
        .arg(desk.out())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(&object[..object.len() / 2]).unwrap();
    let written = format!("/proc/{}/io", child.id());
    eventually("plaintext on the disk", Duration::from_secs(20), || {
        let io = fs::read_to_string(&written).ok()?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<usize>().ok())?;
        (bytes >= CHUNK_LEN).then_some(())
    });
    child
}

#[test]
fn a_killed_decrypt_leaves_no_plaintext() {
    let object = seal(&content());
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let desk = Desk::of(&object);
        let mut child = half_way(&desk, &object);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        desk.assert_nothing_left();
    }
}

#[test]
fn an_object_that_stops_coming_leaves_no_plaintext() {
    let object = seal(&content());
    let desk = Desk::of(&object);
    let mut child = half_way(&desk, &object);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(65));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("standard input: truncated"), "{said}");
    desk.assert_nothing_left();
}

#[test]
fn verify_tells_what_an_object_is_and_writes_nothing() {
    let content = content();
    let desk = Desk::of(&seal(&zstd::encode_all(&content[..], 1).unwrap()));
    let output = desk.verify(&["--json"]);
    assert_code(&output, 0);
    let told = json_of(&output);
    assert_eq!(told["ok"], true);
    assert_eq!(told["run_id"], "run-7");
    assert_eq!(told["content_bytes"], content.len());
    assert_eq!(told["object_bytes"], fs::metadata(desk.object()).unwrap().len());
    assert_eq!(told["sha256_matches_token"], true);
    let output = desk.verify(&[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("as the token says"));
    let output = desk.verify(&["--quiet"]);
    assert_code(&output, 0);
    assert!(output.stdout.is_empty());
    desk.assert_nothing_left();
}

#[test]
fn content_that_is_whole_but_does_not_unpack_is_told_as_that() {
    let mut zstd = zstd::encode_all(&content()[..], 1).unwrap();
    zstd.truncate(zstd.len() - 10);
    let desk = Desk::of(&seal(&zstd));
    let output = desk.decrypt(&["--json"]);
    assert_code(&output, 65);
    assert_eq!(json_of(&output)["error"], "content_broken");
    assert!(stderr(&output).contains("--skip-decompress"), "{}", stderr(&output));
    desk.assert_nothing_left();
}

#[test]
fn memory_stays_flat_whatever_the_object_says() {
    let object = seal(&vec![7; 64 * CHUNK_LEN]);
    let desk = Desk::of(&object);
    let mut child = half_way(&desk, &object);
    let status = fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("status")).unwrap();
    // What it holds itself: how much of the program's file is resident is the kernel's choice, and not small here.
    let held_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    println!("{held_kib} KiB");
    assert!(held_kib < 16 * 1024, "{held_kib} KiB of an object whose first half is 32 MiB");
    child.stdin.take().unwrap().write_all(&object[object.len() / 2..]).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_restored_for_a_look_is_told_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let text = b"an application's own export".to_vec();
    let archive = [&[0x6d, 0xe2, 0x99, 0x81], &text[..]].concat();
    let cut = b"SQLite format 3\0\x10\x00".to_vec();
    // Of a kind that is not known, of MongoDB, and half a file; behind that, a tampered object is told as such.
    for (content, code, error) in [
        (text, 69, "not_restorable"),
        (archive, 69, "not_restorable"),
        (cut, 65, "database_broken"),
        (Vec::new(), 69, "not_restorable"),
    ] {
        let desk = Desk::of(&seal(&content));
        let output = desk.verify(&["--json", "--restore", "--restore-dir", dir]);
        assert_code(&output, code);
        assert_eq!(json_of(&output)["error"], error);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something is left");
        desk.assert_nothing_left();
    }
    let mut object = seal(&content());
    let last = object.len() - 10;
    object[last] ^= 1;
    let output = Desk::of(&object).verify(&["--json", "--restore", "--restore-dir", dir]);
    assert_code(&output, 65);
    assert_eq!(json_of(&output)["error"], "authentication_failed");
    let nowhere = Desk::of(&seal(b"x")).verify(&["--restore", "--restore-dir", "/not/there/at/all"]);
    assert_code(&nowhere, 69);
    let without = Desk::of(&seal(b"x")).verify(&["--manifest", "file"]);
    assert_code(&without, 64);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something is left");
}
