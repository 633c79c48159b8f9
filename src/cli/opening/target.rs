//! Where plaintext goes. A file appears under its name only when it is whole and checked: until then it has no
//! name at all (`O_TMPFILE`), so that whatever ends this process, nothing is left behind. Where the file system
//! cannot do that, it has a temporary name that is removed on errors and on SIGINT, SIGTERM and SIGHUP.

use super::{Failure, input};
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::libc::O_TMPFILE;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::stat::{fstat, stat};
use nix::unistd::linkat;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// Plaintext of a database: for its owner's eyes.
const MODE: u32 = 0o600;

/// An output that is thrown away unless it is committed.
pub struct Target(Kind);

enum Kind {
    /// Standard output, a device or a pipe: what is written is gone.
    Stream(File),
    Nameless {
        file: File,
        place: Place,
    },
    Named {
        file: NamedTempFile,
        place: Place,
    },
}

/// Where a file is to appear.
struct Place {
    path: PathBuf,
    dir: PathBuf,
    force: bool,
}

/// Whether a process began without that stream: Rust's runtime then opens `/dev/null` in its place, to read and write,
/// as nobody does who means it.
fn was_closed(stream: &OwnedFd) -> bool {
    let Ok(flags) = fcntl(stream, FcntlArg::F_GETFL) else { return false };
    let both_ways = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDWR;
    both_ways
        && matches!((fstat(stream), stat("/dev/null")), (Ok(is), Ok(null)) if is.st_rdev == null.st_rdev)
}

impl Target {
    /// Makes ready to write; `-` is standard output. A file that exists is only replaced with `force`, and only at the
    /// end.
    ///
    /// # Errors
    /// When it exists, or its directory does not take a file.
    pub fn create(path: &Path, force: bool) -> Result<Self, Failure> {
        let fault = |cause| Failure::Create { name: path.display().to_string(), cause };
        if input::is_std(path) {
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(fault)?;
            if was_closed(&stdout) {
                return Err(fault(io::Error::other(
                    "it is closed, or /dev/null: what is written would be lost",
                )));
            }
            return Ok(Self(Kind::Stream(stdout.into())));
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(fault(io::ErrorKind::IsADirectory.into())),
            // Renaming over a device would replace the device.
            Ok(found) if !found.is_file() => {
                let stream = OpenOptions::new().write(true).open(path).map_err(fault)?;
                return Ok(Self(Kind::Stream(stream)));
            }
            Ok(_) if !force => return Err(Failure::Exists(path.display().to_string())),
            // A link that leads nowhere is there, too.
            Err(_) if !force && path.is_symlink() => return Err(Failure::Exists(path.display().to_string())),
            Ok(_) | Err(_) => {}
        }
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let place = Place { path, dir, force };
        match nameless(&place.dir) {
            Some(file) => Ok(Self(Kind::Nameless { file, place })),
            None => Self::named(place).map_err(fault),
        }
    }

    fn named(place: Place) -> io::Result<Self> {
        // First: between the file and its guard no signal may end this process.
        endings().thread_block()?;
        let file = Builder::new().prefix(".backupy-").suffix(".part").tempfile_in(&place.dir)?;
        remove_on_signal(file.path().to_owned())?;
        Ok(Self(Kind::Named { file, place }))
    }

