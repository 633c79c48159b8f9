//! Takes a run's own secrets out of what a hook said.

use super::super::job::Job;
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

/// Instead of a secret.
const MASK: &str = "***";

/// What is shorter than this stands in every text by chance.
const MIN_SECRET_BYTES: usize = 4;

/// The secrets of one run. Wiped when dropped.
pub struct Scrubber(Vec<Zeroizing<String>>);

impl Scrubber {
    /// Upload URL, key and password of that run.
    pub fn of(job: &Job) -> Self {
        let key = job.order.dek.as_received();
        let mut secrets = vec![BASE64.encode(key), HEXLOWER.encode(key)];
        let url = job.order.put_url.expose();
        secrets.extend(url.split_once('?').map(|(_, query)| query.to_owned()));
        let password = &job.target.connection.password_ref;
        if password.is_literal() {
            let password = password.expose();
            secrets.push(password.strip_prefix("literal:").unwrap_or(password).to_owned());
        }
        secrets.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
        // A secret within another one would leave the rest of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets.into_iter().map(Zeroizing::new).collect())
    }

    /// The text without them.
    pub fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}
