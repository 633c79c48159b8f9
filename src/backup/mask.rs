//! Takes secrets out of what is shown.

use super::job::Job;
use crate::model::Secret;
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

/// Instead of a secret.
const MASK: &[u8] = b"***";

/// What is shorter than this stands in every text by chance.
const MIN_OF_RUN_LEN: usize = 4;

/// Secrets that a text must not show. Wiped when dropped.
#[derive(Clone, Default)]
pub struct Mask(Vec<Secret>);

impl Mask {
    /// Exactly these.
    pub fn of(secrets: &[Secret]) -> Self {
        Self::sorted(secrets.iter().filter(|secret| !secret.is_empty()).cloned().collect())
    }

    /// Upload URL, key and password of a run.
    pub fn of_run(job: &Job) -> Self {
        let key = job.order.dek.as_received();
        let mut secrets = vec![BASE64.encode(key), HEXLOWER.encode(key)];
        let url = job.order.put_url.expose();
        secrets.extend(url.split_once('?').map(|(_, query)| query.to_owned()));
        let password = &job.target.connection.password_ref;
        if password.is_literal() {
            let password = password.expose();
            secrets.push(password.strip_prefix("literal:").unwrap_or(password).to_owned());
        }
        let mut secrets: Vec<_> = secrets.into_iter().map(Secret::from).collect();
        secrets.retain(|secret| secret.expose().len() >= MIN_OF_RUN_LEN);
        Self::sorted(secrets)
    }

    /// A secret within another one would leave the rest of it: the longest goes first.
    fn sorted(mut secrets: Vec<Secret>) -> Self {
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self(secrets)
    }

    /// Of bytes whose beginning was cut away: how many of the first ones may be the rest of a secret.
    pub fn rest_len(&self, bytes: &[u8]) -> usize {
        let rest = |secret: &Secret| {
            let secret = secret.expose().as_bytes();
            (1..secret.len())
                .find_map(|from| secret.get(from..).filter(|rest| bytes.starts_with(rest)))
                .map_or(0, <[u8]>::len)
        };
        self.0.iter().map(rest).max().unwrap_or(0)
    }

    /// The bytes without them.
    pub fn apply(&self, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        let first = Zeroizing::new(bytes.to_vec());
        self.0
            .iter()
            .fold(first, |bytes, secret| Zeroizing::new(replaced(&bytes, secret.expose().as_bytes())))
    }
}

fn replaced(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(secret) {
            Some(behind) => {
                out.extend_from_slice(MASK);
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}
