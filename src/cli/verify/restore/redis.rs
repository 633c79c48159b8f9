//! Redis and Valkey: the RDB as `dump.rdb` of a server that listens on a socket only and never writes it again.

use super::super::super::opening::Failure;
use super::place::Place;
use super::server::{self, Running};
use super::{Found, Restorer, tools};
use crate::drivers::{DumpReader, Tally};
use nix::unistd::chown;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Each is in a package of its name.
const REDIS: &str = "redis-server";
const VALKEY: &str = "valkey-server";
const CLIENTS: [&str; 2] = ["redis-cli", "valkey-cli"];

/// A server that has more of them says so in its own settings, and refuses an RDB with more than it was given.
const DATABASES: &str = "4096";

/// How a server says that it is older than the file.
const TOO_NEW: [&str; 2] = ["Can't handle RDB format version", "Wrong signature trying to load DB"];

/// The file that a server loads.
const FILE: &str = "dump.rdb";

/// A throwaway server, once the file is whole.
pub struct Redis {
    server: Option<Running>,
    file: File,
    place: Place,
    name: &'static str,
    program: PathBuf,
    client: PathBuf,
}

impl Redis {
    /// Makes the file for a dump that begins with `head`: what Valkey writes under its own name, only Valkey reads.
    ///
    /// # Errors
    /// [`Failure::ServerTools`], [`Failure::Write`].
    pub fn create(place: Place, head: &[u8]) -> Result<Self, Failure> {
        let servers: &[_] = if head.starts_with(b"VALKEY") { &[VALKEY] } else { &[REDIS, VALKEY] };
        let name = servers.first().copied().unwrap_or(REDIS);
        let program = tools::find(servers, name)?;
        let client = tools::find(&CLIENTS, "redis-tools")?;
        let path = place.join(FILE);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Failure::Write)?;
        if let Some(user) = place.user() {
            chown(&path, Some(user.uid), Some(user.gid)).map_err(|errno| Failure::Write(errno.into()))?;
        }
        Ok(Self { server: None, file, place, name, program, client })
    }

    /// It reads the file before anything else: why it ended is about that.
    fn judged(&self, how: &str) -> Failure {
        let said = |words: &&str| {
            let lines = self.server.as_ref().and_then(|server| server.lines_with(words));
            lines.is_some_and(|lines| !lines.is_empty())
        };
        if !TOO_NEW.iter().any(said) {
            return Failure::Restored(format!("{} {how}", self.name));
        }
        let how = format!("{how}; the dump is of a newer server: install its package here");
        Failure::Server { name: self.name, how }
    }

    fn ask(&self, section: &str) -> Result<String, String> {
        let mut command = server::program(&self.place, &self.client, "KILL");
        server::answer(command.arg("-s").arg(self.place.join("s")).args(["INFO", section]))
    }
}

impl Restorer for Redis {
    fn feed(&mut self, bytes: &[u8], _: &DumpReader) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::Write)
    }

    fn look(&mut self, reader: &mut DumpReader) -> Result<Found, Failure> {
        let mut command = server::program(&self.place, &self.program, "KILL");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.args(["--databases", DATABASES, "--dbfilename", FILE, "--unixsocketperm", "700"]);
        command.arg("--dir").arg(self.place.path()).arg("--unixsocket").arg(self.place.join("s"));
        let mut server = Running::start(&self.place, self.name, command)?;
        let loaded =
            server.until(|| self.ask("persistence").is_ok_and(|said| field(&said, "loading") == Some(0)));
        self.server = Some(server);
        match loaded {
            Err(Failure::Server { how, .. }) => return Err(self.judged(&how)),
            loaded => loaded?,
        }
        // It has all of it in memory.
        let _ = std::fs::remove_file(self.place.join(FILE));
        let failed = |how| Failure::Restored(format!("its keys cannot be counted: redis-cli {how}"));
        let said =
            ["server", "persistence", "stats", "keyspace"].map(|section| self.ask(section).map_err(failed));
        let said = said.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let engine = [("Valkey", "valkey_version"), ("Redis", "redis_version")]
            .into_iter()
            .find_map(|(name, key)| Some(format!("{name} {}", text(&said, key)?)));
        let (tally, expired, remarks) = keys(&said, reader.tally(&[]));
        Ok(Found {
            engine: engine.unwrap_or_else(|| "Redis".into()),
            tally,
            foreign: Vec::new(),
            expired,
            remarks,
        })
    }
}

/// What stands behind a name in INFO.
fn text<'a>(said: &'a str, key: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
}

fn field(said: &str, key: &str) -> Option<u64> {
    text(said, key)?.parse().ok()
}

/// The keys of each database; what expired since the backup counts as there.
fn keys(said: &str, dumped: Option<Tally>) -> (Tally, Option<u64>, Vec<String>) {
    let mut found = Tally::default();
    for line in said.lines() {
        let keys = line.split_once(":keys=").filter(|(name, _)| name.starts_with("db"));
        if let Some((name, rest)) = keys
            && let Some(keys) = rest.split(',').next().and_then(|keys| keys.trim().parse().ok())
        {
            found.add(name, keys);
        }
    }
    let Some(dumped) = dumped.filter(Tally::is_whole) else { return (found, None, Vec::new()) };
    let gone = dumped.total().saturating_sub(found.total());
    let fewer =
        dumped.rows().iter().all(|(name, keys)| found.rows().get(name).copied().unwrap_or(0) <= *keys)
            && found.rows().keys().all(|name| dumped.knows(name));
    // Before version 7 a server does not say what it left out when it loaded.
    let loading = field(said, "rdb_last_load_keys_expired");
    let expired = loading.map(|keys| keys + field(said, "expired_keys").unwrap_or(0));
    match expired {
        _ if gone == 0 || !fewer => (found, expired, Vec::new()),
        Some(expired) if expired == gone => (dumped, Some(expired), Vec::new()),
        Some(_) => (found, expired, Vec::new()),
        None => {
            let remark = format!(
                "{gone} keys are not there: they expired, or are lost; this server does not say which"
            );
            (dumped, None, vec![remark])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(keys: &[(&str, u64)]) -> Tally {
        let mut tally = Tally::default();
        keys.iter().for_each(|(name, keys)| tally.add(name, *keys));
        tally
    }

    #[test]
    fn a_key_that_expired_is_no_difference_and_one_that_is_lost_is() {
        let said = |expired: &str| {
            format!("expired_keys:1\r\n{expired}db0:keys=7,expires=2\r\ndb3:keys=1,expires=0\r\n")
        };
        let known = said("rdb_last_load_keys_expired:2\r\n");
        let dumped = tally(&[("db0", 10), ("db3", 1)]);
        assert_eq!(keys(&known, Some(dumped.clone())), (dumped.clone(), Some(3), Vec::new()));
        for other in [tally(&[("db0", 11), ("db3", 1)]), tally(&[("db0", 11)])] {
            let (found, _, _) = keys(&known, Some(other.clone()));
            assert_ne!(found, other);
        }
        let (counted, expired, remarks) = keys(&said(""), Some(dumped.clone()));
        assert_eq!((counted, expired, remarks.len()), (dumped, None, 1));
    }
}
