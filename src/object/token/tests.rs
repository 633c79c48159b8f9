use super::*;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 900, "iat": NOW, "sub": "user-1",
        "run_id": "run-1", "company_id": "company-1",
        "dek": data_encoding::BASE64.encode(&[7; KEY_LEN]),
        "alg": OBJECT_ALGORITHM, "format_version": 1, "sha256": "ab".repeat(32),
    })
}

fn jwt(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), BASE64URL_NOPAD.encode(&[1; SIGNATURE_LEN]))
}

fn parse(claims: &Value) -> Result<Token, TokenError> {
    Token::parse(&jwt(&json!({"alg": "HS256", "typ": "JWT"}), claims), NOW)
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

#[test]
fn a_good_token_gives_key_and_claims() {
    let token = parse(&claims()).unwrap();
    assert_eq!(token.dek(), &[7; KEY_LEN]);
    assert_eq!(token.run_id, "run-1");
    assert_eq!(token.sha256.unwrap().to_string(), "ab".repeat(32));
    assert_eq!(token.expires_at_s, NOW + 900);
}

#[test]
fn tells_every_fault_apart() {
    let cases = [
        (with("iss", json!("x")), TokenError::WrongIssuer { found: "x".into() }),
        (with("aud", json!("y")), TokenError::WrongAudience { found: "y".into() }),
        (with("aud", json!(["a", "b"])), TokenError::WrongAudience { found: "a, b".into() }),
        (
            with("alg", json!("ChaCha20")),
            TokenError::UnsupportedAlgorithm { found: "ChaCha20".into(), known: OBJECT_ALGORITHM },
        ),
        (with("format_version", json!(2)), TokenError::UnsupportedVersion { found: 2 }),
        (with("exp", json!(NOW)), TokenError::Expired { ago_s: 0 }),
        (with("exp", json!(NOW - 60)), TokenError::Expired { ago_s: 60 }),
        (with("exp", json!(-1.5)), TokenError::Expired { ago_s: NOW }),
    ];
    for (claims, expected) in cases {
        assert_eq!(parse(&claims).unwrap_err(), expected);
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let mut bad: Vec<Value> = ["iss", "aud", "exp", "iat", "sub", "run_id", "company_id", "dek", "alg"]
        .into_iter()
        .map(without)
        .collect();
    bad.extend([
        without("format_version"),
        with("dek", json!("AAAA")),
        with("dek", json!("not base64!")),
        with("sha256", json!("abc")),
        with("exp", json!("tomorrow")),
        json!([]),
    ]);
    for claims in bad {
        let error = parse(&claims).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{claims}: {error}");
    }
    let whole = jwt(&json!({"alg": "HS256"}), &claims());
    let cut = &whole[..whole.len() - 4];
    let long = "a".repeat(MAX_TOKEN_LEN + 1);
    for text in ["", " \n", "abc", "a.b", "a.b.c.d", "é.é.é", "..", cut, &long] {
        let error = Token::parse(text, NOW).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{text}: {error}");
    }
}

#[test]
fn another_signature_algorithm_is_refused() {
    for alg in ["none", "RS256", "hs256"] {
        let error = Token::parse(&jwt(&json!({"alg": alg}), &claims()), NOW).unwrap_err();
        assert!(matches!(error, TokenError::UnsupportedAlgorithm { .. }), "{alg}: {error}");
    }
}

#[test]
fn takes_what_other_issuers_may_write() {
    let text = jwt(&json!({"alg": "HS256"}), &claims());
    let padded = text.split('.').map(|part| format!("{part}==")).collect::<Vec<_>>().join(".");
    assert!(Token::parse(&format!("  {padded}\n"), NOW).is_ok());
    assert!(parse(&with("aud", json!(["other", AUDIENCE]))).is_ok());
    assert!(parse(&with("exp", json!(NOW as f64 + 1.5))).is_ok());
    assert!(parse(&with("extra", json!({"a": 1}))).is_ok());
    assert_eq!(parse(&without("sha256")).unwrap().sha256, None);
    assert_eq!(parse(&with("sha256", json!(""))).unwrap().sha256, None);
    let unpadded = data_encoding::BASE64_NOPAD.encode(&[7; KEY_LEN]);
    assert_eq!(parse(&with("dek", json!(unpadded))).unwrap().dek(), &[7; KEY_LEN]);
}

#[test]
fn neither_debug_nor_an_error_shows_the_key() {
    let key = data_encoding::BASE64.encode(&[7; KEY_LEN]);
    let shown = format!("{:?}", parse(&claims()).unwrap());
    assert!(!shown.contains(&key[..8]) && !shown.contains("7, 7"), "{shown}");
    let error = parse(&with("format_version", json!(key))).unwrap_err();
    assert!(!error.to_string().contains(&key[..8]), "{error}");
    let error = parse(&with("dek", json!(format!("{key}!")))).unwrap_err();
    assert!(!error.to_string().contains(&key[..8]), "{error}");
}
