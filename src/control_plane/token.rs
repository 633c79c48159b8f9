//! Decryption tokens (protocol section 7): JWTs that carry the data key of one run.

use crate::model::{Dek, Secret};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::hmac;
use serde_json::json;

/// A token is for one download: long enough for that, too short to be kept (protocol section 7).
pub const LIFETIME_S: u64 = 15 * 60;

/// What a token says.
pub struct Claims<'a> {
    /// Who asked.
    pub subject: &'a str,
    /// The run that the key belongs to.
    pub run_id: &'a str,
    /// The key.
    pub dek: &'a Dek,
    /// Of the whole object, lower-case hex.
    pub sha256: Option<&'a str>,
    /// Unix seconds.
    pub issued_at_s: u64,
}

/// Signs the claims with HS256.
pub fn sign(key: &hmac::Key, claims: &Claims<'_>) -> Secret {
    let mut body = json!({
        "iss": "backupy-server",
        "aud": "backupy-decrypt",
        "iat": claims.issued_at_s,
        "exp": claims.issued_at_s + LIFETIME_S,
        "sub": claims.subject,
        "run_id": claims.run_id,
        "company_id": "local",
        "dek": BASE64.encode(claims.dek.as_received()),
        "alg": "AES-256-GCM",
        "format_version": 1,
    });
    if let (Some(sha256), Some(body)) = (claims.sha256, body.as_object_mut()) {
        body.insert("sha256".into(), sha256.into());
    }
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&body));
    let signature = BASE64URL_NOPAD.encode(hmac::sign(key, signed.as_bytes()).as_ref());
    Secret::from(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_claims_of_the_contract_and_a_signature_that_verifies() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret");
        let dek = Dek::from(vec![7; 32]);
        let claims = Claims {
            subject: "admin",
            run_id: "run-1",
            dek: &dek,
            sha256: Some("ab"),
            issued_at_s: 1_700_000_000,
        };
        let token = sign(&key, &claims);
        let (signed, signature) = token.expose().rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
        let (header, body) = signed.split_once('.').unwrap();
        let parse = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!(parse(header)["alg"], "HS256");
        let body = parse(body);
        let expected = json!({
            "iss": "backupy-server", "aud": "backupy-decrypt", "iat": 1_700_000_000, "exp": 1_700_000_900,
            "sub": "admin", "run_id": "run-1", "company_id": "local",
            "dek": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "alg": "AES-256-GCM", "format_version": 1, "sha256": "ab",
        });
        assert_eq!(body, expected);
    }
}
