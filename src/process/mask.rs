//! Takes secrets out of what is shown.

use crate::model::{RunOrder, Secret};
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

/// Instead of a secret.
const MASK: &[u8] = b"***";

/// What is shorter than this stands in every text by chance.
const MIN_OF_RUN_LEN: usize = 4;

/// Secrets that a text must not show. Wiped when dropped.
#[derive(Clone, Debug, Default)]
pub struct Mask(Vec<Secret>);

impl Mask {
    /// Exactly these.
    pub fn of(secrets: &[Secret]) -> Self {
        Self::sorted(secrets.iter().filter(|secret| !secret.is_empty()).cloned().collect())
    }

    /// What a run knows from its order: upload URLs and key.
    pub fn of_order(order: &RunOrder) -> Self {
        let mut mask = Self::default();
        let key = order.dek.as_received();
        mask.hide(BASE64.encode(key).into());
        mask.hide(HEXLOWER.encode(key).into());
        // Of parts there are thousands, and nobody but the store is told of them.
        let of_parts =
            order.multipart.iter().flat_map(|parts| [&parts.complete_url, &parts.abort_url, &parts.head_url]);
        for url in of_parts.chain([&order.put_url]) {
            mask.hide_url(url);
        }
        mask
    }

    /// The query of a URL: its authorisation.
    pub fn hide_url(&mut self, url: &Secret) {
        if let Some((_, query)) = url.expose().split_once('?') {
            self.hide(query.into());
        }
    }

    /// One secret more. Not where it is so short that it stands in every text by chance.
    pub fn hide(&mut self, secret: Secret) {
        if secret.expose().len() < MIN_OF_RUN_LEN || self.0.contains(&secret) {
            return;
        }
        let mut secrets = std::mem::take(&mut self.0);
        secrets.push(secret);
        *self = Self::sorted(secrets);
    }

    /// The text without them.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.apply(text.as_bytes())).into_owned()
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
