//! A desk with an object, its token, and room for what comes out.

use crate::common::process::command;
use backupy_agent::object::{CHUNK_LEN, KEY_LEN, Sealer};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

pub const KEY: [u8; KEY_LEN] = [0x5a; KEY_LEN];

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), &KEY).unwrap();
    sealer.write_all(content).unwrap();
    sealer.finish().unwrap()
}

/// Some MiB that do not compress, so that the object has several frames.
pub fn content() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut bytes = b"SQLite format 3\0".to_vec();
    while bytes.len() < 3 * CHUNK_LEN + 1000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub fn claims(object: &[u8]) -> Value {
    json!({
        "iss": "backupy-server", "aud": "backupy-decrypt", "exp": now_s() + 900, "iat": now_s(), "sub": "u",
        "run_id": "run-7", "company_id": "c", "dek": BASE64.encode(&KEY), "alg": "AES-256-GCM",
        "format_version": 1, "sha256": sha256(object),
    })
}

pub fn jwt(claims: &Value) -> String {
    let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    format!("{}.{}.{}", part(br#"{"alg":"HS256"}"#), part(claims.to_string().as_bytes()), part(&[0; 32]))
}

/// A directory with an object, its token, and room for what comes out.
pub struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    pub fn new(object: &[u8], claims: &Value) -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(desk.object(), object).unwrap();
        fs::write(desk.path("token"), jwt(claims)).unwrap();
        desk
    }

    pub fn of(object: &[u8]) -> Self {
        Self::new(object, &claims(object))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn object(&self) -> PathBuf {
        self.path("object.bkpy")
    }

    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    pub fn command(&self, name: &str, flags: &[&str]) -> Command {
        let mut command = command();
        command.arg(name).arg("--token-file").arg(self.path("token")).arg("--in").arg(self.object());
        command.args(flags);
        command
    }

    pub fn decrypt(&self, flags: &[&str]) -> Output {
        self.command("decrypt", flags).arg("--out").arg(self.out()).output().unwrap()
    }

    pub fn verify(&self, flags: &[&str]) -> Output {
        self.command("verify", flags).output().unwrap()
    }

    /// Object and token, and nothing else: not even under a hidden name.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["object.bkpy", "token"]);
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
}

pub fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}
