//! URLs that carry their own authorisation: who has one may do one thing with one object until it expires.
//! Parts of an object are named as S3 names them: `uploadId` and `partNumber` in the query, under the signature.

use crate::model::Secret;
use data_encoding::HEXLOWER;
use ring::hmac;

/// Where objects live below the base URL.
pub const PREFIX: &str = "/objects/";
/// Characters of a part of an object's name that need no escaping anywhere.
const MAX_PART_CHARS: usize = 128;

/// Why a URL opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A part is missing or not a number.
    #[error("the URL lacks `expires` and `signature`")]
    Unsigned,
    /// Signed by another key, for another method, object, part or time.
    #[error("the signature does not match the request")]
    WrongSignature,
    /// Was good. The agent knows by the word that a fresh one may do.
    #[error("the URL has expired")]
    Expired,
}

/// What of an object a URL is for. Names of uploads are lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The whole of it.
    Object,
    /// An upload in parts: to put it together or to give it up.
    Upload(&'a str),
    /// A part of it, by its number.
    Part(&'a str, u32),
}

impl Scope<'_> {
    /// As it stands in the query, and under the signature.
    fn query(self) -> String {
        match self {
            Self::Object => String::new(),
            Self::Upload(id) => format!("uploadId={id}&"),
            Self::Part(id, number) => format!("partNumber={number}&uploadId={id}&"),
        }
    }
}

/// The URL under which `method` is allowed on the object until the moment, unix milliseconds.
pub fn url(
    key: &hmac::Key,
    base_url: &str,
    method: &str,
    object: &str,
    scope: Scope<'_>,
    expires_at_ms: u64,
) -> Secret {
    let signed = signed(method, object, scope, expires_at_ms);
    let signature = HEXLOWER.encode(hmac::sign(key, &signed).as_ref());
    let what = scope.query();
    Secret::from(format!("{base_url}{PREFIX}{object}?{what}expires={expires_at_ms}&signature={signature}"))
}

/// What the query of a request allows.
///
/// # Errors
/// The signature is looked at first: who cannot sign learns nothing about times.
pub fn check<'a>(
    key: &hmac::Key,
    method: &str,
    object: &str,
    query: &'a str,
    now_ms: u64,
) -> Result<Scope<'a>, Refusal> {
    let field = |name: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
    };
    let expires = field("expires").and_then(|text| text.parse::<u64>().ok()).ok_or(Refusal::Unsigned)?;
    let signature = field("signature").ok_or(Refusal::Unsigned)?;
    let signature = HEXLOWER.decode(signature.as_bytes()).map_err(|_| Refusal::WrongSignature)?;
    let scope = match (field("uploadId"), field("partNumber")) {
        (None, None) => Scope::Object,
        (Some(id), None) => Scope::Upload(id),
        (Some(id), Some(number)) => Scope::Part(id, number.parse().map_err(|_| Refusal::WrongSignature)?),
        (None, Some(_)) => return Err(Refusal::WrongSignature),
    };
    hmac::verify(key, &signed(method, object, scope, expires), &signature)
        .map_err(|_| Refusal::WrongSignature)?;
    if now_ms >= expires { Err(Refusal::Expired) } else { Ok(scope) }
}

fn signed(method: &str, object: &str, scope: Scope<'_>, expires_at_ms: u64) -> Vec<u8> {
    format!("{method}\n{object}\n{}{expires_at_ms}", scope.query()).into_bytes()
}

/// The object's name of a run: agent, job and run, without a character that a path or URL minds.
pub fn object_name(agent_id: &str, job_id: &str, run_id: &str) -> String {
    let part = |text: &str| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        text.chars().take(MAX_PART_CHARS).map(plain).collect()
    };
    format!("{}/{}/{}.bkpy", part(agent_id), part(job_id), part(run_id))
}

/// Whether a name can be an object's: nothing that leaves the store's directory.
pub fn is_object_name(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    !name.is_empty() && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "agent/job/run.bkpy";

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"k")
    }

    fn query(method: &str, object: &str) -> String {
        scoped(method, object, Scope::Object)
    }

    fn scoped(method: &str, object: &str, scope: Scope<'_>) -> String {
        let url = url(&key(), "https://plane", method, object, scope, 1000);
        url.expose().split_once('?').unwrap().1.to_owned()
    }

    #[test]
    fn a_url_is_good_for_its_method_object_and_time_only() {
        let put = query("PUT", OBJECT);
        assert_eq!(check(&key(), "PUT", OBJECT, &put, 999), Ok(Scope::Object));
        assert_eq!(check(&key(), "PUT", OBJECT, &put, 1000), Err(Refusal::Expired));
        assert_eq!(check(&key(), "GET", OBJECT, &put, 999), Err(Refusal::WrongSignature));
        assert_eq!(check(&key(), "PUT", "agent/job/other.bkpy", &put, 999), Err(Refusal::WrongSignature));
        let later = put.replace("expires=1000", "expires=9000");
        assert_eq!(check(&key(), "PUT", OBJECT, &later, 999), Err(Refusal::WrongSignature));
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"other");
        assert_eq!(check(&other, "PUT", OBJECT, &put, 999), Err(Refusal::WrongSignature));
    }

    #[test]
    fn a_url_of_a_part_is_good_for_that_part_only() {
        let part = scoped("PUT", OBJECT, Scope::Part("ab", 3));
        assert_eq!(check(&key(), "PUT", OBJECT, &part, 999), Ok(Scope::Part("ab", 3)));
        let complete = scoped("POST", OBJECT, Scope::Upload("ab"));
        assert_eq!(check(&key(), "POST", OBJECT, &complete, 999), Ok(Scope::Upload("ab")));
        let bent = [
            part.replace("partNumber=3", "partNumber=4"),
            part.replace("partNumber=3", "partNumber=x"),
            part.replace("uploadId=ab", "uploadId=cd"),
            part.replace("partNumber=3&", ""),
            part.replace("uploadId=ab&", ""),
            part.replace("partNumber=3&uploadId=ab&", ""),
            complete.clone(),
            format!("partNumber=3&{complete}"),
            format!("partNumber=3&uploadId=ab&{}", query("PUT", OBJECT)),
            format!("uploadId=ab&{}", query("PUT", OBJECT)),
            format!("partNumber=3&{}", query("PUT", OBJECT)),
        ];
        for query in bent {
            assert_eq!(check(&key(), "PUT", OBJECT, &query, 999), Err(Refusal::WrongSignature), "{query}");
        }
        assert_eq!(check(&key(), "DELETE", OBJECT, &complete, 999), Err(Refusal::WrongSignature));
    }

    #[test]
    fn a_query_without_its_parts_is_unsigned() {
        for query in ["", "expires=1000", "signature=00", "expires=soon&signature=00", "a&b"] {
            assert_eq!(check(&key(), "PUT", OBJECT, query, 0), Err(Refusal::Unsigned), "{query}");
        }
    }

    #[test]
    fn an_objects_name_never_leaves_the_store() {
        let name = object_name("a", "../../etc/passwd", "r/../x y");
        assert_eq!(name, "a/______etc_passwd/r____x_y.bkpy");
        assert!(is_object_name(&name));
        for bad in ["", "/a", "a//b", "a/../b", "..", "a/.tmp", "a/b%2f", "a\\b", "a/b/"] {
            assert!(!is_object_name(bad), "{bad}");
        }
    }
}
