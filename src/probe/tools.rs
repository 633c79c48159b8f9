//! What this agent can do here: `Register.capabilities`. A capability is a promise to the server, so
//! only what can really be driven is in the list.

use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::path::PathBuf;

/// The dump tools that hosts of databases have, by the name under which they are called.
pub const DUMP_TOOLS: [&str; 5] = ["pg_dump", "mysqldump", "mariadb-dump", "mongodump", "redis-cli"];

/// What needs no tool: SQLite is linked into the binary.
const LINKED: [&str; 1] = ["sqlite"];

/// Tools that this version has a driver for. A tool that is installed and not driven is not promised.
const DRIVEN: [&str; 0] = [];

/// The dump tools on this `PATH`, found by looking, without running any.
pub fn installed_tools(path: Option<&OsStr>) -> Vec<(&'static str, PathBuf)> {
    let dirs: Vec<PathBuf> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    DUMP_TOOLS.iter().filter_map(|tool| Some((*tool, find(&dirs, tool)?))).collect()
}

/// What the agent promises, given the tools that are installed.
pub fn capabilities(installed: &[(&'static str, PathBuf)]) -> Vec<String> {
    let driven = installed.iter().map(|(tool, _)| *tool).filter(|tool| DRIVEN.contains(tool));
    LINKED.into_iter().chain(driven).map(str::to_owned).collect()
}

fn find(dirs: &[PathBuf], tool: &str) -> Option<PathBuf> {
    dirs.iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file() && access(file.as_path(), AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tool_counts_when_it_can_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let pg_dump = file("pg_dump", 0o755);
        file("mongodump", 0o644);
        fs::create_dir(dir.path().join("redis-cli")).unwrap();
        let path = std::env::join_paths([dir.path().join("missing"), dir.path().to_owned()]).unwrap();
        assert_eq!(installed_tools(Some(&path)), [("pg_dump", pg_dump)]);
        assert_eq!(installed_tools(None), []);
    }

    #[test]
    fn a_relative_directory_of_the_path_is_not_searched() {
        assert_eq!(installed_tools(Some(OsStr::new(".:"))), []);
    }

    #[test]
    fn only_what_has_a_driver_is_promised() {
        let every_tool: Vec<_> = DUMP_TOOLS.iter().map(|tool| (*tool, PathBuf::from(tool))).collect();
        assert_eq!(capabilities(&every_tool), ["sqlite"]);
        assert_eq!(capabilities(&[]), ["sqlite"]);
    }
}
