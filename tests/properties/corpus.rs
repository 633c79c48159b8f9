//! Replays the committed corpus of every fuzz target: what was once found stays found.

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// Of the whole corpus: it is read by everybody who clones this.
const MAX_CORPUS_BYTES: u64 = 1024 * 1024;

type Body = fn(&[u8]);

/// Every target, as it is called in `fuzz/Cargo.toml`.
const TARGETS: [(&str, Body); 11] = [
    ("envelope", bodies::envelope),
    ("session", bodies::session),
    ("frame_guard", bodies::frame_guard),
    ("object_reader", bodies::object_reader),
    ("token", bodies::token),
    ("settings", bodies::settings),
    ("stored_records", bodies::stored_records),
    ("leaf_page", bodies::leaf_page),
    ("state_file", bodies::state_file),
    ("docker_json", bodies::docker_json),
    ("docker_stream", bodies::docker_stream),
];

#[test]
fn the_corpus_of_every_target_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut bytes = 0;
    for (target, body) in TARGETS {
        let inputs: Vec<_> =
            fs::read_dir(corpus.join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            bytes += data.len() as u64;
            // The name of the input stands above a panic.
            println!("{}", input.display());
            body(&data);
        }
    }
    assert!(bytes < MAX_CORPUS_BYTES, "the corpus has {bytes} bytes");
}

#[test]
fn every_target_is_replayed() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    let bins = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(bins.collect::<Vec<_>>(), TARGETS.map(|(name, _)| name));
}
