//! Where a restored database lies: a directory that only its server's user and root can enter, and that goes whatever
//! becomes of this process.
//!
//! A process that is killed cannot clean up. So a shell waits on a pipe that only this process holds open; when it ends,
//! by whatever signal, the shell wakes and removes the directory.

use super::super::super::opening::Failure;
use crate::spool::{self, Room};
use nix::unistd::{User, chown, geteuid};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Servers that were told to end may still write while the directory is removed: 4 s of tries.
const REMOVER: &str = "read -r _; n=0; while [ -e \"$1\" ] && [ $n -lt 40 ]; do rm -rf -- \"$1\"; n=$((n + 1)); \
     [ -e \"$1\" ] && sleep 0.1; done";

/// The path of a socket has at most 107 bytes; a server adds this much to its directory's.
const SOCKET_NAME_LEN: usize = 20;
const SOCKET_PATH_LEN: usize = 107;

/// A directory, gone when this is dropped.
pub struct Place {
    path: PathBuf,
    user: Option<User>,
    remover: Option<(Child, ChildStdin)>,
}

impl Place {
    /// Makes one below `dir`. Servers refuse to run as root: for root it belongs to the first of `users` that there is,
    /// or to `nobody`. Without `users` it stays this process's own.
    ///
    /// # Errors
    /// Where it cannot be made, its path is too long for a server's socket, or that user cannot come to it.
    pub fn create(dir: &Path, users: &[&str]) -> Result<Self, Failure> {
        let failed = |cause| Failure::Create { name: dir.display().to_string(), cause };
        let dir = dir.canonicalize().map_err(failed)?;
        let place = tempfile::Builder::new()
            .prefix("backupy-restore-")
            .make_in(&dir, |path| DirBuilder::new().mode(0o700).create(path));
        let path =
            place.and_then(|place| place.into_temp_path().keep().map_err(Into::into)).map_err(failed)?;
        let mut place = Self { path, user: None, remover: None };
        place.watch();
        if users.is_empty() {
            return Ok(place);
        }
        if place.path.as_os_str().len() + SOCKET_NAME_LEN > SOCKET_PATH_LEN {
            return Err(Failure::Usage(
                "the path of --restore-dir is too long for a server's socket: name a shorter one",
            ));
        }
        if geteuid().is_root() {
            let names = users.iter().copied().chain(["nobody"]);
            place.user = names.filter_map(|name| User::from_name(name).ok().flatten()).next();
            if let Some(user) = &place.user {
                chown(&place.path, Some(user.uid), Some(user.gid)).map_err(|errno| failed(errno.into()))?;
                if let Some(barred) = barred(&place.path, user) {
                    return Err(out_of_reach(&dir, barred, &user.name));
                }
            }
        }
        Ok(place)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whom programs run as in it; None for this process's own user.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Has the directory removed when this process ends. Without a shell on the host it is only removed by itself.
    fn watch(&mut self) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", REMOVER, "sh"]).arg(&self.path).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
        // A group of its own: what ends this process's group does not end it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if let Ok(mut child) = command.spawn()
            && let Some(pipe) = child.stdin.take()
        {
            self.remover = Some((child, pipe));
        }
    }
}

/// The first directory on the way that this user cannot enter: asked of the kernel, which knows more than the mode.
fn barred<'a>(path: &'a Path, user: &User) -> Option<&'a Path> {
    let is_barred = |dir: &&Path| {
        let mut enter = Command::new("/bin/sh");
        enter.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir).env_clear().current_dir("/");
        enter.uid(user.uid.as_raw()).gid(user.gid.as_raw()).stdin(Stdio::null()).stderr(Stdio::null());
        // Without a shell nobody knows: the server will say it in its words.
        enter.status().is_ok_and(|status| !status.success())
    };
    is_barred(&path).then(|| path.ancestors().filter(is_barred).last()).flatten()
}

fn out_of_reach(dir: &Path, barred: &Path, user: &str) -> Failure {
    let (name, barred) = (format!("a database in {}", dir.display()), barred.display());
    let text = format!(
        "its server runs as {user}, who cannot enter {barred}: let {user} through (chmod o+x {barred}), or name \
         another --restore-dir"
    );
    Failure::Create { name, cause: io::Error::other(text) }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((mut remover, pipe)) = self.remover.take() {
            drop(pipe);
            let _ = remover.wait();
        }
        if self.path.exists() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A look at a backup must not fill the disk of the databases.
///
/// # Errors
/// With the figures, where less than the guard is free there.
pub fn ensure_room(path: &Path) -> io::Result<()> {
    let space = (Room::default().free)(path)?;
    if space.free < space.to_keep(spool::MIN_FREE_BYTES) {
        let (free, place) = (space.free, path.display());
        return Err(io::Error::other(format!(
            "only {free} bytes are free in {place}: --restore-dir leads elsewhere"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_place_is_private_and_goes_with_everything_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::create(dir.path(), &[]).unwrap();
        assert_eq!(place.path().metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::create_dir_all(place.join("a/b")).unwrap();
        std::fs::write(place.join("a/b/c"), b"x").unwrap();
        let path = place.path().to_owned();
        drop(place);
        assert!(!path.exists());
        let deep = dir.path().join("x".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        assert!(matches!(Place::create(&deep, &["postgres"]), Err(Failure::Usage(_))));
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
    }
}
