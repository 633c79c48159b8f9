//! The last net under the log: what looks like an agent key or like the query of a URL (a presigned
//! URL carries its authorisation there) is masked in every line.

use std::borrow::Cow;

const MASK: &str = "***";

/// Every agent key with a prefix begins so, and goes on with one of these (protocol section 1).
const KEY_PREFIXES: [&str; 2] = ["bkpy_live_", "bkpy_test_"];

/// The text with agent keys and queries of URLs masked.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut clean: Option<String> = None;
    let mut done = 0;
    while let Some(secret) = next_secret(&text[done..]) {
        let clean = clean.get_or_insert_with(|| String::with_capacity(text.len()));
        clean.push_str(&text[done..done + secret.start]);
        clean.push_str(MASK);
        done += secret.end;
    }
    match clean {
        None => Cow::Borrowed(text),
        Some(mut clean) => {
            clean.push_str(&text[done..]);
            Cow::Owned(clean)
        }
    }
}

/// The bytes of the first secret in the text.
fn next_secret(text: &str) -> Option<std::ops::Range<usize>> {
    let keys = KEY_PREFIXES.into_iter().filter_map(|prefix| agent_key(text, prefix));
    keys.chain(query(text)).min_by_key(|range| range.start)
}

/// What follows the prefix of the first agent key.
fn agent_key(text: &str, prefix: &str) -> Option<std::ops::Range<usize>> {
    text.match_indices(prefix).find_map(|(at, _)| {
        let start = at + prefix.len();
        let rest = &text[start..];
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        (len > 0).then_some(start..start + len)
    })
}

/// The query of the first URL that has one.
fn query(text: &str) -> Option<std::ops::Range<usize>> {
    let ends_url = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '\\' | '`');
    text.match_indices("://").find_map(|(at, _)| {
        let url = &text[at..];
        let url = &url[..url.find(ends_url).unwrap_or(url.len())];
        let start = url.find('?')? + 1;
        (start < url.len() && &url[start..] != MASK).then_some(at + start..at + url.len())
    })
}

#[cfg(test)]
mod tests {
    use super::redact;
    use std::borrow::Cow;

    #[test]
    fn agent_keys_and_queries_of_urls_are_masked_and_nothing_else() {
        for (text, expected) in [
            ("key bkpy_live_0123abcDEF, bkpy_test_x", "key bkpy_live_***, bkpy_test_***"),
            ("PUT https://s3/b/k?X-Amz-Signature=aa%2F&y=1 failed", "PUT https://s3/b/k?*** failed"),
            (r#"{"url":"http://h/?a=b","n":1}"#, r#"{"url":"http://h/?***","n":1}"#),
            ("https://a/?x https://b/?y", "https://a/?*** https://b/?***"),
            ("what? https://host/path is fine? yes", "what? https://host/path is fine? yes"),
            ("a key is bkpy_live_… with 32", "a key is bkpy_live_… with 32"),
            ("ünï https://ü/?geheim ß", "ünï https://ü/?*** ß"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn a_line_without_secrets_is_not_copied() {
        assert!(matches!(redact("connected to https://host/base"), Cow::Borrowed(_)));
        assert_eq!(redact(&redact("https://h/?a=b")), "https://h/?***");
    }
}
