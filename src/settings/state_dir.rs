//! Makes the directories that the agent writes to, and tries whether it can.

use super::fault::{Fault, Faults};
use super::load::Loaded;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Only the agent's own user looks into its state.
const PRIVATE: u32 = 0o700;

/// Others may enter a directory with one of these bits.
const NOT_PRIVATE: u32 = 0o077;

/// Makes `state.dir` and `backup.spool_dir` where they are missing, 0700, and probes both for
/// writing. Gives warnings. A full disk is one of them: the agent must stay up on it.
///
/// # Errors
/// Each directory that cannot be made or written to.
pub fn prepare(loaded: &Loaded) -> Result<Vec<String>, Faults> {
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    let settings = &loaded.settings;
    for (key, dir) in [("state.dir", &settings.state.dir), ("backup.spool_dir", &settings.backup.spool_dir)] {
        match prepare_one(dir) {
            Ok(None) => {}
            Ok(Some(warning)) => warnings.push(format!("{key}: {}: {warning}", dir.display())),
            Err(error) => {
                faults.push(Fault::new(
                    key,
                    loaded.source_of(key),
                    format_args!("{}: cannot be written to: {error}", dir.display()),
                ));
                // The spool is usually inside: one line says it.
                if settings.backup.spool_dir.starts_with(dir) {
                    break;
                }
            }
        }
    }
    if faults.is_empty() { Ok(warnings) } else { Err(Faults(faults)) }
}

fn prepare_one(dir: &Path) -> io::Result<Option<&'static str>> {
    if !dir.is_dir() {
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(PRIVATE).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    if !dir.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    match tempfile::Builder::new().prefix(".probe-").tempfile_in(dir) {
        Ok(probe) => probe.close()?,
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            return Ok(Some("the disk is full: nothing durable can be taken on until there is room"));
        }
        // tempfile adds its own path to the error; the directory is named by the caller.
        Err(error) => return Err(error.kind().into()),
    }
    let open = dir.metadata()?.permissions().mode() & NOT_PRIVATE != 0;
    Ok(open.then_some("is open to other users of this host: chmod 700 it"))
}
