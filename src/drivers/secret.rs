//! A target's password: a reference that is resolved on the host, or the password itself.

use super::DumpError;
use crate::model::{Secret, TargetSpec};
use nix::fcntl::OFlag;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

/// A file that is longer holds no password.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// What the agent itself has must not leave for a database's host, whoever asks for it.
const OWN_VARIABLES: &str = "BACKUPY_";
const OWN_CREDENTIAL: &str = "agent-key";
/// How every agent's key begins, wherever it stands: in its own file, or in the configuration.
const OWN_KEYS: [&str; 2] = ["bkpy_live_", "bkpy_test_"];

/// The password of the target; empty where it has none. May wait for a file system that does not answer: not for a thread
/// that somebody else waits for.
///
/// # Errors
/// [`DumpError::Target`], which names the reference and never a value.
pub fn password(target: &TargetSpec) -> Result<Secret, DumpError> {
    let reference = target.connection.password_ref.expose();
    let refused = |problem| DumpError::Target { target: target.id.to_string(), problem };
    let text = resolve(reference).map_err(refused)?;
    if OWN_KEYS.iter().any(|key| text.expose().contains(key)) {
        let problem = "its password is, or holds, an agent's key, which goes to no database: correct password_secret_ref";
        return Err(refused(problem.to_owned()));
    }
    if text.expose().contains('\0') {
        return Err(refused("its password has a zero byte, which no tool takes".to_owned()));
    }
    Ok(text)
}

fn resolve(reference: &str) -> Result<Secret, String> {
    if let Some(name) = reference.strip_prefix("env:") {
        return of_environment(name);
    }
    if let Some(path) = reference.strip_prefix("file:") {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(format!("its password's file \"{}\" is not an absolute path", path.display()));
        }
        return of_file(path);
    }
    if let Some(name) = reference.strip_prefix("credential:") {
        return of_credential(name);
    }
    Ok(reference.strip_prefix("literal:").unwrap_or(reference).into())
}

fn of_environment(name: &str) -> Result<Secret, String> {
    if name.starts_with(OWN_VARIABLES) {
        return Err(format!("its password cannot be the agent's own variable {name}"));
    }
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("its password names no variable: write env:NAME".to_owned());
    }
    match std::env::var(name) {
        Ok(text) => Ok(text.into()),
        Err(std::env::VarError::NotPresent) => Err(format!(
            "its password is in the variable {name}, which the agent does not have: set it in the agent's unit and restart"
        )),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("the variable {name} of its password is not UTF-8"))
        }
    }
}

fn of_credential(name: &str) -> Result<Secret, String> {
    if name == OWN_CREDENTIAL {
        return Err("its password cannot be the agent's own key".to_owned());
    }
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || name.contains('/') || !plain {
        return Err("its password names no credential: write credential:NAME".to_owned());
    }
    let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(format!(
            "its password is the credential \"{name}\", and the agent was started without credentials: add LoadCredential={name}:/path to its unit"
        ));
    };
    of_file(&Path::new(&dir).join(name))
}

/// Without the line's end that editors leave.
fn of_file(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("its password's file {}: {error}", path.display());
    // A pipe that nobody writes to would hold whoever opens it for ever.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!(
            "its password's file {} is no regular file: name one that holds the password",
            path.display()
        ));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = zeroize::Zeroizing::new(String::with_capacity(FILE_LEN_MAX as usize + 2));
    let read = file.take(FILE_LEN_MAX + 1).read_to_string(&mut text);
    let len = read.map_err(failed)?;
    if len as u64 > FILE_LEN_MAX {
        return Err(format!(
            "its password's file {} is no password: it has more than 64 KiB",
            path.display()
        ));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    Ok(text.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reference: &str) -> String {
        resolve(reference).unwrap_err()
    }

    #[test]
    fn a_password_is_what_its_reference_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, "p w'\"\u{fc}\n\r\n").unwrap();
        let cases = [
            (format!("file:{}", path.display()), "p w'\"\u{fc}\n"),
            ("literal:env:X".to_owned(), "env:X"),
            ("literal:".to_owned(), ""),
            ("just a password: yes".to_owned(), "just a password: yes"),
            (String::new(), ""),
            ("env:PATH".to_owned(), &std::env::var("PATH").unwrap()),
        ];
        for (reference, password) in cases {
            assert_eq!(resolve(&reference).unwrap().expose(), password, "{reference}");
        }
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        for (reference, words) in [
            ("env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE, which the agent does not have"),
            ("env:", "write env:NAME"),
            ("env:BACKUPY_AGENT_KEY", "the agent's own variable"),
            ("file:relative", "not an absolute path"),
            ("file:/does/not/exist", "/does/not/exist: No such file"),
            (&format!("file:{}", path.display()), "more than 64 KiB"),
            ("credential:../x", "write credential:NAME"),
            ("credential:..", "write credential:NAME"),
            ("credential:agent-key", "the agent's own key"),
            ("credential:db", "LoadCredential=db:/path"),
        ] {
            assert!(said(reference).contains(words), "{reference}: {}", said(reference));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            let said = said(&format!("file:{}", path.display()));
            assert!(said.contains("no regular file"), "{said}");
        }
    }

    #[test]
    fn the_agents_own_key_goes_to_no_database_from_wherever_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let key = ["bkpy", "live", &"x".repeat(32)].join("_");
        let mut target = TargetSpec {
            id: "t1".into(),
            engine: None,
            display_name: String::new(),
            connection: Default::default(),
        };
        let path = dir.path().join("key");
        std::fs::write(&path, format!("[server]\nagent_key = \"{key}\"\n")).unwrap();
        for reference in [format!("file:{}", path.display()), key.clone(), format!("literal:{key}")] {
            target.connection.password_ref = reference.into();
            let error = password(&target).unwrap_err().to_string();
            assert!(error.contains("an agent's key") && !error.contains(&key), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_target_and_no_value() {
        let mut target = TargetSpec {
            id: "t1".into(),
            engine: None,
            display_name: String::new(),
            connection: Default::default(),
        };
        target.connection.password_ref = "hunter\0two".into();
        let error = password(&target).unwrap_err().to_string();
        assert!(error.contains("target \"t1\"") && !error.contains("hunter"), "{error}");
    }
}
