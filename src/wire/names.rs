//! Names that the server gave: distinct, and short where they are shown.

use std::collections::HashSet;

/// How much of a name that the server sent is shown in a remark: enough to recognise it.
const SHOWN_CHARS: usize = 64;

/// Entries with a name of their own: the first of each name counts.
pub(super) fn distinct<T>(
    what: &str,
    entries: Vec<T>,
    id: impl Fn(&T) -> &str,
    remarks: &mut Vec<String>,
) -> Vec<T> {
    let mut seen = HashSet::new();
    let mut counts = |index: usize, id| {
        if str::is_empty(id) {
            remarks.push(format!("{what} number {} has no id and was left out", index + 1));
            return false;
        }
        let is_first = seen.insert(id);
        if !is_first {
            remarks.push(format!("{what} \"{}\" stands there twice: the first one counts", shown(id)));
        }
        is_first
    };
    let counted: Vec<bool> =
        entries.iter().enumerate().map(|(index, entry)| counts(index, id(entry))).collect();
    entries.into_iter().zip(counted).filter_map(|(entry, counts)| counts.then_some(entry)).collect()
}

/// The beginning of a name that the server sent.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS).collect()
}
