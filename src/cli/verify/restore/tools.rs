//! Where the programs of a server are.

use super::super::super::opening::Failure;
use crate::drivers::Tools;
use std::path::PathBuf;

/// Servers lie where only root's `PATH` leads.
const SERVER_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program by one of its names, in the `PATH` or where servers lie.
///
/// # Errors
/// [`Failure::ServerTools`] with the package.
pub fn find(names: &[&'static str], package: &'static str) -> Result<PathBuf, Failure> {
    let mut tools = Tools::default();
    tools.dirs.extend(SERVER_DIRS.map(PathBuf::from));
    let found = names.iter().find_map(|name| tools.find(name));
    found.ok_or_else(|| missing(names.first().copied().unwrap_or_default(), package))
}

/// A directory with all of these programs of PostgreSQL, the newest version first: programs of one version belong
/// together.
///
/// # Errors
/// [`Failure::ServerTools`]
pub fn postgres_dir(names: &[&'static str]) -> Result<PathBuf, Failure> {
    let tools = Tools::default();
    let dirs = tools.postgres_dirs.iter().rev().chain(&tools.dirs).cloned();
    let lacks = |dir: &PathBuf| {
        let one = Tools { dirs: vec![dir.clone()], postgres_dirs: Vec::new() };
        names.iter().copied().find(|name| one.find(name).is_none())
    };
    let mut first = None;
    for dir in dirs {
        match lacks(&dir) {
            None => return Ok(dir),
            // The newest version's: what it lacks is to be installed.
            Some(name) => {
                first.get_or_insert(name);
            }
        }
    }
    Err(missing(first.unwrap_or("postgres"), "postgresql"))
}

fn missing(tool: &'static str, package: &'static str) -> Failure {
    Failure::ServerTools { tool, package }
}
