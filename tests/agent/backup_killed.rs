//! What a `backup` leaves that was killed: the next one in the same place removes it, and nothing of one that lives.

use crate::backup_cli::{Host, code, output};
use crate::common::{Agent, eventually};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// The directories of backups in it.
fn places(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Begins a backup that takes very long, and gives its directory once something is in there.
fn begun(host: &Host, flags: &[&str], dir: &Path) -> (Agent, PathBuf) {
    let before = places(dir);
    let mut backup = host.backup("shop", flags);
    backup.env("BACKUPY_BACKUP_MAX_READ_BYTES_PER_SEC", "65536");
    let going = Agent::spawn(backup);
    let place = eventually("a backup writes", SOON, || {
        let now = places(dir);
        let own = now.difference(&before).next()?;
        (fs::read_dir(own).ok()?.count() > 0).then(|| own.clone())
    });
    (going, place)
}

#[test]
fn the_next_backup_removes_what_killed_ones_left_and_nothing_of_a_living_one() {
    for to in ["-", "shop.bkpy"] {
        let host = Host::new();
        let spool = host.path("spool");
        let dir = if to == "-" { spool.clone() } else { host.path("out") };
        let flags = |out, key| ["--out", out, "--key-out", key, "--spool-dir", spool.to_str().unwrap()];
        let (mut killed, dead) = begun(&host, &flags(to, "dead.key"), &dir);
        killed.kill();
        let (mut going, living) =
            begun(&host, &flags(if to == "-" { to } else { "other" }, "living.key"), &dir);
        assert_eq!(places(&dir), BTreeSet::from([living.clone()]), "{} is left", dead.display());
        let made = output(&mut host.backup("shop", &flags(to, "shop.key")));
        assert_eq!(code(&made), 0, "{made:?}");
        assert_eq!(places(&dir), BTreeSet::from([living.clone()]));
        assert!(fs::read_dir(&living).unwrap().count() > 0, "it is taken from under a living backup");
        going.terminate();
        assert_eq!(going.wait_for_code(SOON), 75, "{:?}", going.output());
        assert_eq!(places(&dir), BTreeSet::new());
    }
}
