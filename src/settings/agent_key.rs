//! Where the agent key comes from: a file, the value itself, or a systemd credential. It is shown
//! nowhere, its length at most.

use super::check::{Check, FROM_FILE, absolute};
use super::layers::CREDENTIALS_DIRECTORY;
use super::raw::Field;
use secrecy::{ExposeSecret, SecretString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Name of the credential in the unit file.
const CREDENTIAL: &str = "agent-key";

/// Begins the origin of a key that the init system handed over.
const FROM_CREDENTIAL: &str = "credential ";

const KEY: &str = "server.agent_key";
const KEY_FILE: &str = "server.agent_key_file";

/// A key has at most 64 characters; a longer file is another one.
const MAX_FILE_BYTES: u64 = 4096;

/// Others may read a file with one of these bits.
const NOT_PRIVATE: u32 = 0o077;

/// The key, from wherever it is given.
pub(super) fn find(
    check: &mut Check<'_>,
    raw: Field<String>,
    inline: Option<SecretString>,
    file: Field<String>,
) -> Option<SecretString> {
    let inline_given = raw.is_given();
    let inline_typed = check.take(KEY, raw).is_some();
    let file = check.take_text(KEY_FILE, file);
    match (inline_given, file) {
        (true, Some(_)) => {
            let (inline, file) = (check.origin(KEY).to_owned(), check.origin(KEY_FILE).to_owned());
            check.fault(
                KEY,
                format_args!("is given twice, in {inline} and as {KEY_FILE} in {file}: take one away"),
            );
            None
        }
        (true, None) if inline_typed => {
            let key = inline?;
            matches(check, KEY, key.expose_secret()).then_some(key)
        }
        (true, None) => None,
        (false, Some(path)) => {
            let path = absolute(path)?;
            warn_if_public(check, &path);
            read(check, KEY_FILE, &path, FROM_FILE)
        }
        (false, None) => credential(check),
    }
}

fn credential(check: &mut Check<'_>) -> Option<SecretString> {
    let directory = check.sources.environment.get(CREDENTIALS_DIRECTORY);
    let path = directory.map(|directory| PathBuf::from(directory).join(CREDENTIAL));
    match path.filter(|path| path.exists()) {
        // The init system keeps it private in its own way: its mode means nothing here.
        Some(path) => read(check, KEY, &path, FROM_CREDENTIAL),
        // Of a file key of the wrong type enough was said.
        None if check.faults.iter().any(|fault| fault.key() == KEY_FILE) => None,
        None => {
            check.fault(
                KEY,
                format_args!(
                    "is missing: name a file in {KEY_FILE} (BACKUPY_AGENT_KEY_FILE, --agent-key-file), set \
                     BACKUPY_AGENT_KEY, or load the systemd credential {CREDENTIAL}"
                ),
            );
            None
        }
    }
}

fn warn_if_public(check: &mut Check<'_>, path: &Path) {
    let mode = path.metadata().map(|data| data.permissions().mode()).unwrap_or_default();
    if mode & NOT_PRIVATE != 0 {
        check
            .warnings
            .push(format!("{}: holds the agent key and is readable by others: chmod 600 it", path.display()));
    }
}

/// The key in a file.
fn read(check: &mut Check<'_>, key: &'static str, path: &Path, from: &str) -> Option<SecretString> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) => {
            check.fault(key, format_args!("{}: cannot be read: {error}", path.display()));
            return None;
        }
    };
    if !matches(check, key, &text) {
        return None;
    }
    check.origins.insert(KEY, format!("{from}{}", path.display()));
    Some(SecretString::from(text.as_str()))
}

/// Holds the text against the contract's pattern.
fn matches(check: &mut Check<'_>, key: &'static str, text: &str) -> bool {
    let valid = is_agent_key(text);
    if !valid {
        check.fault(key, not_a_key(text));
    }
    valid
}

/// What a key looks like, for whoever gave something else.
pub(super) fn not_a_key(text: &str) -> String {
    format!(
        "is no agent key (it has {} characters): a key is bkpy_live_… or bkpy_test_… with 32 letters \
         and digits, or 64 lower-case hex digits; copy it again from the control plane",
        text.chars().count()
    )
}

/// The text of a key file; newlines at its end do not belong to it.
pub(super) fn read_text(path: &Path) -> std::io::Result<Zeroizing<String>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize + 1));
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text)
}

/// `bkpy_(live|test)_` and 32 of `[A-Za-z0-9]`, or 64 of `[a-f0-9]` (protocol section 1).
pub(super) fn is_agent_key(text: &str) -> bool {
    let random = text.strip_prefix("bkpy_live_").or_else(|| text.strip_prefix("bkpy_test_"));
    match random {
        Some(random) => random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        None => text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'a'..=b'f' | b'0'..=b'9')),
    }
}

#[cfg(test)]
mod tests {
    use super::is_agent_key;

    #[test]
    fn a_key_is_what_the_contract_says_and_nothing_else() {
        let good = [
            "bkpy_live_".to_owned() + &"aZ09".repeat(8),
            "bkpy_test_".to_owned() + &"x".repeat(32),
            "0f".repeat(32),
        ];
        for key in &good {
            assert!(is_agent_key(key));
            for bad in [
                &key[1..],
                &key[..key.len() - 1],
                &format!("{key}0"),
                &format!("{key}\n"),
                &format!(" {key}"),
                &key.replacen(|c: char| c.is_ascii_digit() || c == 'x', "-", 1),
                &key.replace("bkpy_", "BKPY_").replace('f', "F"),
            ] {
                assert!(!is_agent_key(bad), "{bad:?}");
            }
        }
        assert!(!is_agent_key(""));
        assert!(!is_agent_key(&("bkpy_prod_".to_owned() + &"x".repeat(32))));
        assert!(!is_agent_key(&("bkpy_live_".to_owned() + &"ä".repeat(16))));
    }
}
