//! The directory that one agent's runs work in: its own, below `backup.spool_dir`, which may be anybody's, other agents'
//! on other hosts among them.
//!
//! Its name is a number that the agent keeps in its state directory, of which every agent has one to itself: the next life
//! finds what this one leaves, and no other agent takes it for its own.

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Every such directory's name begins so.
const PREFIX: &str = "backupy-agent-";

/// Of the number's file in the state directory.
const FILE: &str = "spool-id";

/// Of the number.
const ID_BYTES: usize = 8;

/// That agent's directory; runs make it where it is missing.
pub fn home(spool_dir: &Path, state_dir: &Path) -> PathBuf {
    let id = kept(&state_dir.join(FILE)).unwrap_or_else(|| {
        fresh(state_dir).unwrap_or_else(|error| {
            // A full disk at the first start: the next one tries again.
            tracing::warn!(dir = %state_dir.display(), %error, "the number of the spool's directory could not be kept: the next start will not find what this one leaves there");
            format!("unkept-{}", std::process::id())
        })
    });
    spool_dir.join(format!("{PREFIX}{id}"))
}

fn kept(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let id = text.trim();
    let whole = HEXLOWER.decode(id.as_bytes()).is_ok_and(|bytes| bytes.len() == ID_BYTES);
    whole.then(|| id.to_owned())
}

fn fresh(state_dir: &Path) -> io::Result<String> {
    let mut bytes = [0; ID_BYTES];
    let random = |_| io::Error::other("the kernel gives no randomness");
    SystemRandom::new().fill(&mut bytes).map_err(random)?;
    let id = HEXLOWER.encode(&bytes);
    let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
    writeln!(file, "{id}")?;
    file.as_file().sync_all()?;
    file.persist(state_dir.join(FILE))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_finds_its_directory_again_and_no_other_agent_does() {
        let dir = tempfile::tempdir().unwrap();
        let states = ["a", "b"].map(|name| dir.path().join(name));
        states.iter().for_each(|state| std::fs::create_dir(state).unwrap());
        let [first, other] = states.each_ref().map(|state| home(dir.path(), state));
        assert_ne!(first, other, "whatever their state directories are called");
        assert_eq!(home(dir.path(), &states[0]), first);
        std::fs::write(states[0].join(FILE), "../../etc\n").unwrap();
        let renewed = home(dir.path(), &states[0]);
        assert!(renewed != first && renewed.parent() == Some(dir.path()));
        assert_eq!(home(dir.path(), &states[0]), renewed);
    }
}