    /// Whether what was written is out of reach, so that an error cannot take it back.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Stream(_))
    }

    /// Lets the file appear under its name, durable.
    ///
    /// # Errors
    /// When the disk refuses, or another file has appeared there meanwhile.
    pub fn commit(self) -> Result<(), Failure> {
        let place = match self.0 {
            Kind::Stream(_) => return Ok(()),
            Kind::Nameless { file, place } => {
                file.sync_all().map_err(Failure::Write)?;
                place.link(&file)?;
                place
            }
            Kind::Named { file, place } => {
                file.as_file().sync_all().map_err(Failure::Write)?;
                let kept =
                    if place.force { file.persist(&place.path) } else { file.persist_noclobber(&place.path) };
                kept.map_err(|error| place.fault(error.error))?;
                place
            }
        };
        // The name is as durable as the bytes.
        File::open(&place.dir).and_then(|dir| dir.sync_all()).map_err(Failure::Write)
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Stream(file) | Kind::Nameless { file, .. } => file.write(bytes),
            Kind::Named { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Place {
    /// Gives a nameless file its name.
    fn link(&self, file: &File) -> Result<(), Failure> {
        let link = |to: &Path| {
            linkat(AT_FDCWD, proc_path(file).as_path(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)
                .map_err(io::Error::from)
        };
        match link(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.force => {}
            result => return result.map_err(|error| self.fault(error)),
        }
        // Only a rename replaces. The bytes under the temporary name are whole and checked.
        let unique = Builder::new().prefix(".backupy-").suffix(".part").make_in(&self.dir, link);
        let unique = unique.map_err(|error| self.fault(error))?.into_temp_path();
        unique.persist(&self.path).map_err(|error| self.fault(error.error))
    }

    fn fault(&self, cause: io::Error) -> Failure {
        if cause.kind() == io::ErrorKind::AlreadyExists {
            return Failure::Exists(self.path.display().to_string());
        }
        Failure::Create { name: self.path.display().to_string(), cause }
    }
}

/// A file without a name in this directory; None where the file system or a missing `/proc` do not allow it.
fn nameless(dir: &Path) -> Option<File> {
    let file = OpenOptions::new().write(true).mode(MODE).custom_flags(O_TMPFILE).open(dir).ok()?;
    fs::exists(proc_path(&file)).ok()?.then_some(file)
}

fn proc_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What asks a process to end.
fn endings() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Removes the file when the process is asked to end, then lets it end as it would have. The signals must be
/// blocked already.
fn remove_on_signal(path: PathBuf) -> io::Result<()> {
    std::thread::Builder::new().name("remove-on-signal".into()).spawn(move || {
        if let Ok(signal) = endings().wait() {
            let _ = fs::remove_file(&path);
            let _ = endings().thread_unblock();
            let _ = raise(signal);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn target(path: &Path, force: bool, has_name: bool) -> Target {
        if has_name {
            let place = Place { path: path.to_owned(), dir: path.parent().unwrap().to_owned(), force };
            return Target::named(place).unwrap();
        }
        let target = Target::create(path, force).unwrap();
        assert!(matches!(target.0, Kind::Nameless { .. }), "no O_TMPFILE here: the test says nothing");
        target
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        for has_name in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            let mut thrown_away = target(&path, false, has_name);
            thrown_away.write_all(b"half").unwrap();
            assert_eq!(entries(dir.path()), usize::from(has_name));
            drop(thrown_away);
            assert_eq!(entries(dir.path()), 0);

            let mut kept = target(&path, false, has_name);
            kept.write_all(b"whole").unwrap();
            kept.commit().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
            assert_eq!(entries(dir.path()), 1);
        }
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_only_replaced_by_force() {
        for (has_name, force) in [(false, false), (false, true), (true, false), (true, true)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            let mut ours = target(&path, force, has_name);
            ours.write_all(b"ours").unwrap();
            fs::write(&path, b"theirs").unwrap();
            let result = ours.commit();
            assert_eq!(result.is_ok(), force);
            assert_eq!(fs::read(&path).unwrap(), if force { &b"ours"[..] } else { b"theirs" });
            assert_eq!(entries(dir.path()), 1);
        }
    }

    #[test]
    fn what_is_there_is_refused_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        for path in [&file, &link] {
            assert!(matches!(Target::create(path, false), Err(Failure::Exists(_))), "{}", path.display());
            assert!(Target::create(path, true).is_ok(), "{}", path.display());
        }
        for path in [dir.path().to_owned(), dir.path().join("missing/out")] {
            assert!(matches!(Target::create(&path, true), Err(Failure::Create { .. })), "{}", path.display());
        }
    }

    #[test]
    fn a_device_is_written_to_and_never_replaced() {
        let mut null = Target::create(Path::new("/dev/null"), true).unwrap();
        assert!(null.is_stream());
        null.write_all(b"gone").unwrap();
        null.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
