//! Holds the house: who may use whom, how long a file may be, and that the maps in `src/lib.rs` and
//! `ARCHITECTURE.md` show what is there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code: a failure is a panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The arrows: a room, and the rooms that it may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("object", &[]),
    ("trust", &[]),
    ("http", &[]),
    ("docker", &["http"]),
    ("wire", &["model"]),
    ("store", &["model"]),
    ("probe", &["trust", "model"]),
    ("settings", &["model"]),
    ("telemetry", &["settings", "model"]),
    ("channel", &["wire", "model"]),
    ("process", &["model"]),
    ("spool", &["model"]),
    ("drivers", &["process", "spool", "object", "docker", "model"]),
    ("backup", &["drivers", "process", "spool", "object", "trust", "docker", "http", "model"]),
    ("control_plane", &["wire", "object", "model"]),
    (
        "actors",
        &[
            "channel",
            "store",
            "backup",
            "drivers",
            "process",
            "spool",
            "probe",
            "wire",
            "settings",
            "telemetry",
            "model",
        ],
    ),
    (
        "daemon",
        &[
            "actors",
            "channel",
            "settings",
            "store",
            "telemetry",
            "wire",
            "backup",
            "drivers",
            "probe",
            "model",
        ],
    ),
    (
        "cli",
        &[
            "settings",
            "daemon",
            "actors",
            "backup",
            "drivers",
            "process",
            "spool",
            "object",
            "store",
            "control_plane",
            "telemetry",
            "wire",
            "model",
        ],
    ),
];

/// Crates that one room alone may name, so that they can be replaced or reasoned about there.
const CONFINED: &[(&str, &[&str])] =
    &[("redb", &["store"]), ("actix_web", &["control_plane"]), ("actix_ws", &["control_plane"])];

/// The crate's root may name rooms freely; the binary may only use the command line.
const BINARY_USES: &[&str] = &["cli"];

/// A file that is longer has more than one subject.
const MAX_LINES: usize = 400;

/// A file of the crate: its path below `src/`, and its text.
type Source = (PathBuf, String);

#[test]
fn no_room_uses_a_room_that_it_has_no_arrow_to() {
    let sources = sources();
    assert!(sources.len() > ROOMS.len(), "src/ was not found");
    let found = violations(&sources);
    assert!(found.is_empty(), "against the arrows of ARCHITECTURE.md:\n{}", found.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<_> = rust_files(&root())
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines >= MAX_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{MAX_LINES} lines and more:\n{}", long.join("\n"));
}

#[test]
fn the_map_in_lib_rs_names_every_room() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for folder in folders() {
        let named =
            map.lines().any(|line| line.starts_with("//! | ") && line.contains(&format!("`{folder}`")));
        assert!(named, "src/lib.rs does not name the room {folder}");
        assert!(ROOMS.iter().any(|(room, _)| *room == folder), "{folder} has no arrows in this test");
    }
    assert_eq!(folders().len(), ROOMS.len(), "this test has a room that is no folder of src/");
}

#[test]
fn the_table_in_architecture_md_has_the_same_arrows() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (room, arrows) in ROOMS {
        let start = format!("| `src/{room}/` |");
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {room}"));
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let allowed = cell.split('—').next().unwrap().replace("(reading)", "");
        let written: BTreeSet<&str> =
            allowed.split(',').map(str::trim).filter(|name| *name != "nothing").collect();
        assert_eq!(written, arrows.iter().copied().collect(), "ARCHITECTURE.md, {room}");
    }
}

#[test]
fn the_arrows_have_no_circle() {
    fn walk(room: &str, path: &mut Vec<String>) {
        assert!(!path.iter().any(|seen| seen == room), "a circle: {} -> {room}", path.join(" -> "));
        path.push(room.to_owned());
        let arrows =
            ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("no room {room}")).1;
        arrows.iter().for_each(|next| walk(next, path));
        path.pop();
    }
    ROOMS.iter().for_each(|(room, _)| walk(room, &mut Vec::new()));
}

