//! Names that the server gave: distinct, and short where they are shown.

use std::collections::HashSet;

/// How much of a name that the server sent is shown in a remark: enough to recognise it.
const SHOWN_CHARS: usize = 64;

/// Entries with a name of their own: the first of each name counts.
pub(super) fn distinct<'a, T>(
    what: &str,
    entries: &'a [T],
    id: impl Fn(&'a T) -> &'a String,
    remarks: &mut Vec<String>,
) -> Vec<&'a T> {
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if id(entry).is_empty() {
            remarks.push(format!("{what} number {} has no id and was left out", index + 1));
        } else if !seen.insert(id(entry)) {
            remarks.push(format!("{what} \"{}\" stands there twice: the first one counts", shown(id(entry))));
        } else {
            kept.push(entry);
        }
    }
    kept
}

/// The beginning of a name that the server sent.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS).collect()
}
