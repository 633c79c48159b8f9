//! Decryption tokens (protocol section 7): what a control plane hands out so that one object can be opened.
//!
//! The token is a JWT whose HS256 signature only its issuer can verify; here its structure and claims are
//! checked. What proves the key is the object itself: a frame opens or it does not.

use super::Digest;
use super::format::KEY_LEN;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use serde::Deserialize;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// The longest token that is looked at; real ones have some 700 bytes.
pub const MAX_TOKEN_LEN: usize = 16 * 1024;
const ISSUER: &str = "backupy-server";
const AUDIENCE: &str = "backupy-decrypt";
const SIGNATURE_ALGORITHM: &str = "HS256";
/// Bytes of an HS256 signature. It cannot be verified here, but a token that lost its end can be told.
const SIGNATURE_LEN: usize = 32;
const OBJECT_ALGORITHM: &str = "AES-256-GCM";
const FORMAT_VERSION: u64 = 1;

/// A token whose claims hold. The key is wiped when it is dropped.
pub struct Token {
    /// Which run's object it opens.
    pub run_id: String,
    /// Who asked for it.
    pub subject: String,
    /// Whose object it is.
    pub company_id: String,
    /// Unix seconds; past that it is refused.
    pub expires_at_s: u64,
    /// Of the whole object, where the issuer knows it.
    pub sha256: Option<Digest>,
    dek: Zeroizing<[u8; KEY_LEN]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("run_id", &self.run_id)
            .field("expires_at_s", &self.expires_at_s)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// Why a token is of no use. No variant carries a part of the token that could be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its 15 minutes are over.
    #[error(
        "the token expired {ago_s} s ago (a token lives for 15 minutes): ask the control plane for a new one"
    )]
    Expired {
        /// Seconds since then, on this host's clock.
        ago_s: u64,
    },
    /// `iss` is another.
    #[error("the token's issuer is {found:?}, expected {ISSUER:?}: it is no token of a backup control plane")]
    WrongIssuer {
        /// `iss`.
        found: String,
    },
    /// `aud` is another.
    #[error("the token's audience is {found:?}, expected {AUDIENCE:?}: this is a token for something else")]
    WrongAudience {
        /// `aud`.
        found: String,
    },
    /// Not a token, or not all of it.
    #[error("the token is malformed: {cause}; copy it whole, as the control plane gave it")]
    Malformed {
        /// What is wrong with it.
        cause: String,
    },
    /// `alg`, of the token's signature or of the object.
    #[error(
        "the token names the algorithm {found:?}, this version knows {known}: a newer backupy-agent may open it"
    )]
    UnsupportedAlgorithm {
        /// The algorithm.
        found: String,
        /// What would do.
        known: &'static str,
    },
    /// `format_version`.
    #[error(
        "the token names object format version {found}, this version knows {FORMAT_VERSION}: \
         a newer backupy-agent may open it"
    )]
    UnsupportedVersion {
        /// The version.
        found: u64,
    },
}

fn malformed(cause: impl Into<String>) -> TokenError {
    TokenError::Malformed { cause: cause.into() }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: Seconds,
    #[allow(dead_code, reason = "must be there; a clock behind the issuer's is no reason to refuse")]
    iat: Seconds,
    sub: String,
    run_id: String,
    company_id: String,
    dek: String,
    alg: String,
    format_version: u64,
    #[serde(default)]
    sha256: Option<String>,
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.dek.zeroize();
    }
}

/// RFC 7519 allows one audience as a text and several as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A NumericDate of RFC 7519: whole or with a fraction.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Fraction(f64),
}

impl Seconds {
    fn whole(&self) -> u64 {
        match self {
            Self::Whole(seconds) => *seconds,
            // Saturates: a negative date is 0, long past.
            Self::Fraction(seconds) => *seconds as u64,
        }
    }
}

impl Token {
    /// Reads a token; white space around it and `=` at the end of its parts do no harm.
    ///
    /// # Errors
    /// See [`TokenError`]. What can never be used is told before what is merely too old.
    pub fn parse(text: &str, now_unix_s: u64) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        if text.len() > MAX_TOKEN_LEN {
            return Err(malformed(format!("it has {} bytes, more than {MAX_TOKEN_LEN}", text.len())));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it does not have three parts with dots between"));
        };
        let header: Header = json("header", header)?;
        if header.alg != SIGNATURE_ALGORITHM {
            return Err(TokenError::UnsupportedAlgorithm { found: header.alg, known: SIGNATURE_ALGORITHM });
        }
        let claims: Claims = json("claims", claims)?;
        if decode("signature", signature)?.len() != SIGNATURE_LEN {
            return Err(malformed("its signature is not whole"));
        }
        check(&claims, now_unix_s)?;
        Ok(Self {
            dek: dek(&claims.dek)?,
            sha256: sha256(claims.sha256.as_deref())?,
            run_id: claims.run_id.clone(),
            subject: claims.sub.clone(),
            company_id: claims.company_id.clone(),
            expires_at_s: claims.exp.whole(),
        })
    }

    /// The object's key.
    pub fn dek(&self) -> &[u8; KEY_LEN] {
        &self.dek
    }
}

fn check(claims: &Claims, now_unix_s: u64) -> Result<(), TokenError> {
    if claims.iss != ISSUER {
        return Err(TokenError::WrongIssuer { found: claims.iss.clone() });
    }
    let audiences = match &claims.aud {
        Audience::One(audience) => std::slice::from_ref(audience),
        Audience::Several(audiences) => audiences,
    };
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::WrongAudience { found: audiences.join(", ") });
    }
    if claims.alg != OBJECT_ALGORITHM {
        return Err(TokenError::UnsupportedAlgorithm { found: claims.alg.clone(), known: OBJECT_ALGORITHM });
    }
    if claims.format_version != FORMAT_VERSION {
        return Err(TokenError::UnsupportedVersion { found: claims.format_version });
    }
    let expires_at_s = claims.exp.whole();
    if now_unix_s >= expires_at_s {
        return Err(TokenError::Expired { ago_s: now_unix_s - expires_at_s });
    }
    Ok(())
}

fn dek(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, TokenError> {
    let bytes = BASE64_NOPAD
        .decode(text.trim_end_matches('=').as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| malformed("its key is not base64"))?;
    let key = bytes
        .as_slice()
        .try_into()
        .map_err(|_| malformed(format!("its key has {} bytes, not {KEY_LEN}", bytes.len())))?;
    Ok(Zeroizing::new(key))
}

fn sha256(text: Option<&str>) -> Result<Option<Digest>, TokenError> {
    match text {
        None | Some("") => Ok(None),
        Some(hex) => Digest::from_hex(hex)
            .map(Some)
            .ok_or_else(|| malformed("its sha256 is not the 64 hex digits of a SHA-256")),
    }
}

fn decode(part: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    BASE64URL_NOPAD
        .decode(text.trim_end_matches('=').as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| malformed(format!("its {part} is not base64url")))
}

/// Of serde's text only what names a missing claim: the rest may quote a value, and one of them is the key.
fn json<T: for<'de> Deserialize<'de>>(part: &str, text: &str) -> Result<T, TokenError> {
    serde_json::from_slice(&decode(part, text)?).map_err(|error| {
        let said = error.to_string();
        let what = if said.starts_with("missing field") {
            format!("has a {}", said.split(" at line").next().unwrap_or_default())
        } else if error.is_data() {
            "has a value of another type than it should be".into()
        } else {
            "is not JSON".into()
        };
        malformed(format!("its {part} {what} (column {})", error.column()))
    })
}

#[cfg(test)]
mod tests;