#[test]
fn a_planted_violation_is_found_in_every_way_of_writing_it() {
    let cases = [
        ("control_plane/x.rs", "use crate::store::StateStore;"),
        ("control_plane/x.rs", "pub use crate::{model::RunId, actors::{messages::Submit, *}};"),
        ("control_plane/x.rs", "use crate::{\n    model::{RunId, JobId},\n    channel as link,\n};"),
        ("object/x.rs", "fn f() -> crate::model::RunId { todo!() }"),
        ("model/mod.rs", "use super::wire::v1;"),
        ("model/x.rs", "use super::super::wire::v1;"),
        ("store/deep/x.rs", "pub(crate) use crate :: wire;"),
        ("wire/x.rs", "use crate::*;"),
        ("wire/x.rs", "use backupy_agent::store::Change;"),
        ("main.rs", "use backupy_agent::daemon::run;"),
        ("actors/x.rs", "use redb::Database;"),
        ("actors/x.rs", "let db = redb::Database::open(path);"),
        ("cli/x.rs", "use actix_web::HttpServer;"),
    ];
    for (path, text) in cases {
        let found = violations(&[(path.into(), text.to_owned())]);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let cases = [
        ("control_plane/x.rs", "use crate::{wire::{v1, Envelope}, object::seal, model};"),
        ("control_plane/x.rs", "use super::store::Signed; use crate::control_plane::agents;"),
        ("control_plane/store.rs", "// like crate::store, but its own"),
        ("backup/x.rs", "/// See [`crate::store`].\nuse crate::object::Sealer;"),
        ("store/x.rs", "use redb::Database; use super::change::Change;"),
        ("lib.rs", "pub mod actors; use crate::actors::Supervisor;"),
        ("main.rs", "fn main() { backupy_agent::cli::main() }"),
        ("actors/x.rs", "let my_crate = 1; struct Credb; fn f(x: Credb) {}"),
    ];
    let own_store = ("control_plane/store.rs".into(), String::new());
    for (path, text) in cases {
        let found = violations(&[(path.into(), text.to_owned()), own_store.clone()]);
        assert!(found.is_empty(), "{path}: {text}: {found:?}");
    }
}

/// Every use of a room or crate that the tables above do not allow, one a line.
fn violations(sources: &[Source]) -> Vec<String> {
    let paths: BTreeSet<&Path> = sources.iter().map(|(path, _)| path.as_path()).collect();
    let mut found = Vec::new();
    for (path, text) in sources {
        let code = without_comments(text);
        let room = room_of(path);
        let allowed = match room.as_deref() {
            Some(room) => ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, arrows)| arrows),
            None if path == Path::new("main.rs") => BINARY_USES,
            None => continue,
        };
        for used in rooms_used(&code, path, &paths) {
            if room.as_deref() != Some(&used) && !allowed.contains(&used.as_str()) {
                found.push(format!("src/{}: uses {used}", path.display()));
            }
        }
        for (name, homes) in CONFINED {
            let at_home = room.as_deref().is_some_and(|room| homes.contains(&room));
            if !at_home && !heads_after(&code, name).is_empty() {
                found.push(format!("src/{}: names the crate {name}", path.display()));
            }
        }
    }
    found
}

/// Rooms that are named by a path: `crate::room`, `backupy_agent::room`, or `super::room` where no
/// module of that name lies beside the file. `*` stands for all of them at once.
fn rooms_used(code: &str, path: &Path, paths: &BTreeSet<&Path>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for root in ["crate", "backupy_agent"] {
        used.extend(heads_after(code, root));
    }
    for head in heads_after(code, "super") {
        let is_room = ROOMS.iter().any(|(room, _)| *room == head);
        let own = room_of(path).unwrap_or_default();
        let beside = [format!("{own}/{head}.rs"), format!("{own}/{head}/mod.rs")];
        if is_room && !beside.iter().any(|module| paths.contains(Path::new(module))) {
            used.insert(head);
        }
    }
    used
}

/// The first names after every `root::`, also inside a group: `root::{a::b, c}` gives a and c.
fn heads_after(code: &str, root: &str) -> BTreeSet<String> {
    let mut heads = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(rest) = code[at + root.len()..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            Some(group) => heads.extend(members(group)),
            None => heads.extend(head(rest)),
        }
    }
    heads
}

/// The first name of each member of a group, whose opening brace is already gone.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.extend(head(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// The name that a path begins with.
fn head(path: &str) -> Option<String> {
    let path = path.trim_start();
    if path.starts_with('*') {
        return Some("*".into());
    }
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty() && name != "super").then_some(name)
}

/// The room that a file lies in; none for `lib.rs` and `main.rs`.
fn room_of(path: &Path) -> Option<String> {
    let mut parts = path.components();
    let first = parts.next()?.as_os_str().to_str()?.to_owned();
    parts.next().map(|_| first)
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read =
        |path: PathBuf| (path.strip_prefix(&src).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
    rust_files(&src).into_iter().map(read).collect()
}

fn folders() -> Vec<String> {
    let entries = fs::read_dir(root().join("src")).unwrap().map(Result::unwrap);
    entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect()
}

/// Every Rust file below `folder` that is ours.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(rust_files(&path));
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}
