//! Spools: private, bounded, gone with their run.

use super::*;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_spool_is_private_and_goes_with_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let spools = dir.path().join("deep/spool");
    let spool = Spool::create(&spools, &"run-1".into()).unwrap();
    let path = spools.join("run-1.part");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(spools.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    spool.writer(&Room::default()).unwrap().write_all(b"first").unwrap();
    spool.writer(&Room::default()).unwrap().write_all(b"2nd").unwrap();
    let mut text = String::new();
    spool.reader().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "2nd");
    drop(spool);
    assert!(!path.exists());
}

#[test]
fn a_run_of_a_later_life_keeps_its_spool_when_the_earlier_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = Spool::create(dir.path(), &"r".into()).unwrap();
    let later = Spool::create(dir.path(), &"r".into()).unwrap();
    assert!(earlier.reader().is_err(), "it is not read as its own");
    drop(earlier);
    assert!(dir.path().join("r.part").exists());
    drop(later);
    assert!(!dir.path().join("r.part").exists());
}

#[test]
fn no_run_id_leads_out_of_the_directory_or_onto_another_run() {
    let names: Vec<_> = ["../../etc/passwd", "..", "", "a/b", "a_b", "a b", &"x".repeat(300), "ü", ".part"]
        .iter()
        .map(|id| file_name(&RunId::from(*id)))
        .collect();
    for name in &names {
        assert!(!name.contains('/') && name.len() < 128 && name.ends_with(SUFFIX), "{name}");
    }
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn only_spools_of_earlier_lives_are_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(remove_stale(&dir.path().join("none"), &[]).unwrap(), 0);
    for name in ["a.part", "b.part", "notes.txt"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    assert_eq!(remove_stale(dir.path(), &[]).unwrap(), 2);
    assert!(dir.path().join("notes.txt").exists());
}

#[test]
fn the_guard_speaks_before_and_while_writing_with_the_figures() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(100 << 20));
    let room = Room {
        min_free_bytes: 64 << 20,
        free: Arc::new({
            let free = free.clone();
            move |_| Ok(Space { free: free.load(Ordering::SeqCst), total: 1 << 40 })
        }),
    };
    room.ensure(dir.path(), 36 << 20).unwrap();
    let refused = room.ensure(dir.path(), (36 << 20) + 1).unwrap_err().to_string();
    assert!(refused.contains("104857600 bytes are free") && refused.contains("37748737"), "{refused}");

    let spool = Spool::create(dir.path(), &"r".into()).unwrap();
    let mut writer = spool.writer(&room).unwrap();
    let piece = vec![0; 1 << 20];
    let mut error = loop {
        if let Err(error) = writer.write_all(&piece) {
            break error;
        }
        free.fetch_sub(1 << 20, Ordering::SeqCst);
    };
    let inner = SpoolError::within(&mut error).expect("the reason comes out again");
    assert!(matches!(inner, SpoolError::NoRoom { free, .. } if free == 64 << 20), "{inner}");
}
