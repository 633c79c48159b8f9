//! Looking for a tool: among the host's files, or by asking a container to start it.

use super::DumpError;
use super::call::Call;
use super::ground::Ground;
use super::tool;
use crate::process::Cancel;
use std::path::PathBuf;
use std::time::Duration;

/// For a tool inside a container to say its version: a busy engine takes seconds to start a program.
const VERSION_LIMIT: Duration = Duration::from_secs(30);

impl Ground {
    /// The tool of that name, where there is one.
    ///
    /// # Errors
    /// Inside a container, whatever keeps the tool from saying its version, but for its being missing.
    pub fn find(&self, name: &str, cancel: &Cancel) -> Result<Option<PathBuf>, DumpError> {
        let container = match self {
            Self::Host(host) => return Ok(host.tools.find(name)),
            Self::Container(container) => container,
        };
        if let Some(is_there) = container.has(name) {
            return Ok(is_there.then(|| name.into()));
        }
        // A container's files are not looked at: what starts is there.
        let call = Call::new(self, name, name.into()).arg("--version");
        let is_there = match tool::answer(&call, VERSION_LIMIT, cancel) {
            Ok(_) | Err(DumpError::Tool { .. }) => true,
            Err(DumpError::ToolMissingInside { .. }) => false,
            Err(error) => return Err(error),
        };
        container.remember(name, is_there);
        Ok(is_there.then(|| name.into()))
    }

    /// The first of these tools that is there.
    ///
    /// # Errors
    /// As [`Ground::find`].
    pub fn find_any<'n>(
        &self,
        names: &[&'n str],
        cancel: &Cancel,
    ) -> Result<Option<(&'n str, PathBuf)>, DumpError> {
        for name in names {
            if let Some(program) = self.find(name, cancel)? {
                return Ok(Some((name, program)));
            }
        }
        Ok(None)
    }

    /// Every program of that name of PostgreSQL; a container has one, which is its server's.
    ///
    /// # Errors
    /// As [`Ground::find`].
    pub fn find_each_postgres(&self, name: &str, cancel: &Cancel) -> Result<Vec<PathBuf>, DumpError> {
        match self {
            Self::Host(host) => Ok(host.tools.find_each_postgres(name)),
            Self::Container(_) => Ok(Vec::from_iter(self.find(name, cancel)?)),
        }
    }

    /// A tool that was looked for in vain.
    pub fn missing(&self, tool: &'static str, package: &'static str) -> DumpError {
        match self {
            Self::Host(host) => DumpError::missing(&host.tools, tool, package),
            Self::Container(container) => {
                DumpError::ToolMissingInside { tool: tool.to_owned(), container: container.name().to_owned() }
            }
        }
    }
}
