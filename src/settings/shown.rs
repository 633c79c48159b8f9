//! What may be shown of a value.

use std::borrow::Cow;
use url::Url;

/// A value in a fault is cut here: a whole file pasted into a variable helps nobody.
const MAX_SHOWN_CHARS: usize = 80;

/// What every agent key with a prefix begins with (protocol section 1).
const KEY_PREFIX: &str = "bkpy_";

/// `live_` and `test_` alone are no secret: messages explain what a key looks like.
const PUBLIC_LEN: usize = 5;

/// Agent keys without a prefix are so many lower-case hex digits.
const BARE_KEY_LEN: usize = 64;

const MASK: &str = "***";

/// The value quoted, control characters escaped, cut to a length for one line.
pub(super) fn shown(value: &str) -> String {
    let mut cut: String = value.chars().take(MAX_SHOWN_CHARS).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// The URL without what may be secret in it: the password, the query's values.
pub(super) fn mask_url(url: &Url) -> String {
    let mut masked = url.clone();
    if !url.username().is_empty() || url.password().is_some() {
        // Refused only for URLs without a host, which have no userinfo.
        let _ = masked.set_username(MASK);
        let _ = masked.set_password(None);
    }
    if url.query().is_some() {
        masked.set_query(Some(MASK));
    }
    masked.into()
}

/// The text with everything that looks like an agent key masked: the last net below messages that
/// name a value which somebody put in the wrong place.
pub(super) fn scrub(text: &str) -> Cow<'_, str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let looks_like_key = |word: &str| {
        let prefixed = word.to_ascii_lowercase().find(KEY_PREFIX);
        prefixed.is_some_and(|start| word.len() > start + KEY_PREFIX.len() + PUBLIC_LEN)
            || word.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= BARE_KEY_LEN)
    };
    if !text.split(|c| !is_word(c)).any(looks_like_key) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        clean.push_str(if looks_like_key(&rest[..word]) { MASK } else { &rest[..word] });
        rest = &rest[word..];
        let gap = rest.find(is_word).unwrap_or(rest.len());
        clean.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_and_query_of_a_url_are_masked() {
        let url = Url::parse("https://me:secret@host:8443/base?token=secret").unwrap();
        assert_eq!(mask_url(&url), "https://***@host:8443/base?***");
        let plain = Url::parse("https://host/base").unwrap();
        assert_eq!(mask_url(&plain), "https://host/base");
    }

    #[test]
    fn what_looks_like_an_agent_key_is_masked_wherever_it_stands() {
        let hex = "a1".repeat(32);
        for key in ["bkpy_live_0123456789abcdefghijABCDEFGHIJ01", "bkpy_test_short", hex.as_str()] {
            let text = format!("is {key:?}, and (ä {key})");
            assert_eq!(scrub(&text), r#"is "***", and (ä ***)"#);
        }
        assert_eq!(scrub("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn long_values_are_cut_and_control_characters_escaped() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert!(shown(&"x".repeat(1000)).chars().count() < 90);
    }
}
