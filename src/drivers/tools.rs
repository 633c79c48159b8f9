//! Where dump tools are, what they are called and which package brings them.

use nix::unistd::{AccessFlags, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The dump tools that drivers call, by the name under which they are called. An installed one is a
/// capability (`Register.capabilities`): a promise to the server.
pub const DUMP_TOOLS: [&str; 6] =
    ["pg_dump", "mysqldump", "mariadb-dump", "mongodump", "redis-cli", "valkey-cli"];

/// What needs no tool: SQLite is linked into the binary.
const LINKED: [&str; 1] = ["sqlite"];

/// Searched where the agent has no `PATH`.
const USUAL_DIRS: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"];

/// Where distributions put the programs of each PostgreSQL version, before and behind its number.
const POSTGRES_DIRS: [(&str, &str); 2] = [("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];

/// The newest version that is looked for below [`POSTGRES_DIRS`]: one comes a year.
const POSTGRES_NEWEST: u32 = 40;

/// Where tools are looked for.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Of the `PATH`, in its order.
    pub dirs: Vec<PathBuf>,
    /// Programs of one PostgreSQL version each, the newest last; most of them are not there.
    pub postgres_dirs: Vec<PathBuf>,
}

impl Default for Tools {
    fn default() -> Self {
        Self::of_path(std::env::var_os("PATH").as_deref())
    }
}

impl Tools {
    /// Of this `PATH`, and where PostgreSQL's versions are kept beside each other.
    pub fn of_path(path: Option<&OsStr>) -> Self {
        let dirs = match path {
            Some(path) => std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect(),
            None => USUAL_DIRS.iter().map(PathBuf::from).collect(),
        };
        let each = |number: u32| POSTGRES_DIRS.map(|(before, behind)| format!("{before}{number}{behind}"));
        // Whether they are there is looked at anew each time: a client may be installed while the agent runs.
        let postgres_dirs = (9..=POSTGRES_NEWEST).flat_map(each).map(PathBuf::from);
        Self { dirs, postgres_dirs: postgres_dirs.collect() }
    }

    /// The tool, found by looking, without running any.
    pub fn find(&self, tool: &str) -> Option<PathBuf> {
        self.dirs.iter().map(|dir| dir.join(tool)).find(|file| is_program(file))
    }

    /// Every program of that name: the one of the `PATH`, then PostgreSQL's own, the oldest first.
    pub fn find_each_postgres(&self, tool: &str) -> Vec<PathBuf> {
        let own = self.postgres_dirs.iter().map(|dir| dir.join(tool)).filter(|file| is_program(file));
        self.find(tool).into_iter().chain(own).collect()
    }

    /// What the agent promises: each engine that it can dump here, by its tool.
    pub fn capabilities(&self) -> Vec<String> {
        let found = |tool: &&str| match *tool {
            "pg_dump" => !self.find_each_postgres(tool).is_empty(),
            _ => self.find(tool).is_some(),
        };
        LINKED.into_iter().chain(DUMP_TOOLS.into_iter().filter(found)).map(str::to_owned).collect()
    }
}

fn is_program(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn program(path: &Path, mode: u32) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    #[test]
    fn a_tool_counts_when_it_can_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let pg_dump = program(&dir.path().join("pg_dump"), 0o755);
        program(&dir.path().join("mongodump"), 0o644);
        fs::create_dir(dir.path().join("redis-cli")).unwrap();
        let dirs = vec![dir.path().join("missing"), dir.path().to_owned()];
        let tools = Tools { dirs, postgres_dirs: Vec::new() };
        assert_eq!(tools.find("pg_dump"), Some(pg_dump));
        assert_eq!(tools.capabilities(), ["sqlite", "pg_dump"]);
    }

    #[test]
    fn versions_of_postgresql_beside_each_other_count_too() {
        let dir = tempfile::tempdir().unwrap();
        let old = program(&dir.path().join("15/pg_dump"), 0o755);
        let new = program(&dir.path().join("17/pg_dump"), 0o755);
        let postgres_dirs = ["15", "16", "17"].map(|number| dir.path().join(number)).to_vec();
        let tools = Tools { dirs: Vec::new(), postgres_dirs };
        assert_eq!(tools.find_each_postgres("pg_dump"), [old, new]);
        assert_eq!(tools.capabilities(), ["sqlite", "pg_dump"]);
    }

    #[test]
    fn a_version_of_postgresql_that_is_installed_later_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let tools = Tools { dirs: Vec::new(), postgres_dirs: vec![dir.path().join("17")] };
        assert!(tools.find_each_postgres("pg_dump").is_empty());
        let new = program(&dir.path().join("17/pg_dump"), 0o755);
        assert_eq!(tools.find_each_postgres("pg_dump"), [new]);
        // Which are kept is not the state of the disk at the start.
        let kept = Tools::of_path(None).postgres_dirs;
        assert!(
            kept.contains(&"/usr/pgsql-39/bin".into()) && kept.contains(&"/usr/lib/postgresql/9/bin".into())
        );
    }

    #[test]
    fn a_relative_directory_of_the_path_is_not_searched() {
        assert!(Tools::of_path(Some(OsStr::new(".:"))).dirs.is_empty());
        assert!(!Tools::of_path(None).dirs.is_empty());
    }
}
