//! Parts on the disk: what S3 takes, what it refuses, what a crash leaves.

use super::*;
use crate::control_plane::object_store::INCOMING;
use std::collections::BTreeSet;

const OBJECT: &str = "a/j/r.bkpy";
const FULL: usize = MIN_PART_BYTES as usize;
const NO_LIMIT: u64 = u64::MAX;

fn store() -> (tempfile::TempDir, ObjectStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path().join("objects")).unwrap();
    store.begin_upload("ab").unwrap();
    (dir, store)
}

fn put(store: &ObjectStore, number: u32, bytes: &[u8]) -> io::Result<Named> {
    let mut incoming = store.receive_part("ab", number, bytes.len() as u64).unwrap();
    incoming.write(bytes).unwrap();
    Ok(Named { number, etag: format!("\"{}\"", incoming.finish()?.md5) })
}

fn complete(store: &ObjectStore, parts: &[Named]) -> Result<String, Fault> {
    store.complete("ab", OBJECT, parts, NO_LIMIT)
}

/// Files below the store's root.
fn files(store: &ObjectStore) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![store.root().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(store.root()).unwrap().display().to_string());
            }
        }
    }
    found
}

#[test]
fn parts_become_one_object_in_the_order_of_their_numbers() {
    let (_dir, store) = store();
    // In any order, one of them twice: the later one counts.
    let third = put(&store, 3, b"tail").unwrap();
    put(&store, 1, b"void").unwrap();
    let first = put(&store, 1, &vec![b'a'; FULL]).unwrap();
    put(&store, 9, b"not named: dropped").unwrap();
    let etag = complete(&store, &[first.clone(), third.clone()]).unwrap();

    let whole = [vec![b'a'; FULL], b"tail".to_vec()].concat();
    assert!(fs::read(store.path_of(OBJECT)).unwrap() == whole);
    let sums = [Md5::digest(vec![b'a'; FULL]), Md5::digest(b"tail")].concat();
    assert_eq!(etag, format!("{}-2", HEXLOWER.encode(&Md5::digest(sums))));
    assert_eq!(files(&store), [".uploads/ab/done", OBJECT].map(str::to_owned).into());

    assert_eq!(complete(&store, &[first.clone(), third.clone()]).unwrap(), etag, "asked again");
    assert!(matches!(complete(&store, &[first]), Err(Fault::InvalidPart(1))), "another list");
    let late = put(&store, 4, b"late").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::NotFound);
    assert!(!store.abort("ab").unwrap(), "it is over");
    store.forget_upload("ab").unwrap();
    assert_eq!(files(&store), [OBJECT.to_owned()].into());
    assert!(matches!(complete(&store, &[third]), Err(Fault::NoSuchUpload)));
}

#[test]
fn a_list_that_is_not_what_is_there_is_refused_and_changes_nothing() {
    let (_dir, store) = store();
    let first = put(&store, 1, &vec![1; FULL]).unwrap();
    let second = put(&store, 2, &vec![2; FULL - 1]).unwrap();
    let third = put(&store, 3, b"3").unwrap();
    let before = files(&store);
    let named = |number, etag: &str| Named { number, etag: etag.into() };
    let refused = |parts: &[Named]| complete(&store, parts).unwrap_err();

    assert!(matches!(refused(&[first.clone(), named(7, &first.etag)]), Fault::InvalidPart(7)));
    assert!(matches!(refused(&[named(1, &second.etag), third.clone()]), Fault::InvalidPart(1)));
    assert!(matches!(refused(&[named(1, "\"no md5\"")]), Fault::InvalidPart(1)));
    let small = [first.clone(), second.clone(), third.clone()];
    assert!(matches!(refused(&small), Fault::TooSmall(2)));
    assert!(matches!(refused(&[third.clone(), first.clone()]), Fault::InvalidPartOrder));
    assert!(matches!(refused(&[first.clone(), first.clone()]), Fault::InvalidPartOrder));
    let long = store.complete("ab", OBJECT, &[first.clone(), second.clone()], FULL as u64);
    assert!(matches!(long, Err(Fault::TooLarge)));
    assert!(matches!(
        store.complete("cd", OBJECT, std::slice::from_ref(&first), NO_LIMIT),
        Err(Fault::NoSuchUpload)
    ));
    assert_eq!(files(&store), before);
    // S3 takes an ETag without its quotes, and in capitals.
    let bare = named(1, &first.etag.trim_matches('"').to_uppercase());
    assert!(complete(&store, &[bare, second]).is_ok());
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing_and_takes_nothing_more() {
    let (_dir, store) = store();
    let first = put(&store, 1, &vec![1; FULL]).unwrap();
    let mut late = store.receive_part("ab", 2, 4).unwrap();
    late.write(b"late").unwrap();
    assert!(store.abort("ab").unwrap());
    assert_eq!(late.finish().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!store.abort("ab").unwrap());
    assert!(matches!(complete(&store, &[first]), Err(Fault::NoSuchUpload)));
    assert_eq!(files(&store), BTreeSet::new());
    assert!(store.uploads().unwrap().is_empty());
}

#[test]
fn parts_outlive_a_restart_and_what_was_half_written_does_not() {
    let (dir, store) = store();
    let first = put(&store, 1, &vec![1; FULL]).unwrap();
    let second = put(&store, 2, b"two").unwrap();
    fs::write(store.root().join(INCOMING).join("half"), b"half a part").unwrap();
    let store = ObjectStore::open(dir.path().join("objects")).unwrap();
    assert_eq!(store.uploads().unwrap(), ["ab"]);
    assert_eq!(files(&store), [".uploads/ab/00001", ".uploads/ab/00002"].map(str::to_owned).into());
    complete(&store, &[first, second]).unwrap();
    assert_eq!(fs::metadata(store.path_of(OBJECT)).unwrap().len(), FULL as u64 + 3);
}

#[test]
fn a_completion_that_a_crash_cut_after_the_object_appeared_is_done_again() {
    let (_dir, store) = store();
    let only = put(&store, 1, b"all of it").unwrap();
    // What the disk holds between the object's rename and the note that it is done.
    fs::create_dir_all(store.path_of(OBJECT).parent().unwrap()).unwrap();
    fs::write(store.path_of(OBJECT), b"all of it").unwrap();
    let etag = complete(&store, std::slice::from_ref(&only)).unwrap();
    assert_eq!(complete(&store, &[only]).unwrap(), etag);
    assert_eq!(fs::read(store.path_of(OBJECT)).unwrap(), b"all of it");
}

#[test]
fn completions_at_the_same_time_get_the_same_answer() {
    let (_dir, store) = store();
    let parts = [put(&store, 1, &vec![1; FULL]).unwrap(), put(&store, 2, b"two").unwrap()];
    let etags: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| complete(&store, &parts).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(etags.len(), 1);
}
